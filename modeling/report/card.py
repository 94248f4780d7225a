"""The model card of a best snapshot, `README.md`: kind of model, results, data, use, training and limits.

The same run gives the same card, byte for byte, on any machine and after any number of interruptions. A card therefore contains no times,
no paths of the machine, and no flags that a continued run may change.
"""

import os

from modeling.checkpoints.snapshot import TASK_FILE, Snapshot, stored_task
from modeling.cli.choices import ACCURACY, CLS, RAW_CLS
from modeling.cli.flags import (
    DOMAIN_MIXING,
    FINETUNING,
    GENERATION,
    META_DISTILL,
    META_FINETUNING,
    META_REPTILE,
    META_TEACHER,
    METRIC_LEARNING,
    PRETRAIN_DISCRIMINATOR,
    PRETRAIN_MLM,
    PRETRAIN_PAIRS,
    SEQUENCE_LABELING,
    SPAN_ANSWERING,
)
from modeling.cli.scripts import CORPUS_TRAINING, TEXT_GENERATION, TOKEN_TRAINING
from modeling.report.generations import score_rows
from modeling.report.markup import Number
from modeling.report.results import SPLITS, result_rows, tasks_text
from modeling.report.settings import changed_flags, data_table, flag_text, model_text, snapshot_roles
from modeling.run.held_out import title_of
from modeling.run.measures import shown_of
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import for_markdown, for_markdown_code, for_python, for_shell, markdown_block
from ofrecord_util.files import replacing
from ofrecord_util.label_kinds import CLASSIFICATION, MULTI_LABEL, REGRESSION

CARD_FILE = "README.md"
KINDS = {
    META_FINETUNING: "The meta learner of Meta Fine-tuning: a BERT trained on several domains at once, to be fine-tuned on one of them",
    FINETUNING: "A BERT fine-tuned for the classes of one task",
    DOMAIN_MIXING: "A BERT trained on several domains at once with plain cross-entropy, the baseline of Meta Fine-tuning",
    META_REPTILE: "The initial weights that Reptile or FOMAML has learnt on several domains, to be fine-tuned on a domain with few rows",
    METRIC_LEARNING: "A BERT whose text vectors are near for equal labels, with a classifier on these vectors",
    PRETRAIN_MLM: "A BERT trained on text without labels by masked language modelling, to be trained further on a task",
    PRETRAIN_DISCRIMINATOR: "A BERT trained on text without labels to tell which tokens a generator has replaced (ELECTRA)",
    PRETRAIN_PAIRS: "A BERT whose vectors of the two halves of a text are near, trained on text without labels",
    SEQUENCE_LABELING: "A BERT that tags words",
    SPAN_ANSWERING: "A BERT that finds the answer to a question in a text",
    GENERATION: "A PALM, an encoder-decoder that generates the target text of a source",
    META_TEACHER: "The meta-teacher of Meta-KD: a BERT trained on several domains at once, to be distilled into smaller ones",
    META_DISTILL: "A student of Meta-KD: a BERT with fewer layers, distilled from a meta-teacher",
}

_TOOLS = {  # commands that use a snapshot
    SEQUENCE_LABELING: 'python3 tools/tag_words.py --model_load_dir {} "Ann lives in Oslo ."',
    SPAN_ANSWERING: "python3 tools/answer_questions.py --model_load_dir {} --input questions.json --output answers.json",
}


def _cell(value):
    """A cell of a Markdown table."""
    return for_markdown(f"{value:,}" if isinstance(value, int) else value)


def markdown_table(header, rows):
    """Lines of a table in Markdown. Columns of numbers are right-aligned.

    Args:
        header: list of str.
        rows: lists of cells, as for `modeling.report.markup.table`.
    """
    right = [rows and isinstance(cell, (int, float, Number)) for cell in rows[0]]
    lines = [header, ["---:" if number else "---" for number in right], *rows]
    return ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]


def card(run, path, task, length, lower_case):
    """The card of a snapshot as text.

    Args:
        run: `RunFacts`.
        path: the snapshot's folder, a key of run.snapshots.
        task: its `Task`.
        length: tokens of its longest text.
        lower_case: whether its words are lower-cased.
    """
    name, size = os.path.basename(path), model_text(run.record.get("config", {}))
    domains, labels = (for_markdown(", ".join(names)) for names in (task.domains, task.labels))
    lines = [f"# {for_markdown(name)}", ""]
    lines += [kind_of_model(run.script, task, "A trained BERT") + f". Task {for_markdown_code(task.name)}, OneFlow static graphs."]
    kind = [] if task.task_type == CLASSIFICATION else [f"- type of task: {task.task_type}"]
    if run.script in TEXT_GENERATION:
        lines += ["", f"- a source has at most {length} tokens, a target at most {run.flags.get('target_length')}"]
    else:
        lines += ["", f"- domains: {domains}", *kind, f"- labels: {labels}"]
        lines += [f"- a sample is {'a pair of texts' if task.pair else 'one text'} of at most {length} tokens"]
    if size:
        lines.append(f"- size: {size}")
    lines.append(f"- digest of the variables: `{run.snapshots.get(path)}`")
    for role, start, digest in snapshot_roles(run):
        folder = os.path.basename(start.rstrip("/"))
        lines.append(f"- {role} snapshot: {for_markdown_code(folder)}, digest {for_markdown_code(digest)}")
    if not snapshot_roles(run):
        lines.append("- start: initial values, no pretrained snapshot")
    lines += ["", "## Results", "", *result_lines(run, name), "", "## Data", ""]
    header, rows = data_table(run)
    lines += markdown_table(header, rows) if rows else ["flags.json does not describe the data of this run."]
    if run.script in TEXT_GENERATION:
        found = score_rows(run)
        lines[lines.index("## Data") : lines.index("## Data")] = ["Generated texts:", "", *markdown_table(*found), ""] if found else []
        command = f'python3 tools/generate.py --model_load_dir {for_shell(name)} "a source" "another source"'
        lines += ["", "## Use", "", *markdown_block([command]), ""]
        return _training_lines(run, lines, _language_limits(run, length, lower_case))
    if run.script in CORPUS_TRAINING:
        step = f"python3 finetuning.py --task_name {for_shell(task.name)} --data_dir DATA --model_load_dir {for_shell(name)}"
        steps = [step]
        if run.script == PRETRAIN_PAIRS:
            pooling = Snapshot(path).config().pooling
            reduction = {CLS: "pooler", RAW_CLS: CLS}.get(pooling, pooling)
            vectors = f"--reduction {reduction} --input FILE --output vectors.npy"
            steps.append(f"python3 tools/embed.py --model_load_dir {for_shell(name)} {vectors}")
        lines += ["", "## Use", "", *markdown_block(steps), "", "It has no classifier. Every step takes it as its start.", ""]
        return _training_lines(run, lines, _language_limits(run, length, lower_case))
    if run.script in TOKEN_TRAINING:
        lines += ["", "## Use", "", *markdown_block([_TOOLS[run.script].format(for_shell(name))]), ""]
        return _training_lines(run, lines, _token_limits(run, length, lower_case))
    text = '"a text" "another text"' if not task.pair else "--input pairs.tsv"
    lines += ["", "## Use", "", *markdown_block([f"python3 tools/predict.py --model_load_dir {for_shell(name)} {text}"]), ""]
    pair = '[("a text", "its partner")]' if task.pair else '["a text", "another text"]'
    program = ["from modeling.predictor import Predictor", "", f"predictor = Predictor({for_python(name)})"]
    program += [f"for prediction in predictor({pair}):", "    print(prediction.label, prediction.probabilities)"]
    lines += [*markdown_block(program, "python"), ""]
    lines += ["The folder contains everything that is needed: variables, sizes, vocabulary, labels and casing.", ""]
    return _training_lines(run, lines, _limits(run, task, length, lower_case))


def _training_lines(run, lines, limits):
    """The text of a card: the given lines, then the sections about the training and the limits."""
    changed, version = changed_flags(run, results_only=True), run.record.get("versions", {}).get("oneflow", "of unknown version")
    lines += ["## Training", ""]
    lines.append(f"{for_markdown_code(f'{run.script}.py')}, OneFlow {for_markdown(version)}. Flags that differ from their defaults:")
    lines += ["", *(f"- {for_markdown_code(f'--{flag} {flag_text(value)}')}" for flag, value in changed.items())]
    lines += ["", "## Limits", "", *limits]
    return "\n".join(lines) + "\n"


def result_lines(run, name):
    """Lines of Markdown: a table of the results on dev and, for the last best snapshot of the run, one of the results on test.

    Args:
        run: `RunFacts`.
        name: of the snapshot's folder.
    """
    best = run.best(name)
    if best is None:
        return ["metrics.jsonl contains no evaluation of this snapshot."]
    lines = []
    for split in SPLITS if best is run.best() else SPLITS[:1]:
        found = result_rows(run, split, best if split == "dev" else None)
        if found:
            said = f"{split}, step {best['step']:,}" if split == "dev" and "step" in best else title_of(split)
            said += tasks_text(best if split == "dev" else run.result(split))
            lines += [f"{said}:", "", *markdown_table(*found), ""]
    return lines[:-1]


def _limits(run, task, length, lower_case):
    results = [(split, run.result(split)) for split in SPLITS if run.result(split)]
    rows = [f"{result['total']:,} rows of {title_of(split)}{tasks_text(result, ' after ')}" for split, result in results]
    first = shown_of(results[0][1] if results else {})
    intervals = first.share == ACCURACY and any(result.get("intervals") for _, result in results)  # of no width if all rows are right
    spread = "; the 95 % intervals show the uncertainty" if intervals else ""
    measured = f"Measured on {' and '.join(rows)}{spread}." if rows else "Not measured."
    casing = "; casing and accents are removed" if lower_case else ""
    return [
        f"- It predicts {what_it_predicts(task)} for any text. It was not measured on texts of other domains.",
        f"- {measured} The snapshot was selected on dev, so the {first.share_title} on dev is optimistic.",
        f"- Longer texts are truncated to {length} tokens{casing}.",
        "- The model inherits the biases of the pretrained encoder and of the training texts.",
    ]


def kind_of_model(script, task, unknown):
    """One sentence without its stop about the model that a script trains.

    Args:
        script: name of the script.
        task: `Task`, or None.
        unknown: the sentence of an unknown script.
    """
    if script == FINETUNING and task is not None and task.task_type != CLASSIFICATION:
        return f"A BERT fine-tuned to predict {what_it_predicts(task)}"
    return KINDS.get(script, unknown)


def what_it_predicts(task):
    """What a model of a `Task` says of a text, for the sentences of cards."""
    return {REGRESSION: "a number", MULTI_LABEL: f"any number of {task.num_labels} labels"}.get(
        task.task_type, f"one of {task.num_labels} labels"
    )


def _language_limits(run, length, lower_case):
    what = {PRETRAIN_MLM: "masked tokens", PRETRAIN_DISCRIMINATOR: "tokens", PRETRAIN_PAIRS: "pairs"}.get(run.script, "target tokens")
    counts = [f"{result['total']:,} {what} of {split}" for split in SPLITS for result in [run.result(split)] if result]
    casing = "; casing and accents are removed" if lower_case else ""
    return [
        f"- Measured on {' and '.join(counts)}. The snapshot was selected on dev." if counts else "- Not measured.",
        f"- Texts had at most {length} tokens{casing}.",
        "- The model inherits the biases of the pretrained encoder and of the corpus.",
    ]


def _token_limits(run, length, lower_case):
    what, unit = ("words", "sentences") if run.script == SEQUENCE_LABELING else ("questions", "windows of a text")
    counts = [f"{result['total']:,} {what} of {split}" for split in SPLITS for result in [run.result(split)] if result]
    casing = "; casing and accents are removed" if lower_case else ""
    return [
        f"- Measured on {' and '.join(counts)}. The snapshot was selected on dev, so the F1 on dev is optimistic."
        if counts
        else "- Not measured.",
        f"- The {unit} had at most {length} tokens{casing}.",
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
        snapshot = Snapshot(folder)
        values = snapshot.task()
        text = card(run, folder, stored_task(snapshot), values.get("seq_length"), values.get("do_lower_case"))
        try:
            with replacing(path) as file:
                file.write(text.encode("utf-8", "replace"))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
        paths.append(path)
    return paths
