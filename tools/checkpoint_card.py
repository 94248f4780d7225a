"""The model card of a Hugging Face folder, with the results of the run that trained the model."""

import os

from modeling.report.card import CARD_FILE
from modeling.report.facts import read_results
from modeling.report.hub_card import ANSWERS, TAG, TAGS, hub_card
from modeling.run.metrics import METRICS_FILE
from ofrecord_util.errors import UserError
from ofrecord_util.reading import read_text
from ofrecord_util.tasks import Task
from tools import checkpoint_names

__all__ = ["CARD_FILE", "card", "is_own_card"]
_HEADS = {"ForTokenClassification": TAGS, "ForQuestionAnswering": ANSWERS}


def card(name, checkpoint):
    """The text of README.md, and a list of notes for the user.

    Args:
        name: of the exported model.
        checkpoint: `Checkpoint`. If its source lies in the folder of a run, the card has the results of this run.
    """
    run, notes, snapshot = None, [], ""
    if checkpoint.source is not None:
        folder, snapshot = os.path.split(os.path.realpath(checkpoint.source))
        if os.path.isfile(os.path.join(folder, METRICS_FILE)):
            try:
                run = read_results(folder)
            except UserError as error:
                notes.append(f"the card has no results: {error}")
    task = Task.from_dict(checkpoint.task) if checkpoint.task is not None and checkpoint.num_labels else None
    sizes = checkpoint.config.as_dict()
    head = _HEADS.get(checkpoint_names.head_of(checkpoint.variables)[1])
    text = hub_card(name, task, sizes, checkpoint.max_length, checkpoint.settings.lowers, run, snapshot, checkpoint.license, head)
    return text, notes


def is_own_card(path):
    """Whether the file `path` is a card of this project. A card of the user must not be lost."""
    text = read_text(path, "remove the file, or choose another --output_dir")
    return text.startswith("---\n") and f"\n- {TAG}\n" in text
