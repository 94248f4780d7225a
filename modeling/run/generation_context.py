"""The environment of a run that generates text: sources and targets in place of labels, and a PALM in place of a BERT."""

import os

from modeling.cli.choices import PRETRAINING
from modeling.engine import parallel
from modeling.palm.config import PalmConfig
from modeling.run.context import RunContext
from modeling.run.model_size import resolve_config
from ofrecord_util.errors import UserError
from ofrecord_util.target_records import PAIRS, TEXTS, Lengths, TargetData
from ofrecord_util.tasks import Task
from ofrecord_util.text_columns import TextOptions

FORMS = {PRETRAINING: TEXTS}  # of a value of --objective; PAIRS for the others


class GenerationContext(RunContext):
    """A `RunContext` whose `config` is a `PalmConfig`, and whose task has no labels.

    Attributes:
        pretrains: whether --objective is pretraining.
    Raises:
        UserError: as `RunContext`; or the snapshot is not a PALM.
    """

    def __init__(self, flags, load_dir, trains=True):
        self.pretrains = flags.objective == PRETRAINING
        super().__init__(flags, load_dir, trains)
        for flag in ("seq_length", "target_length"):
            length, most = getattr(flags, flag), self.config.max_position_embeddings
            if length > most:
                raise UserError(f"--{flag} {length}: the model has {most} positions")
        options = TextOptions.from_flags(vars(flags))
        lengths = Lengths(flags.seq_length, flags.target_length)
        form = FORMS.get(flags.objective, PAIRS)
        self._data = TargetData(flags.data_dir, self.tokenizer, lengths, form, options, flags.resave_ofrecord, self.log)
        self.freezing = self.freezing._replace(pooler=True)

    def _find_task(self, text):  # noqa: ARG002  no name is read from the text
        name = self.flags.task_name.strip().lower()
        return Task(name, (name,), (), pair=not self.pretrains)

    def _find_config(self):
        advice = "recipes/generation.py starts from a PALM (tools/convert_checkpoint.py), or without --model_load_dir from initial values"
        try:
            return resolve_config(self.flags, self.snapshot, PalmConfig, ("dec_hidden_layers",))
        except UserError as error:
            raise UserError(f"{error}; {advice}" if self.snapshot is not None and "model_type" in str(error) else str(error)) from error

    def _auto_settings(self, text):
        """The rule is for classifiers; the flag has no effect."""

    def split(self, split, name=None):
        """The `TargetSplit` of a split; its facts and its digest become those of the run.

        Args:
            split: "train", "dev" or "test".
            name: name of the split in the flags ("eval" for test); None means `split`.
        """
        flags, name = self.flags, name or split
        prefix, part_num, count = (getattr(flags, f"{name}_{what}") for what in ("data_prefix", "data_part_num", "example_num"))
        with parallel.main_first():
            found = self._data.split(split, prefix, part_num, parallel.is_main()).first(count or None)
        self.splits.facts[split] = {key: value for key, value in found.facts.items() if key != "unknown"}
        self.splits.digests[f"{split} data's digest"] = found.digest
        return found

    def test_split(self):
        """The `TargetSplit` of test, or None if there is none."""
        if not self._data.exists("test"):
            self.log(f"no test split: there is no {os.path.join(self.flags.data_dir, 'test.csv')}")
            return None
        return self.split("test", "eval")
