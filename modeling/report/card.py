"""`README.md` of a best snapshot: what it is, what it was measured at, how it is loaded, how it was trained.

The same run gives the same card, byte for byte, wherever and in however many parts it ran: no times, no paths of the machine, none of
the flags that a continued run may change.
"""

import os
import re

from modeling.checkpoints.snapshot import TASK_FILE
from modeling.cli.flags import DOMAIN_MIXING, FINETUNING, META_DISTILL, META_FINETUNING, META_TEACHER
from modeling.report.markup import Number
from modeling.report.results import SPLITS, result_rows
from modeling.report.settings import changed_flags, data_table, flag_text, model_text, snapshot_roles
from ofrecord_util.errors import UserError
from ofrecord_util.files import read_json, replacing

CARD_FILE = "README.md"
_KINDS = {
    META_FINETUNING: "The meta learner of Meta Fine-tuning: a BERT trained on all domains at once, to be fine-tuned on one of them",
    FINETUNING: "A BERT fine-tuned on the task's own domain, from a meta learner or another snapshot",
    DOMAIN_MIXING: "A BERT trained on all domains at once with plain cross-entropy, the baseline of Meta Fine-tuning",
    META_TEACHER: "The meta-teacher of Meta-KD: a BERT trained on all domains at once, to be distilled into smaller ones",
    META_DISTILL: "A student of Meta-KD: a BERT of fewer layers that learned from a meta-teacher",
}


def _plain(text):
    """Text as Markdown shows it, without markup of its own."""
    return re.sub(r"([\\`*_|<\[])", r"\\\1", " ".join(str(text).split()))


def _cell(value):
    """A cell of a Markdown table."""
    return _plain(f"{value:,}" if isinstance(value, int) else value)


def _table(header, rows):
    """A table in Markdown; columns of numbers stand right."""
    right = [rows and isinstance(cell, (int, float, Number)) for cell in rows[0]]
    lines = [header, ["---:" if number else "---" for number in right], *rows]
    return ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]


def card(run, path, task):
    """The card of a snapshot as text.

    Args:
        run: `RunFacts`.
        path: the snapshot's folder, one of run.snapshots.
        task: the object of its task.json.
    """
    name, size = os.path.basename(path), model_text(run.record.get("config", {}))
    lines = [f"# {name}", "", _KINDS.get(run.script, "A trained BERT") + f". Task `{task.get('name')}`, OneFlow static graphs."]
    lines += ["", f"- domains: {_plain(', '.join(task.get('domains', [])))}", f"- labels: {_plain(', '.join(task.get('labels', [])))}"]
    lines += [f"- a sample is {'a pair of texts' if task.get('pair') else 'one text'} of at most {task.get('seq_length')} tokens"]
    if size:
        lines.append(f"- size: {size}")
    lines.append(f"- digest of the variables: `{run.snapshots.get(path)}`")
    for role, start, digest in snapshot_roles(run):
        lines.append(f"- {role} snapshot: `{os.path.basename(start.rstrip('/'))}`, digest `{digest}`")
    if not snapshot_roles(run):
        lines.append("- start: initial values, no pretrained snapshot")
    lines += ["", "## Results", "", *_results(run, name), "", "## Data", ""]
    header, rows = data_table(run)
    lines += _table(header, rows) if rows else ["The run does not say what it learned from."]
    text = '"a text" "another text"' if not task.get("pair") else "--input pairs.tsv"
    lines += ["", "## Use", "", "```", f"python3 tools/predict.py --model_load_dir {name} {text}", "```", ""]
    lines += ["```python", "from modeling.predictor import Predictor", "", f'predictor = Predictor("{name}")']
    pair = '[("a text", "its partner")]' if task.get("pair") else '["a text", "another text"]'
    lines += [f"for prediction in predictor({pair}):", "    print(prediction.label, prediction.probabilities)", "```", ""]
    lines += ["The folder holds all that is needed: variables, sizes, vocabulary, labels and casing.", "", "## Training", ""]
    changed, version = changed_flags(run, results_only=True), run.record.get("versions", {}).get("oneflow", "of unknown version")
    lines.append(f"`{run.script}.py`, OneFlow {version}. Flags that differ from their defaults:")
    lines += ["", *(f"- `--{flag} {flag_text(value)}`" for flag, value in changed.items()), "", "## Limits", "", *_limits(run, task)]
    return "\n".join(lines) + "\n"


def _results(run, name):
    """Tables of dev and, for the run's last best snapshot, of test."""
    best = run.best(name)
    if best is None:
        return ["No evaluation of this snapshot is written down."]
    lines = []
    for split in SPLITS if best is run.best() else SPLITS[:1]:
        found = result_rows(run, split, best if split == "dev" else None)
        if found:
            said = f"{split}, step {best['step']:,}" if split == "dev" and "step" in best else split
            lines += [f"{said}:", "", *_table(*found), ""]
    return lines[:-1]


def _limits(run, task):
    rows = [f"{result['total']:,} rows of {split}" for split in SPLITS for result in [run.result(split)] if result]
    measured = f"Measured on {' and '.join(rows)}; the intervals say how sure that is." if rows else "Not measured."
    casing = "; casing and accents are dropped" if task.get("do_lower_case") else ""
    return [
        f"- It answers with one of {len(task.get('labels', []))} labels, whatever the text. Texts of other domains were not measured.",
        f"- {measured} dev chose the snapshot, so its accuracy flatters.",
        f"- Longer texts are cut to {task.get('seq_length')} tokens{casing}.",
        "- What the pretrained encoder and the training texts are biased towards, this model is biased towards.",
    ]


def write_cards(run, replace=True):
    """Writes README.md into each best snapshot of a run.

    Args:
        run: `RunFacts`.
        replace: whether a card that is there already is written anew.
    Returns:
        paths of the cards written.
    Raises:
        UserError: one cannot be written.
    """
    paths = []
    for folder, digest in run.snapshots.items():
        path = os.path.join(folder, CARD_FILE)
        task_path = os.path.join(folder, TASK_FILE)
        if digest is None or not os.path.isfile(task_path) or (os.path.lexists(path) and not replace):
            continue
        text = card(run, folder, read_json(task_path, "it is a snapshot's own file"))
        try:
            with replacing(path) as file:
                file.write(text.encode("utf-8", "replace"))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
        paths.append(path)
    return paths
