"""What was read of a split or a corpus, as lines for the log: source, rows by domain and label or texts by file, lengths, unknown tokens,
repeats, and examples."""

from typing import List, NamedTuple, Optional, Sequence

import numpy as np

from ofrecord_util.corpus_kinds import LEAVE_OUT
from ofrecord_util.encoding import TextEncoder
from ofrecord_util.escaping import listed
from ofrecord_util.records import Records
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextSplit
from ofrecord_util.text_files import UNLABELLED
from ofrecord_util.text_warnings import Repeats

_UNKNOWN_SHARE = 0.05  # of the tokens of a split; above it, the vocabulary hardly fits the text
_FEW_TOKENS = 20  # the share of fewer tokens says little
_MOST_NAMES = 8  # domains or labels that a line lists
_EXAMPLE_TOKENS = 24


class TokenFacts(NamedTuple):
    """Numbers about the tokens of some texts.

    Attributes:
        shortest, longest, median, most_have: tokens of a text, or of a record of a corpus, with special tokens; 95 % have at most
            `most_have`.
        texts, cut: number of texts, and of those that were cut at the length of a record; `cut` is None if it is not known or none can be.
        unknown, total: number of [UNK], and of all tokens without special ones; None if there is no vocabulary.
    """

    shortest: int
    longest: int
    median: int
    most_have: int
    texts: int
    cut: Optional[int]
    unknown: Optional[int]
    total: Optional[int]


def token_facts(
    lengths: np.ndarray, texts: int, cut: Optional[int] = None, unknown: Optional[int] = None, total: Optional[int] = None
) -> TokenFacts:
    """The `TokenFacts` of texts.

    Args:
        lengths: int [S + 1], the number of texts (records of a corpus) with 0 to S tokens. At least one is above 0.
        texts, cut, unknown, total: of `TokenFacts`.
    """
    there, until = np.flatnonzero(lengths), np.cumsum(lengths)
    median, most_have = (int(np.searchsorted(until, -(-int(until[-1]) * share // 100))) for share in (50, 95))
    return TokenFacts(int(there[0]), int(there[-1]), median, most_have, texts, cut, unknown, total)


def describe_split(
    split: str,
    records: Records,
    task: Task,
    tokenizer: Optional[TextEncoder],
    text: Optional[TextSplit] = None,
    repeats: Optional[Repeats] = None,
    train: str = "train",
) -> List[str]:
    """The lines: one for the source, one for the rows, one for the tokens, and for the training split one for each of two examples.

    Args:
        split: "train", "dev", "test" or `UNLABELLED`.
        records: `Records` of the whole split.
        task: `Task`.
        tokenizer: `TextEncoder`; None leaves out the share of [UNK] and the examples.
        text: `TextSplit`, or None if it was not read.
        repeats: its `Repeats`.
        train: the split that the run trains on.
    """
    lines = [] if text is None else [f"{split}: {text.source}"]
    if split == UNLABELLED:
        counts = "without labels; " + _listed(task.domains, np.bincount(records.domain, minlength=task.num_domains))
    else:
        counts = _counts(records.domain, records.label, task)
    lines.append(f"{split}: {len(records)} rows; {counts}")
    lines.append(_tokens(split, records, tokenizer, repeats, train))
    if tokenizer is not None and split == train:
        lines += [_example(split, records, row, task, tokenizer) for row in _two_rows(records)]
    return lines


def _counts(domain: np.ndarray, label: np.ndarray, task: Task) -> str:
    """Rows by domain and label, those of many domains or labels apart from each other."""
    counts = [task.kind.counts(label[domain == place], task.num_labels) for place in range(task.num_domains)]
    about = task.kind.summary(label, task.labels)
    if about is not None:
        rows = _listed(task.domains, np.bincount(domain, minlength=task.num_domains))
        of_labels = f"; labels: {_listed(task.labels, np.sum(counts, axis=0))}" if task.num_labels > 1 else ""
        return f"domains: {rows}; {about}{of_labels}"
    table = np.array(counts)
    if max(table.shape) > _MOST_NAMES:
        return f"domains: {_listed(task.domains, table.sum(axis=1))}; labels: {_listed(task.labels, table.sum(axis=0))}"
    return "; ".join(
        f"{name} {row.sum()} ({_listed(task.labels, row)})" for name, row in zip(task.domains, table) if row.sum() or len(table) == 1
    )


def _listed(names: tuple, counts: np.ndarray) -> str:
    """The names with their counts, the most frequent ones of many."""
    shown = list(range(len(names)))
    if len(shown) > _MOST_NAMES:
        shown = np.argsort(-counts, kind="stable")[: _MOST_NAMES - 1].tolist()
    parts = [f"{names[position]}: {counts[position]}" for position in shown]
    if len(shown) < len(names):
        parts.append(f"{len(names) - len(shown)} others: {counts.sum() - counts[shown].sum()}")
    return ", ".join(parts)


def _tokens(split: str, records: Records, tokenizer: Optional[TextEncoder], repeats: Optional[Repeats], train: str) -> str:
    cut = (records.manifest or {}).get("truncated")
    unknown = (None, None) if tokenizer is None else tokenizer.count_unknown(records.input_ids, records.input_mask)
    facts = token_facts(np.bincount(records.lengths), len(records), cut if isinstance(cut, int) else None, *unknown)
    further = []
    if repeats is not None:
        further.append(f"{repeats.repeated} repeated texts")
        if repeats.shared is not None:
            further.append(f"{repeats.shared} also in {train}")
    return _token_line(f"{split}: texts", facts, records.seq_length, further)


def _token_line(what: str, facts: TokenFacts, seq_length: int, further: Sequence[str] = (), cut: str = "cut") -> str:
    """The line of some `TokenFacts`, a warning if the vocabulary hardly fits the text."""
    parts = [
        f"{what} of {facts.shortest} to {facts.longest} tokens, median {facts.median}, 95 % have at most {facts.most_have}",
    ]
    if facts.cut is not None:
        parts.append(f"{_share(facts.cut, facts.texts)} {cut} at --seq_length {seq_length}")
    if facts.unknown is None or facts.total is None:
        return "; ".join([*parts, *further])
    return with_unknown(parts, facts.unknown, facts.total, further)


def hardly_fits(unknown: int, total: int) -> bool:
    """Whether so many of the tokens of some texts are [UNK] that the vocabulary hardly fits them. Arguments as of `with_unknown`."""
    return unknown > _UNKNOWN_SHARE * total and total >= _FEW_TOKENS


def with_unknown(parts: Sequence[str], unknown: int, total: int, further: Sequence[str] = ()) -> str:
    """A line of the log with the share of [UNK]. It is a warning if the vocabulary hardly fits the text.

    Args:
        parts, further: what the line says before and after it.
        unknown, total: as of `TextEncoder.count_unknown`.
    """
    line = "; ".join([*parts, f"{unknown} of {total} tokens are [UNK] ({_share(unknown, total)})", *further])
    if hardly_fits(unknown, total):
        line = f"warning: {line}: check --vocab_file and --do_lower_case, or take a model for the language of the text"
    return line


def describe_corpus(manifest: dict, facts: Optional[TokenFacts], names: Sequence[str], evaluation_text: str) -> List[str]:
    """The lines about a corpus: one for its records, one for the texts of each file, one for the tokens, and a warning if a file gives no
    text.

    Args:
        manifest: of its records.
        facts: `TokenFacts` of the records; None if the manifest does not have them.
        names: paths of the files, in the order of the manifest.
        evaluation_text: value of --evaluation_text.
    """
    found = manifest["evaluation_texts"]
    lines = [
        f"corpus: {manifest['num_records']} records of {manifest['texts']} texts, {manifest['tokens']} tokens with [CLS] and [SEP], the "
        f"longest record {manifest['longest']}" + (f"; texts of dev or test: {found}, --evaluation_text {evaluation_text}" if found else "")
    ]
    if facts is None:
        lines.append("corpus: the records do not say how many texts are cut and which tokens are [UNK]: --resave_ofrecord counts them")
        return lines
    counts = np.array(manifest["texts_by_file"])
    lines.append(f"corpus: texts: {_listed(tuple(names), counts)}")
    lines.append(_token_line("corpus: records", facts, manifest["seq_length"], cut="of the texts are cut"))
    lacking = [name for name, count in zip(names, counts.tolist()) if not count]
    if lacking:
        shown = listed(lacking, _MOST_NAMES)
        cause = f", or --evaluation_text {LEAVE_OUT} leaves out all texts" if evaluation_text == LEAVE_OUT and found else ""
        lines.append(f"warning: {shown}: the corpus has no text of {'it' if len(lacking) == 1 else 'them'}: all lines are blank{cause}")
    return lines


def _share(count: int, total: int) -> str:
    return f"{100 * count / max(total, 1):.1f} %"


def _two_rows(records: Records) -> List[int]:
    """Positions of the first row, and of the first one with another label, or of the second row."""
    others = np.flatnonzero((records.label != records.label[0]).reshape(len(records), -1).any(axis=1))
    return [0, *(others[:1].tolist() or list(range(1, len(records)))[:1])]


def _example(split: str, records: Records, row: int, task: Task, tokenizer: TextEncoder) -> str:
    length = int(records.lengths[row])
    tokens = [tokenizer.tokens[position] for position in records.input_ids[row, : min(length, _EXAMPLE_TOKENS)].tolist()]
    rest = f" … ({length} tokens)" if length > _EXAMPLE_TOKENS else ""
    label = [] if split == UNLABELLED else [task.kind.spell(records.label[row], task.labels) or "no label"]
    names = [task.domains[records.domain[row]], *label]
    return f"{split}: example ({', '.join(names)}): {' '.join(tokens)}{rest}"
