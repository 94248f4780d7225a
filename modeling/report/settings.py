"""Settings of the run: flags, and which of them differ from their defaults; versions, data, snapshots."""

from modeling.cli.flags import SCRIPTS, build_parser, script_path
from modeling.report.markup import element, table, words
from modeling.run.resume import FREE_FLAGS
from ofrecord_util.escaping import for_shell
from ofrecord_util.label_kinds import MULTI_LABEL
from ofrecord_util.text_files import UNLABELLED

_NOTHING = "not known"


def flag_text(value):
    """A flag's value as on the command line; "unset" for None."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def model_text(config):
    """The sizes of an encoder, or of encoder and decoder, in words, or None if they are not known."""
    sizes = [config.get(name) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")]
    if not all(isinstance(size, int) for size in sizes):
        return None
    decoder = config.get("dec_hidden_layers")
    layers = f"{sizes[0]} encoder and {decoder} decoder layers" if isinstance(decoder, int) else f"{sizes[0]} layers"
    return "{} x {}, {} heads, {:,} word pieces".format(layers, *sizes[1:])


def changed_flags(run, results_only=False):
    """dict of name -> value of the flags that differ from their defaults.

    Args:
        run: `RunFacts`.
        results_only: leave out the flags that a continued run may change (paths, output, what is kept). They do not affect what
            the model learns.
    """
    if run.script not in SCRIPTS:
        return dict(run.flags)
    parser = build_parser(run.script)
    changed = {name: value for name, value in run.flags.items() if value != parser.get_default(name)}
    return {name: value for name, value in changed.items() if not (results_only and name in FREE_FLAGS)}


def data_table(run):
    """Number of rows per class, file and digest of each split, as (header, rows) for `table`."""
    data, labels = run.record.get("data", {}), run.record.get("task", {}).get("labels", [])
    header = ["split", "domain", *labels, "rows", "file", "digest of the text"]
    rows = []
    for split in ("corpus", "train", UNLABELLED, "dev", "test"):
        about = data.get(split)
        if not about:
            continue
        by_domain = about.get("by_domain", {})
        digest = str(about.get("text_digest") or _NOTHING)
        has_labels = by_domain and split != UNLABELLED  # the corpus has neither domains nor labels
        sums = [sum(counts.get(label, 0) for counts in by_domain.values()) if has_labels else "" for label in labels]
        rows.append([split, "all", *sums, about.get("rows", 0), about.get("text_file") or _NOTHING, digest])
        if len(by_domain) > 1:
            for domain in run.domains:
                counts = [by_domain.get(domain, {}).get(label, 0) if has_labels else "" for label in labels]
                exclusive = run.record.get("task", {}).get("task_type") != MULTI_LABEL  # a row counts to one label
                rows.append([split, domain, *counts, sum(by_domain.get(domain, {}).values()) if exclusive else "", "", ""])
    return header, rows


def snapshot_roles(run):
    """List of (role, path from the flags, digest), one per snapshot that the run started from."""
    roles = []
    start = run.flags.get("student_model") or run.flags.get("model_load_dir")
    if start:
        roles.append(("start", start, run.record.get("snapshot_digest") or _NOTHING))
    if run.flags.get("teacher_model"):
        roles.append(("teacher", run.flags["teacher_model"], run.record.get("teacher_digest") or _NOTHING))
    return roles


def settings_section(run):
    """The section as markup."""
    record, flags = run.record, run.flags
    versions = record.get("versions", {})
    script = script_path(run.script) if run.script in SCRIPTS else f"{run.script}.py" if run.script else _NOTHING
    facts = [("script", script), ("OneFlow", versions.get("oneflow", _NOTHING))]
    facts += [("Python", versions.get("python", _NOTHING)), ("device", record.get("device", _NOTHING))]
    facts.append(("model", model_text(record.get("config", {})) or _NOTHING))
    if flags.get("data_dir"):
        facts.append(("data", flags["data_dir"]))
    facts += [("digest of the vocabulary", record.get("vocab_digest", _NOTHING))]
    for role, path, digest in snapshot_roles(run):
        facts.append((f"{role} snapshot", f"{path}, digest {digest}"))
    for path, digest in run.snapshots.items():
        facts.append(("best snapshot", f"{path}, digest {digest or _NOTHING}"))
    listed = "".join(element("dt", words(name)) + element("dd", words(value)) for name, value in facts)
    parts = [element("dl", listed, class_="facts")]

    def flag_rows(values):
        return [[f"--{name}", flag_text(value)] for name, value in values.items()]

    changed = changed_flags(run)
    if flags:
        parts.append(element("h3", "Flags that differ from their defaults" if run.script in SCRIPTS else "Flags"))
        parts.append(table(["flag", "value"], flag_rows(changed)) if changed else element("p", "None."))
        others = {name: value for name, value in flags.items() if name not in changed}
        if others:
            summary = element("summary", words(f"The other {len(others)} flags, at their defaults"))
            parts.append(element("details", summary, table(["flag", "value"], flag_rows(others))))
    if record.get("command"):
        command = " ".join(["python3", *(for_shell(part) for part in record["command"])])
        parts.append(element("details", element("summary", "Command"), element("pre", words(command), tabindex=0)))
    header, rows = data_table(run)
    if rows:
        parts += [element("h3", "Data"), table(header, rows, class_="digests")]
    return element("section", element("h2", "Settings of the run", id="run"), *parts)
