"""A folder with text, vocabulary and records, for the tests of `Dataset`."""

import os

import numpy as np
import ofrecord_samples as samples

from ofrecord_util.dataset import SCORES_MADE, Dataset

ROWS = [
    ("good book", "books", "1"),
    ("bad film, the books", "dvd", "0"),
    ("the good", "mr", "1"),
    ("a bad bad bad book", "books", "0"),
    ("film", "dvd", "1"),
]
SCORES = np.array([0.5, 0.25, 1.0, -0.5, 0.75], np.float32)


class Data:
    """A folder with text and vocabulary, and what a step would be given."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.tokenizer = samples.tokenizer(folder)
        self.lines = []
        for split in ("train", "dev", "test"):
            samples.text(folder, ROWS, split)

    def prepare(self, split="train", resave=False, **changes):
        where = {name: changes.pop(name) for name in ("prefix", "part_num", "example_num") if name in changes}
        return self.open(resave, **changes).records(split, **where)

    def open(self, resave=False, **changes):
        """The `Dataset` of a step; what it logs goes to `lines`."""
        arguments = {"task": samples.TASK, "tokenizer": self.tokenizer, "seq_length": 8, "log": self.lines.append}
        arguments.update(changes)
        self.lines.clear()
        return Dataset(self.folder, resave=resave, **arguments)

    def score(self, scores, resave=True, order=None, info=None, example_num=None, part_num=1):
        """What preprocess.py does: records, and scores of them."""
        step = self.open(resave, use_scores=SCORES_MADE)
        records = step.records("train", part_num=part_num, example_num=example_num)
        step.store_scores(records if order is None else records.select(order), scores if order is None else scores[order], info)

    def path(self, *names):
        return os.path.join(self.folder, "ofrecord", *names)
