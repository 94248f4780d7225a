"""Draws the few-shot sets, the published splits and the Meta-KD split of `make_kshot.py`.

SHA-256 ranks the rows; no random generator is used.
"""

import collections
import hashlib

from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted, say
from tools.kshot_corpora import key, labels_of, read_source
from tools.kshot_leaks import CONTAINED, CONTAINS, EQUAL, find_leaks, unique

SPLITS = ("train", "dev", "test")


def rank(*parts):
    """Returns the SHA-256 of the parts (str or int), a pseudorandom sort key."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8")).digest()


def balanced(sizes, total):
    """Splits `total` over classes as evenly as their sizes allow. Sizes and result are dicts of label -> int."""
    parts, left = {}, total
    for i, label in enumerate(sorted(sizes, key=lambda label: (sizes[label], label))):
        parts[label] = min(sizes[label], left // (len(sizes) - i))
        left -= parts[label]
    return parts


def draw_test(domain, rows, cap):
    """Draws `cap` rows, balanced over the classes, each text once. If there are at most `cap` rows, all of them stay.

    Args:
        cap: int, or None for all.
    Returns:
        list of `Row`. The order depends on the texts and the domain only.
    """
    if cap is not None and cap < len(rows):
        by_label = collections.defaultdict(list)
        for row in sorted(unique(rows)[0], key=lambda row: rank("test", domain, row.label, row.text)):
            by_label[row.label].append(row)
        parts = balanced({label: len(found) for label, found in by_label.items()}, cap)
        rows = [row for label, found in by_label.items() for row in found[: parts[label]]]
    return sorted(rows, key=lambda row: rank("test order", domain, row.label, row.text))


def _without(rows, taken):
    """Returns the rows without one copy of each row in `taken`."""
    left = collections.Counter(map(key, taken))
    rest = []
    for row in rows:
        if left[key(row)]:
            left[key(row)] -= 1
        else:
            rest.append(row)
    return rest


def draw_kshot(candidates, labels, k, seed):
    """Draws K training and K dev rows for each class of each domain. No text is repeated in the result.

    Args:
        candidates: dict of domain -> list of `Row`.
        labels: list of str.
    Returns:
        ({split: {domain: list of Row}}, dict of domain -> number of rows skipped because another domain has their text). The
        seed shuffles the lists.
    Raises:
        UserError: if there are too few candidates.
    """
    drawn, passed, used = {"train": {}, "dev": {}}, collections.Counter(), set()
    for domain in sorted(candidates):  # so that the order of the arguments does not matter
        for split in drawn:
            drawn[split][domain] = []
        for label in labels:
            some = [row for row in candidates[domain] if row.label == label]
            chosen = []
            for row in sorted(some, key=lambda row: rank("draw", seed, domain, row.label, row.text)):
                if len(chosen) == 2 * k:
                    break
                if key(row) in used:
                    passed[domain] += 1
                    continue
                used.add(key(row))
                chosen.append(row)
            if len(chosen) < 2 * k:
                raise UserError(
                    f"{domain}: class {label!r} has {len(chosen)} candidates left, but --k {k} needs {2 * k} (train and dev); lower "
                    "--k or --test_cap, or add text"
                )
            drawn["train"][domain] += chosen[:k]
            drawn["dev"][domain] += chosen[k:]
        for split in drawn:
            drawn[split][domain].sort(key=lambda row: rank("order", seed, domain, row.label, row.text))
    return drawn, passed


def _read_all(sources, test_sources, encodings, log):
    """Reads the corpora. Returns (dict of domain -> `Corpus`, the same for test, list of labels)."""
    corpora = {d: read_source(source, "--source", encodings[d], log) for d, source in sources.items()}
    test_corpora = {d: read_source(source, "--test_source", encodings[d], log) for d, source in test_sources.items()}
    labels = labels_of(corpora)
    for domain, corpus in test_corpora.items():
        strange = sorted({row.label for row in corpus.rows} - set(labels))
        if strange:
            raise UserError(
                f"--test_source {domain} has labels that --source does not have: {', '.join(strange):.100}; "
                f"its labels are {', '.join(labels):.100}"
            )
    return corpora, test_corpora, labels


def make_kshot(sources, test_sources, caps, encodings, group, k, seeds, log=say):
    """Makes the files of the few-shot layout.

    Args:
        sources, test_sources: dict of domain -> `Source`.
        caps, encodings: dict of domain -> int / str, or None.
        group: name of the cross-domain set.
        k: int, number of rows per class and split.
        seeds: list of int.
    Returns:
        (dict of path -> list of (text, domain, label), dict for the manifest).
    """
    for domain in sources:
        if domain not in test_sources and caps[domain] is None:
            raise UserError(f"{domain}: has no test rows; set --test_source {domain}=..., or --test_cap N to draw N rows of its --source")
    corpora, test_corpora, labels = _read_all(sources, test_sources, encodings, log)
    tests = {d: draw_test(d, test_corpora.get(d, corpora[d]).rows, caps[d]) for d in sources}
    left = {d: corpora[d].rows if d in test_corpora else _without(corpora[d].rows, tests[d]) for d in sources}
    leaks = iter(find_leaks([row for d in sources for row in left[d]], [row for d in sources for row in tests[d]]))
    candidates, counts = {}, {}
    for domain in sources:
        kinds = [next(leaks) for _ in left[domain]]
        clear = [row for row, kind in zip(left[domain], kinds) if kind is None]
        candidates[domain], repeats, conflicts = unique(clear)
        counts[domain] = {
            "rows": len(corpora[domain].rows),
            "without text": corpora[domain].blank,
            "drawn for test": len(corpora[domain].rows) - len(left[domain]),
            "leaks": {kind: kinds.count(kind) for kind in (EQUAL, CONTAINS, CONTAINED)},
            "duplicates": repeats,
            "two labels": conflicts,
            "candidates": len(candidates[domain]),
        }
        log(_skipped(domain, counts[domain]))

    contents = {}
    for seed in seeds:
        drawn, passed = draw_kshot(candidates, labels, k, seed)
        name = f"{k}-{seed}"
        for domain in sources:
            for split, rows in (*((split, drawn[split][domain]) for split in drawn), ("test", tests[domain])):
                contents[f"k-shot-single/{domain}/{name}/{split}.csv"] = [(row.text, domain, row.label) for row in rows]
            counts[domain].setdefault("duplicates of another domain's draw", {})[str(seed)] = passed[domain]
            if passed[domain]:
                log(f"{domain}, seed {seed}: {passed[domain]} more duplicates skipped, their text drawn for another domain")
        for split in drawn:
            rows = [(row.text, domain, row.label) for domain in sources for row in drawn[split][domain]]
            contents[f"k-shot-cross/{group}/{name}/{split}.csv"] = sorted(rows, key=lambda row: rank("cross", seed, *row))
    flags = {"group": group, "k": k, "seeds": seeds, "test_cap": caps}
    return contents, {
        "mode": "kshot",
        "flags": flags,
        "counts": counts,
        "sources": {d: c.files for d, c in corpora.items()},
        "test_sources": {d: c.files for d, c in test_corpora.items()},
    }


def _skipped(domain, count):
    return (
        f"{domain}: {count['rows']} rows; {_leaks_text(count['leaks'])}, {count['duplicates']} duplicates, "
        f"{count['two labels']} with two labels, {count['without text']} without text; "
        f"{count['drawn for test']} drawn for test; {count['candidates']} candidates"
    )


def _leaks_text(leaks):
    return (
        f"skipped {sum(leaks.values())} leaks ({leaks[EQUAL]} equal a test row, {leaks[CONTAINS]} contain one, {leaks[CONTAINED]} are "
        "contained in one)"
    )


def make_splits(sources, test_sources, encodings, group, dev_rows, log=say):
    """Makes the files of a published split whose dev rows are the last ones of the training file, as for FDU-MTL.

    Rows of train and dev that reveal a test row of any domain are left out, and so are training rows with the text of a dev row.

    Args:
        sources, test_sources: dict of domain -> `Source`, of the same domains.
        encodings: dict of domain -> str, or None.
        group: name of the cross-domain set.
        dev_rows: int, rows at the end of each source that are dev.
    Returns:
        (dict of path -> list of (text, domain, label), dict for the manifest). The rows of a domain keep the order of the files.
    Raises:
        UserError: a domain has no --test_source, or too few rows, or a label that its train or dev rows lack.
    """
    for domain in sources:
        if domain not in test_sources:
            raise UserError(f"{domain}: has no test rows; set --test_source {domain}=...")
    corpora, test_corpora, labels = _read_all(sources, test_sources, encodings, log)
    for domain, corpus in corpora.items():
        if len(corpus.rows) <= dev_rows:
            raise UserError(f"--dev_rows {dev_rows}: --source {domain} has {len(corpus.rows)} rows, so none are left for train")
    tests = [row for d in sources for row in test_corpora[d].rows]
    leaks = iter(find_leaks([row for d in sources for row in corpora[d].rows], tests))
    kinds = {d: [next(leaks) for _ in corpora[d].rows] for d in sources}
    clear = {d: {id(row) for row, kind in zip(corpora[d].rows, kinds[d]) if kind is None} for d in sources}
    dev = {d: [row for row in corpora[d].rows[-dev_rows:] if id(row) in clear[d]] for d in sources}
    dev_texts = {key(row) for rows in dev.values() for row in rows}
    contents, counts = {}, {}
    for domain in sources:
        before = [row for row in corpora[domain].rows[:-dev_rows] if id(row) in clear[domain]]
        train = [row for row in before if key(row) not in dev_texts]
        parts = dict(zip(SPLITS, (train, dev[domain], test_corpora[domain].rows)))
        for split, rows in parts.items():
            lacking = [label for label in labels if label not in {row.label for row in rows}]
            if lacking and split != "test":
                left_out = f"{sum(kind is not None for kind in kinds[domain])} of {len(corpora[domain].rows)} rows"
                raise UserError(
                    f"--source {domain}: {split} has no row of label {lacking[0]!r} ({left_out} reveal a test row and are left out; dev is "
                    f"the last {counted(dev_rows, 'row')}): change --dev_rows, or give a file with its labels mixed"
                )
            contents[f"single/{domain}/{split}.csv"] = [(row.text, domain, row.label) for row in rows]
        counts[domain] = {
            "rows": len(corpora[domain].rows),
            "without text": corpora[domain].blank,
            "leaks": {kind: kinds[domain].count(kind) for kind in (EQUAL, CONTAINS, CONTAINED)},
            "text of a dev row": len(before) - len(train),
            **{split: len(rows) for split, rows in parts.items()},
        }
        count = counts[domain]
        log(
            f"{domain}: {count['rows']} rows; {_leaks_text(count['leaks'])}, {count['text of a dev row']} with the text of a dev row, "
            f"{count['without text']} without text; train {count['train']}, dev {count['dev']}, test {count['test']}"
        )
    for split in SPLITS:
        rows = [row for domain in sources for row in contents[f"single/{domain}/{split}.csv"]]
        contents[f"cross/{group}/{split}.csv"] = sorted(rows, key=lambda row: rank("cross", *row))
    return contents, {
        "mode": "splits",
        "flags": {"group": group, "dev_rows": dev_rows},
        "counts": counts,
        "sources": {d: c.files for d, c in corpora.items()},
        "test_sources": {d: c.files for d, c in test_corpora.items()},
    }


def stratified(sizes, wanted):
    """Splits strata into parts, as proportionally as whole numbers allow.

    Args:
        sizes: dict of stratum -> int.
        wanted: list of int, sizes of the parts. Their sum is the sum of `sizes`.
    Returns:
        dict of stratum -> list of int: its share of each part. The sums over strata and over parts are exact.
    """
    total = sum(sizes.values())
    shares = {s: [n * part // total for part in wanted] for s, n in sizes.items()}
    open_strata = {s: n - sum(shares[s]) for s, n in sizes.items()}
    open_parts = [part - sum(shares[s][j] for s in sizes) for j, part in enumerate(wanted)]
    # the largest remainder is first; another round is needed if a stratum or part of an earlier choice was full
    cells = sorted((-(n * part % total), s, j) for s, n in sizes.items() for j, part in enumerate(wanted))
    while any(open_parts):
        for _, s, j in cells:
            if open_strata[s] and open_parts[j]:
                shares[s][j] += 1
                open_strata[s] -= 1
                open_parts[j] -= 1
    return shares


def split_portions(rows, wanted, seed):
    """Splits a corpus into parts, stratified by domain and class. All copies of a text are in one part.

    Args:
        rows: list of N (domain, `Row`).
        wanted: list of int [3], numbers of rows of train, dev and test. The remaining rows are not used.
    Returns:
        list of 3 lists of (domain, `Row`). The seed shuffles the lists.
    Raises:
        UserError: if there are too few rows, or the copies of a text do not fit into any part.
    """
    if sum(wanted) > len(rows):
        raise UserError("--train {} --dev {} --test {} need {} rows, but the corpus has {}".format(*wanted, sum(wanted), len(rows)))
    rows = sorted(rows, key=lambda pair: rank("portions", seed, pair[0], pair[1].label, pair[1].text))
    groups = collections.defaultdict(list)
    for pair in rows:
        groups[key(pair[1])].append(pair)
    sizes = collections.Counter((domain, row.label) for domain, row in rows)
    room = stratified(sizes, [*wanted, len(rows) - sum(wanted)])
    parts = [[] for _ in range(4)]
    # Copies are placed first, while there is room. They go to the training rows, so that no test row counts twice, or
    # to the rows that are not used. A single row always fits, so the parts have exactly their sizes.
    for group in sorted(groups.values(), key=len, reverse=True):
        need = collections.Counter((domain, row.label) for domain, row in group)
        order = (0, 3, 1, 2) if len(group) > 1 else (2, 1, 0, 3)
        part = next((j for j in order if all(room[stratum][j] >= n for stratum, n in need.items())), None)
        if part is None:
            raise UserError(f"{group[0][0]}: the {len(group)} copies of {group[0][1].text!r:.60} do not fit into one part; raise --train")
        parts[part] += group
        for stratum, n in need.items():
            room[stratum][part] -= n
    return [sorted(part, key=lambda pair: rank("order", seed, pair[0], pair[1].label, pair[1].text)) for part in parts[:3]]


def make_portions(sources, encodings, wanted, seed, log=say):
    """Makes the files of the Meta-KD split. Arguments and results are as in `make_kshot` and `split_portions`."""
    corpora = {d: read_source(source, "--source", encodings[d], log) for d, source in sources.items()}
    labels_of(corpora)
    rows = [(domain, row) for domain, corpus in corpora.items() for row in corpus.rows]
    parts = split_portions(rows, wanted, seed)
    copies = collections.Counter(key(row) for _, row in rows)
    learned = parts[0] + parts[1]
    leaks = find_leaks([row for _, row in learned], [row for _, row in parts[2]])
    counts = {}
    for domain, corpus in corpora.items():
        near = sum(leak is not None and d == domain for leak, (d, _) in zip(leaks, learned))
        repeated = sum(copies[key(row)] > 1 for row in corpus.rows)
        counts[domain] = {"rows": len(corpus.rows), "without text": corpus.blank, "repeated": repeated, "kept leaks": near}
        log(
            f"{domain}: {len(corpus.rows)} rows, {corpus.blank} without text skipped; {repeated} repeat a text, all copies in one split; "
            f"{near} rows of train and dev contain or are contained in a test row (a split of everything leaves none out)"
        )
    contents = {split + ".csv": [(row.text, domain, row.label) for domain, row in part] for split, part in zip(SPLITS, parts) if part}
    flags = {"seed": seed, **dict(zip(SPLITS, wanted))}
    return contents, {
        "mode": "portions",
        "flags": flags,
        "counts": counts,
        "sources": {d: c.files for d, c in corpora.items()},
    }
