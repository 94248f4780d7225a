"""The model card of a best snapshot, `README.md`: kind of model, results, data, use, training and limits.

The same run gives the same card, byte for byte, on any machine and after any number of interruptions. A card therefore contains no times,
no paths of the machine, and no flags that a continued run may change.
"""

import os
import re

from modeling.checkpoints.snapshot import TASK_FILE
from modeling.cli.flags import DOMAIN_MIXING, FINETUNING, META_DISTILL, META_FINETUNING, META_TEACHER
from modeling.report.markup import Number
from modeling.report.results import SPLITS, result_rows
from modeling.report.settings import changed_flags, data_table, flag_text, model_text, snapshot_roles
from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing
from ofrecord_util.reading import read_json

CARD_FILE = "README.md"
_KINDS = {
    META_FINETUNING: "The meta learner of Meta Fine-tuning: a BERT trained on all domains at once, to be fine-tuned on one of them",
    FINETUNING: "A BERT fine-tuned on the task's own domain, from a meta learner or another snapshot",
    DOMAIN_MIXING: "A BERT trained on all domains at once with plain cross-entropy, the baseline of Meta Fine-tuning",
    META_TEACHER: "The meta-teacher of Meta-KD: a BERT trained on all domains at once, to be distilled into smaller ones",
    META_DISTILL: "A student of Meta-KD: a BERT with fewer layers, distilled from a meta-teacher",
}


def _plain(text):
    """Text with the characters escaped that are markup in Markdown."""
    return re.sub(r"([\\`*_|<\[])", r"\\\1", " ".join(str(text).split()))


def _cell(value):
    """A cell of a Markdown table."""
    return _plain(f"{value:,}" if isinstance(value, int) else value)


def _table(header, rows):
    """A table in Markdown. Columns of numbers are right-aligned."""
    right = [rows and isinstance(cell, (int, float, Number)) for cell in rows[0]]
    lines = [header, ["---:" if number else "---" for number in right], *rows]
    return ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]


def card(run, path, task):
    """The card of a snapshot as text.

    Args:
        run: `RunFacts`.
        path: the snapshot's folder, a key of run.snapshots.
        task: dict, the content of its task.json.
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
    lines += _table(header, rows) if rows else ["flags.json does not describe the data of this run."]
    text = '"a text" "another text"' if not task.get("pair") else "--input pairs.tsv"
    lines += ["", "## Use", "", "```", f"python3 tools/predict.py --model_load_dir {name} {text}", "```", ""]
    lines += ["```python", "from modeling.predictor import Predictor", "", f'predictor = Predictor("{name}")']
    pair = '[("a text", "its partner")]' if task.get("pair") else '["a text", "another text"]'
    lines += [f"for prediction in predictor({pair}):", "    print(prediction.label, prediction.probabilities)", "```", ""]
    lines += ["The folder contains everything that is needed: variables, sizes, vocabulary, labels and casing.", "", "## Training", ""]
    changed, version = changed_flags(run, results_only=True), run.record.get("versions", {}).get("oneflow", "of unknown version")
    lines.append(f"`{run.script}.py`, OneFlow {version}. Flags that differ from their defaults:")
    lines += ["", *(f"- `--{flag} {flag_text(value)}`" for flag, value in changed.items()), "", "## Limits", "", *_limits(run, task)]
    return "\n".join(lines) + "\n"


def _results(run, name):
    """A table of the results on dev and, for the last best snapshot of the run, one of the results on test."""
    best = run.best(name)
    if best is None:
        return ["metrics.jsonl contains no evaluation of this snapshot."]
    lines = []
    for split in SPLITS if best is run.best() else SPLITS[:1]:
        found = result_rows(run, split, best if split == "dev" else None)
        if found:
            said = f"{split}, step {best['step']:,}" if split == "dev" and "step" in best else split
            lines += [f"{said}:", "", *_table(*found), ""]
    return lines[:-1]


def _limits(run, task):
    rows = [f"{result['total']:,} rows of {split}" for split in SPLITS for result in [run.result(split)] if result]
    measured = f"Measured on {' and '.join(rows)}; the 95 % intervals show the uncertainty." if rows else "Not measured."
    casing = "; casing and accents are removed" if task.get("do_lower_case") else ""
    return [
        f"- It predicts one of {len(task.get('labels', []))} labels for any text. It was not measured on texts of other domains.",
        f"- {measured} The snapshot was selected on dev, so the accuracy on dev is optimistic.",
        f"- Longer texts are truncated to {task.get('seq_length')} tokens{casing}.",
        "- The model inherits the biases of the pretrained encoder and of the training texts.",
    ]


def write_cards(run, replace=True):
    """Writes README.md into each best snapshot of a run.

    Args:
        run: `RunFacts`.
        replace: whether existing cards are replaced.
    Returns:
        list of the paths of the written cards.
    Raises:
        UserError: a card cannot be written.
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
