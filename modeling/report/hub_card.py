"""The model card of an export, `README.md`, in the form of the Hugging Face hub: metadata in YAML, then Markdown.

The names of tasks, labels, domains and models are text of users and files, so all of them are escaped (ofrecord_util/escaping.py).
"""

import re

from modeling.report.card import kind_of_model, result_lines, what_it_predicts
from modeling.report.settings import model_text
from modeling.run.measures import PEARSON, shown_of
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import for_markdown, for_python, for_yaml, markdown_block
from ofrecord_util.label_kinds import CLASSIFICATION, MULTI_LABEL, REGRESSION

# transformers' pipeline gives the labels of a set with their probabilities if it is asked for all of them; the sigmoid of a regression's
# number would be wrong
_PIPELINE = {CLASSIFICATION: "", REGRESSION: ', function_to_apply="none"', MULTI_LABEL: ", top_k=None"}
TAGS, ANSWERS = "token-classification", "question-answering"  # names of the hub's tasks
_KINDS = {TAGS: "A BERT that tags words.", ANSWERS: "A BERT that finds the answer to a question in a text."}
_USES = {
    TAGS: "It gives each word of a sentence a tag. The tag of a word is that of its first token.",
    ANSWERS: "It finds the words of a text that answer a question.",
}
UNKNOWN_LICENSE = "unknown"
TAG = "oneflow"  # in the metadata of each card
_GIVEN = {CLASSIFICATION: "one of the labels", REGRESSION: "a number,", MULTI_LABEL: "any of the labels"}
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}\Z")


def check_license(identifier):
    """Raises a UserError if a text does not have the form of the hub's identifiers of licences, such as apache-2.0."""
    if not _LICENSE.match(identifier):
        raise UserError(f"--license {identifier!r:.60}: give an identifier of the hub in lower case, such as apache-2.0, mit or other")


def hub_card(name, task, config, length, lower_case, run=None, snapshot="", license=UNKNOWN_LICENSE, head=None):
    """The card as text.

    Args:
        name: of the exported model.
        task: its `Task`, or None for an encoder without a classifier.
        config: dict of its sizes, with the names of `BertConfig`.
        length: tokens of its longest text.
        lower_case: whether its words are lower-cased.
        run: `RunFacts` of the run that trained it, or None. Its results go into the card.
        snapshot: name of the snapshot's folder in this run.
        license: identifier of the hub.
        head: TAGS or ANSWERS of a model without a classifier that tags words or finds answers.
    Raises:
        UserError: the identifier of the licence does not have the form of one.
    """
    check_license(license)
    results = [] if run is None or task is None else result_lines(run, snapshot)
    lines = ["---", *_metadata(name, task, license, _reported(run, snapshot) if results else None, head), "---", ""]
    lines += [f"# {for_markdown(name)}", "", _KINDS[head] if head else _kind(run, task)]
    if task is not None:
        lines += ["", f"- domains: {for_markdown(', '.join(task.domains))}", f"- labels: {for_markdown(', '.join(task.labels))}"]
        lines += [f"- a sample is {'a pair of texts' if task.pair else 'one text'} of at most {length} tokens"]
    lines += [f"- size: {model_text(config)}"]
    lines += ["", "## Intended use", "", *([_USES[head]] if head else _intended_use(task))]
    lines += ["", "## Results by domain", "", *(results or ["No results are known: the model was not exported from the folder of a run."])]
    lines += ["", "## Use", "", *markdown_block(_program(name, task, head), "python")]
    lines += ["", "## Limits", "", *_limits(task, length, lower_case), "", "## Licence", "", _licence(license)]
    return "\n".join(lines) + "\n"


def _kind(run, task):
    if task is None:
        return "The encoder of a BERT, without a classifier."
    unknown = "A BERT that classifies " + ("pairs of texts" if task.pair else "texts")
    return kind_of_model(run.script if run else "", task, unknown) + "."


def _reported(run, snapshot):
    """(name of the split, row of metrics.jsonl) of the results for the metadata: those on test where there are some."""
    best = run.best(snapshot)
    for split in ("test", "dev") if best is run.best() else ("dev",):
        result = best if split == "dev" else run.result(split)
        if result is not None:
            return split, result
    return None


def _metadata(name, task, license, reported, head=None):
    """Lines of YAML."""
    lines = [f"license: {for_yaml(license)}", "library_name: transformers"]
    lines += [f"pipeline_tag: {head or ('text-classification' if task else 'feature-extraction')}", "tags:", "- bert", f"- {TAG}"]
    if not reported:
        return lines
    split, result = reported
    lines += ["model-index:", f"- name: {for_yaml(name)}", "  results:"]
    domains = result.get("by_domain") or {"all": result}
    for domain, values in domains.items():
        lines += ["  - task:", "      type: text-classification", "    dataset:"]
        lines += [
            f"      name: {for_yaml(task.name if domain == task.name else f'{task.name}, {domain}')}",
            "      type: text",
            f"      split: {split}",
            "    metrics:",
        ]
        share = shown_of(result).share
        # the hub's names of measures
        lines += [f"    - type: {'pearsonr' if share == PEARSON else share}", f"      value: {values[share]:.4f}"]
    return lines


def _intended_use(task):
    if task is None:
        return ["Fine-tuning on texts of a task. The model itself predicts no labels."]
    labels, domains = (for_markdown(", ".join(names)) for names in (task.labels, task.domains))
    what = "pairs of texts" if task.pair else "texts"
    return [
        f"It gives {_GIVEN[task.task_type]} {labels} to {what} of these domains: {domains}.",
        "It is not intended for decisions about people without a person who checks them.",
    ]


def _program(name, task, head=None):
    if head:
        call = {TAGS: 'model("a text")', ANSWERS: 'model(question="a question", context="a text")'}[head]
        return ["from transformers import pipeline", "", f'model = pipeline("{head}", model={for_python(name)})', f"print({call})"]
    if task is None:
        return ["from transformers import AutoModel, AutoTokenizer", "", f"tokenizer = AutoTokenizer.from_pretrained({for_python(name)})",
                f"model = AutoModel.from_pretrained({for_python(name)})", 'states = model(**tokenizer("a text", truncation=True, '
                'return_tensors="pt")).last_hidden_state']  # fmt: skip
    texts = '[{"text": "a text", "text_pair": "its partner"}]' if task.pair else '["a text", "another text"]'
    return [
        "from transformers import pipeline",
        "",
        f'classify = pipeline("text-classification", model={for_python(name)}, truncation=True{_PIPELINE[task.task_type]})',
        f"print(classify({texts}))",
    ]


def _limits(task, length, lower_case):
    lines = [
        f"- Longer texts are truncated to {length} tokens. transformers needs `truncation=True` for that. Without it a longer text gets "
        "another result, or an error.",
        "- The model inherits the biases of the pretrained encoder and of the training texts.",
    ]
    if task is not None:
        lines.insert(0, f"- It predicts {what_it_predicts(task)} for any text. It was not measured on texts of other domains.")
        if task.pair and (length - 3) % 2:
            lines.append(
                "- Where both texts of a pair are too long, and the first is not the longer one, transformers keeps one token less of the "
                "first text and one more of the second than training did."
            )
    if lower_case:
        lines.append("- Casing and accents are removed.")
    return lines


def _licence(license):
    if license == UNKNOWN_LICENSE:
        return (
            "Not stated. The licences of the pretrained encoder and of the training texts decide. `--license` of "
            "`tools/convert_checkpoint.py` states it."
        )
    return f"{for_markdown(license)}, as stated by who exported the model."
