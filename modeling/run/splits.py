"""The data splits of a run: selects the records and sample weights, and collects facts about them for flags.json."""

import dataclasses
import math
import os

import numpy as np

from modeling.cli.choices import DISK
from modeling.cli.flags import (
    DOMAIN_MIXING,
    FINETUNING,
    GENERATION,
    META_REPTILE,
    META_TEACHER_EVAL,
    METRIC_LEARNING,
    PREPROCESS,
    PRETRAIN_DISCRIMINATOR,
    PRETRAIN_MLM,
    PRETRAIN_PAIRS,
    SEQUENCE_LABELING,
    SPAN_ANSWERING,
    training_split,
)
from modeling.cli.scripts import META_KD, TOKEN_TRAINING, TRAINING
from modeling.engine import parallel
from modeling.objectives.prototypes import non_negative, score_statistics
from modeling.run.held_out import held_out_domains
from modeling.run.resume import records_digest
from ofrecord_util.batches import train_order
from ofrecord_util.dataset import SCORES_KEPT, SCORES_MADE, SCORES_NEEDED, Dataset
from ofrecord_util.errors import UserError
from ofrecord_util.scores import score_info
from ofrecord_util.tasks import HELD_OUT_KEY, held_out_phrase
from ofrecord_util.text_files import UNLABELLED
from ofrecord_util.writer import part_paths, split_folder

# These scripts need the held-out rows too: to write a score for each row, to adapt to a domain that no task of the training has, and to
# leave out the same sentences or questions of the text (modeling/run/token_training.py)
_KEEPS_HELD_OUT = (PREPROCESS, META_REPTILE, *TOKEN_TRAINING)

_USE_OF_SCORES = {
    PREPROCESS: SCORES_MADE,
    DOMAIN_MIXING: SCORES_KEPT,
    META_REPTILE: SCORES_KEPT,
    METRIC_LEARNING: SCORES_KEPT,
    PRETRAIN_MLM: SCORES_KEPT,
    PRETRAIN_DISCRIMINATOR: SCORES_KEPT,
    PRETRAIN_PAIRS: SCORES_KEPT,
    SEQUENCE_LABELING: SCORES_KEPT,
    SPAN_ANSWERING: SCORES_KEPT,
    FINETUNING: SCORES_KEPT,
    GENERATION: SCORES_KEPT,
    META_TEACHER_EVAL: SCORES_KEPT,
}  # all other scripts need scores


class Splits:
    """The splits that a script reads.

    Attributes:
        dataset: `Dataset` of the data folder.
        facts: dict of split -> facts for flags.json.
        digests: dict of name -> digest of a split's records, for `run_identity`.
        held_out: domains of --held_out_domains, a list of numbers.
        train_split: name of the split that the run trains on.

    Args:
        context: `RunContext`.
        text: `TextFolder` of the data folder.
        form: `RowForm` of its records, or None.
    """

    def __init__(self, context, text, form=None):
        flags = self._flags = context.flags
        self._task, self._log, self._text = context.task, context.log, text
        self.train_split = training_split(flags)
        resave = flags.resave_ofrecord and parallel.is_main()
        use_of_scores = _USE_OF_SCORES.get(flags.script, SCORES_NEEDED)
        if use_of_scores == SCORES_NEEDED and not flags.use_sample_weights:
            use_of_scores = SCORES_KEPT  # scores that do not fit are no obstacle to a run that ignores them
        teaches = "meta_teacher_eval.py" + (" --unlabelled" if self.train_split == UNLABELLED else "")
        self.dataset = Dataset(
            flags.data_dir,
            context.task,
            context.tokenizer,
            flags.seq_length,
            resave,
            context.log,
            use_of_scores,
            text,
            context.config.type_vocab_size,
            (teaches,) if getattr(flags, "teacher_outputs", None) == DISK else (),
            self.train_split,
            form,
        )
        self.facts, self.digests = {}, {}
        self.held_out = held_out_domains(flags, context.task)
        self._first = True  # whether no split has been read yet

    def records(self, split, name=None):
        """`Records` of a split. With --resave_ofrecord, or if there are none, they are first written from the text.

        Args:
            split: "train", "dev" or "test".
            name: name of the split in the flags ("eval" is dev in Meta-KD and test in finetuning.py); None means `split`.
        """
        return self._note(split, self._prepare(split, name or split))

    def training_records(self):
        """`Records` of the split that the run trains on."""
        return self.records(self.train_split, "train")

    def check_texts(self, splits):
        """Reads the text of the splits that have one, before records of the first are written: a fault in the last is then found in time.

        Raises:
            UserError: a text is invalid, or dev is among the splits and has neither text nor records.
        """
        for split in splits:
            if split == "dev":
                self.dataset.check_source(split, *self._files(split, "eval" if self._flags.script in META_KD else split))
            if self.has_text(split):
                self._text.read(split, self._task)

    def _files(self, split, name):
        """(prefix, number) of the files of records of a split, from the flags. The arguments are those of `records`."""
        prefix, part_num = (getattr(self._flags, f"{name}_{what}") for what in ("data_prefix", "data_part_num"))
        if split == UNLABELLED and "train_data_prefix" not in self._flags.given:
            prefix = None  # the default of the flag is that of the training split
        return prefix, part_num

    @property
    def text_ends(self):
        """Ends of the names of a split's text."""
        return self._text.ends

    def has_text(self, split):
        """Whether there is a text of a split."""
        return self._text.path(split) is not None

    def source(self, split):
        """Path of the text of a split, or of its records if there is no text, for messages."""
        return self._text.path(split) or split_folder(self._flags.data_dir, split)

    def text(self, split, needed=False):
        """The `TextSplit` of a split. If it is not `needed`, None where there is no text or it is invalid.

        Raises:
            UserError: a needed text is missing or invalid.
        """
        read = self._text.read if needed else self._text.read_valid
        return read(split, self._task)

    def must_write(self, split, name=None):
        """Whether `records` writes the records of a split: it has text, and --resave_ofrecord is given or there are no records.

        The arguments are those of `records`.
        """
        written = self._flags.resave_ofrecord or self.dataset.never_written(split, *self._files(split, name or split))
        return self.has_text(split) and written

    def test_records(self, name="test"):
        """`Records` of an optional test split, or None if there is neither text nor records. `name` is that of `records`."""
        flags = self._flags
        first = part_paths(flags.data_dir, "test", *self._files("test", name))[0]
        if not self.has_text("test") and (flags.resave_ofrecord or not os.path.exists(first)):
            self._log("no test split: there is no test.csv")
            return None
        return self.records("test", name)

    def weighted_records(self):
        """The training `Records` with the sample weights that --use_sample_weights selects: prototypical scores, or 1.

        Raises:
            UserError: scores are needed, but preprocess.py has not written them.
        """
        return self._note(self.train_split, self._weighted(self._prepare(self.train_split, "train")))

    def _prepare(self, split, name):
        if self._first and self.must_write(split, name) and self._flags.script in TRAINING:
            self.check_texts([self.train_split, "dev", *(["test"] if self._flags.do_eval is not False else [])])
        self._first = False
        with parallel.main_first():
            records = self.dataset.records(split, *self._files(split, name), getattr(self._flags, f"{name}_example_num"))
        return self._portion(self._without_held_out(records)) if split == self.train_split else records

    def _without_held_out(self, records):
        """The training samples that --held_out_domains leaves."""
        if not self.held_out or self._flags.script in _KEEPS_HELD_OUT:
            return records
        return records.select(self.trained_rows(records.domain))

    def trained_rows(self, domain):
        """The rows of the training split that --held_out_domains leaves, int64. The log says how many.

        Args:
            domain: int [N], of all rows.
        Raises:
            UserError: none are left.
        """
        kept = ~np.isin(domain, self.held_out)
        counts = [f"{self._task.domains[held_out]} {np.count_nonzero(domain == held_out)}" for held_out in self.held_out]
        left = f"{len(kept) - kept.sum()} samples are left out ({', '.join(counts)}), {kept.sum()} are used"
        self._log(f"{self.train_split}: --held_out_domains: {left}")
        if not kept.any():
            raise UserError(f"--held_out_domains {','.join(self._flags.held_out_domains)} leaves no training samples: name fewer domains")
        return np.flatnonzero(kept)

    def _portion(self, records):
        """The part of the training split that --data_portion selects: the first samples of epoch 0. They keep the split's order."""
        portion = getattr(self._flags, "data_portion", 1.0)
        if portion == 1:
            return records
        count = math.ceil(portion * len(records))
        if count == 0:
            raise UserError("--data_portion 0 leaves no training samples")
        self._log(f"{self.train_split}: --data_portion {portion}: {count} of {len(records)} samples are used")
        return records.select(np.sort(train_order(len(records), 0, self._flags.seed)[:count]))

    def _weighted(self, records):
        flags = self._flags
        if not flags.use_sample_weights:
            self._log("--use_sample_weights false: all sample weights are 1")
            return dataclasses.replace(records, sample_weights=np.ones(len(records), np.float32))
        if not records.scored:
            raise UserError(
                f"{flags.data_dir}: no prototypical scores (ofrecord/train/weight.npy): run preprocess.py first, "
                "or give --use_sample_weights false"
            )
        self._check_scores()
        records = dataclasses.replace(records, sample_weights=non_negative(records.sample_weights, self._log))
        if flags.normalize_sample_weights:
            mean = records.sample_weights.mean()
            if mean <= 0:
                raise UserError(f"--normalize_sample_weights: the mean of the scores is {mean:.4f}, which cannot be scaled to 1")
            records = dataclasses.replace(records, sample_weights=records.sample_weights / mean)
        for name, values in score_statistics(records.sample_weights, records.domain, self._task.domains).items():
            text = "weights of {}: {count} samples, mean {mean:.4f}, std {std:.4f}, min {min:.4f}, max {max:.4f}"
            self._log(text.format(name, **values))
        return records

    def _check_scores(self):
        """Raises a UserError if the scores were made with other held-out domains: prototypes would have used rows that this run must not
        see, or lack rows that it has."""
        stored, own = score_info(self._flags.data_dir).get(HELD_OUT_KEY, []), [self._task.domains[domain] for domain in self.held_out]
        if stored != own:
            made, needed = held_out_phrase(stored), held_out_phrase(own)
            raise UserError(
                f"{self._flags.data_dir}: --held_out_domains: the prototypical scores were made {made}, this run is {needed}: run "
                f"preprocess.py again {needed}"
            )

    def _note(self, split, records):
        """Stores facts about a split's records for flags.json and the run's identity. Returns the records."""
        manifest, task = records.manifest or {}, self._task
        if split == UNLABELLED:
            counts = np.bincount(records.domain, minlength=task.num_domains).reshape(-1, 1)
        else:
            counts = [task.kind.counts(records.label[records.domain == place], task.num_labels) for place in range(task.num_domains)]
        self.facts[split] = {
            "rows": len(records),
            "by_domain": {
                name: {UNLABELLED: int(row.sum())} if split == UNLABELLED else dict(zip(task.labels, row.tolist()))
                for name, row in zip(task.domains, counts)
            },
            "text_file": manifest.get("text_file"),
            "text_digest": records.text_digest,
            "truncated": manifest.get("truncated"),
        }
        self.digests["{} data's digest".format("training" if split == self.train_split else split)] = records_digest(records)
        return records
