"""Where the samples of a step come from, and when existing records are stale.

With `--resave_ofrecord`, and where there are none, the OFRecord files are written from the text: the whole split, the training split
with the scores of `weight.npy` where there are any. Otherwise the existing files are read,
and must agree with text, vocabulary, length, casing, task and scores. Each text file, each file of records and weight.npy is read at
most once, and records are not read back after they are written.
"""

import dataclasses
import os
from typing import Any, Callable, Optional, Sequence, Set, Tuple

import numpy as np

from ofrecord_util import scores as score_files
from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say
from ofrecord_util.label_kinds import CLASSIFICATION
from ofrecord_util.reader import check_ranges, read_split
from ofrecord_util.record_forms import RowForm
from ofrecord_util.records import Records
from ofrecord_util.schema import FEATURE_NAMES, split_flag
from ofrecord_util.summary import describe_split
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextFolder, TextSplit
from ofrecord_util.text_files import find_text
from ofrecord_util.text_warnings import count_repeats, text_warnings
from ofrecord_util.writer import MANIFEST, part_paths, plan_parts, split_folder, write_split

# What a step does with the prototypical scores of the training split:
SCORES_NEEDED = "needed"  # it weights samples: scores of another text stop it
SCORES_KEPT = "kept"  # it does not: scores that fit stay in the records, others are left out
SCORES_MADE = "made"  # it makes them (preprocess.py): weight.npy is not read, the training records are written by `store_scores`


class Dataset:
    """The splits of a data folder as a step uses them.

    Args:
        data_dir: folder of the data.
        task: `Task`.
        tokenizer: `TextEncoder`. Without `resave` it may be None: then vocabulary and casing are not compared.
        seq_length: tokens of a record.
        resave: write the records from the text.
        log: function of one line of text.
        use_scores: `SCORES_NEEDED`, `SCORES_KEPT` or `SCORES_MADE`.
        text: `TextFolder` of `data_dir` that may have read text before; None makes one.
        type_vocab_size: rows of the model's table of token types.
        made_from: scripts whose output for the training records the step needs too, for the message about stale records.
        train_split: the split that the step trains on, "train" or `UNLABELLED`.
        form: how rows become records; None for the one of texts with a domain and a label.

    Attributes:
        scores: float32 [K], the scores of weight.npy that the training records hold; None before they are read, and without them.
    """

    def __init__(
        self,
        data_dir: str,
        task: Task,
        tokenizer: Optional[TextEncoder],
        seq_length: int,
        resave: bool = False,
        log: Callable[[str], Any] = say,
        use_scores: str = SCORES_NEEDED,
        text: Optional[TextFolder] = None,
        type_vocab_size: int = 2,
        made_from: Sequence[str] = (),
        train_split: str = "train",
        form: Optional[RowForm] = None,
    ) -> None:
        self._type_vocab_size, self._made_from, self._train_split = type_vocab_size, made_from, train_split
        self.data_dir, self.task, self.tokenizer, self.seq_length = data_dir, task, tokenizer, seq_length
        self.resave, self.log, self.use_scores = resave, log, use_scores
        self.scores: Optional[np.ndarray] = None
        self._text, self._form = text or TextFolder(data_dir), form or RowForm()
        self._encoded: Set[str] = set()  # splits whose records were made from the text
        self._unscored: Optional[Tuple[Records, Optional[str], int]] = (
            None  # (all training `Records`, prefix, part_num) that `store_scores` is to write
        )

    def records(self, split: str, prefix: Optional[str] = None, part_num: int = 1, example_num: Optional[int] = None) -> Records:
        """The `Records` that the step uses of a split.

        Args:
            split: "train", "dev", "test" or `UNLABELLED`.
            prefix: name of a part without its number; None means `SPLIT.of_record-`.
            part_num: number of parts.
            example_num: number of rows that the user expects, or None. The first ones are used where there are more, all where there
                are fewer.

        Returns:
            `Records` of the used samples. In the training split `sample_weights` are the scores of weight.npy, and `scored` is True.
            Without that file they are those of the records, and `scored` is False.

        Raises:
            UserError: text or records that are missing, invalid or stale; a cased vocabulary; scores of other rows. Names the flag.
        """
        if example_num is not None and example_num < 1:
            raise UserError("{} {}: at least 1 is needed".format(split_flag(split, "example_num"), example_num))
        warning = None if self.tokenizer is None else self.tokenizer.check_casing()
        if warning:
            self.log("warning: " + warning)
        rows: Optional[TextSplit]
        writes = self.resave or self.never_written(split, prefix, part_num)
        self.check_source(split, prefix, part_num)
        if writes:
            rows, records = self._encode(split, example_num)
            if split == "train" and self.use_scores == SCORES_MADE:
                plan_parts(self.data_dir, split, prefix, part_num, len(records))  # a fault in the flags shows before the work
            else:
                records = self._write(split, records, prefix, part_num)
        else:
            records = read_split(self.data_dir, split, prefix, part_num)
            rows = self._check_fresh(records, split)
        check_ranges(records, None if self.tokenizer is None else self.tokenizer.vocab_size, self._type_vocab_size, self.task)
        if self._form.in_log:
            self._describe(split, records, rows)
        row_of = self._form.rows(records)
        count = int(row_of[-1]) + 1
        used = len(records) if example_num is None else int(np.searchsorted(row_of, example_num))
        if split == "train" and self.use_scores == SCORES_NEEDED:
            records = self._check_weights(records, used, writes)
        if split == "train" and self.use_scores == SCORES_MADE:
            self._unscored = records, prefix, part_num
        if example_num is not None and example_num != count:
            flag = split_flag(split, "example_num")
            if example_num < count:
                self.log(f"{split}: {flag} {example_num}: the first {example_num} of {count} rows are used")
            else:
                self.log(f"{split}: {count} rows, fewer than {flag} {example_num}: all are used")
        return records.select(slice(0, used))

    def check_source(self, split: str, prefix: Optional[str] = None, part_num: int = 1) -> None:
        """Raises a UserError if a split has neither text nor, without `resave`, records. The arguments are those of `records`."""
        there = not self.resave and self._are_there(split, prefix, part_num)
        if not there:
            also = "" if self.resave else f"there are no records in {split_folder(self.data_dir, split)} either; "
            find_text(self.data_dir, split, also, self._text.ends)

    def never_written(self, split: str, prefix: Optional[str] = None, part_num: int = 1) -> bool:
        """Whether a split has text and neither records nor a manifest. Such records are written without `resave`.

        The arguments are those of `records`.
        """
        if self.tokenizer is None or self._are_there(split, prefix, part_num):
            return False
        return self._text.path(split) is not None

    def _are_there(self, split: str, prefix: Optional[str], part_num: int) -> bool:
        """Whether a split has a manifest or a part of its records."""
        manifest = os.path.join(split_folder(self.data_dir, split), MANIFEST)
        return any(map(os.path.exists, [manifest, *part_paths(self.data_dir, split, prefix, part_num)]))

    def _describe(self, split: str, records: Records, rows: Optional[TextSplit]) -> None:
        """Logs what was read of a split, and what is odd about its text."""
        train = None if split == self._train_split or rows is None else self._training_text()
        repeats = None if rows is None else count_repeats(rows, train)
        for line in describe_split(split, records, self.task, self.tokenizer, rows, repeats, self._train_split):
            self.log(line)
        for line in [] if rows is None else text_warnings(rows, self.task, train, repeats, split == self._train_split):
            self.log("warning: " + line)

    def text(self, split: str, digest: str) -> Optional[TextSplit]:
        """The `TextSplit` of a split where its digest is `digest`; None where there is no valid text or another one."""
        return self._text.matching(split, self.task, digest)

    def _training_text(self) -> Optional[TextSplit]:
        """The training `TextSplit`; None where there is none or it is invalid: the step that trains on it reports that."""
        return self._text.read_valid(self._train_split, self.task)

    def store_scores(
        self, records: Records, scores: np.ndarray, info: Optional[dict] = None, embedding_map: Optional[score_files.EmbeddingMap] = None
    ) -> None:
        """Saves the scores of the training samples, then writes the training records with them (preprocess.py).

        A process that dies in between leaves records whose weights are not the scores of weight.npy: the next step reports that.

        Args:
            records: `Records` of the K used samples that `records("train")` returned.
            scores: float32 [K], in the order of `records`.
            info: dict for weight.json.
            embedding_map: `scores.EmbeddingMap` in the order of `records`, or None.

        Raises:
            UserError: the row numbers of the used records are not 0 to K - 1 (records of another program).
        """
        count = len(records)
        if not np.array_equal(np.sort(records.idxs), np.arange(count)):
            raise UserError(
                f"{records.path}: idxs of the {count} used records are not 0 to {count - 1}; write the records again with --resave_ofrecord"
            )
        if self._unscored is None:
            raise ValueError('records("train") of a step that makes scores comes first')
        everything, prefix, part_num = self._unscored
        by_row = np.empty(count, np.float32)
        by_row[records.idxs] = scores
        score_files.save_scores(self.data_dir, by_row, records.text_digest, info)
        if embedding_map is not None:
            order = np.argsort(records.idxs)
            ordered = {name: getattr(embedding_map, name)[order] for name in ("coordinates", "domain", "label")}
            score_files.save_map(self.data_dir, embedding_map._replace(**ordered), records.text_digest)
        self._write("train", dataclasses.replace(everything, sample_weights=_weights_of(everything, by_row)), prefix, part_num)

    def _encode(self, split: str, example_num: Optional[int]) -> Tuple[TextSplit, Records]:
        """A split's `TextSplit`, and its `Records` as they are to be written."""
        if self.tokenizer is None:
            raise UserError("--resave_ofrecord needs --vocab_file")
        rows = self._text.read(split, self.task)
        self._encoded.add(split)
        count = len(rows)
        if split == "train" and self.use_scores != SCORES_MADE:
            self._load_scores(rows.digest, count if example_num is None else min(example_num, count))
        encoded, truncated = self._form.encode(rows, self.tokenizer, self.seq_length, self.task)
        records = dataclasses.replace(
            encoded,
            manifest={
                "text_file": os.path.relpath(rows.path, self.data_dir),
                "text_digest": rows.digest,
                **({} if rows.columns is None else {"text_columns": rows.columns}),
                "vocab_digest": self.tokenizer.digest,
                "do_lower_case": self.tokenizer.do_lower_case,
                "task": self.task.to_dict(),
                "pair": self.task.pair,
                "truncated": truncated,
                **({} if self._form.name is None else {"form": self._form.name}),
                **self._form.settings,
            },
            path=split_folder(self.data_dir, split),
        )
        if split == "train" and self.scores is not None:
            records = dataclasses.replace(records, sample_weights=_weights_of(records, self.scores), scored=True)
        return rows, records

    def _write(self, split: str, records: Records, prefix: Optional[str], part_num: int) -> Records:
        """Writes a split's records; returns them with the manifest as it was written."""
        manifest = records.manifest
        if manifest is None:  # records of another program: nothing is known of what they were made from
            manifest = dict.fromkeys(("vocab_digest", "do_lower_case", "task", "truncated"), None)
            manifest["text_digest"] = records.text_digest
        arrays = {**{name: getattr(records, name) for name in FEATURE_NAMES}, **records.targets}
        written = write_split(self.data_dir, split, prefix, part_num, arrays, manifest)
        if split in self._encoded:
            source = os.path.join(self.data_dir, manifest["text_file"])
            self.log(f"{split}: {self._form.written(records, source, manifest['truncated'])}")
        return dataclasses.replace(records, manifest=written)

    def _load_scores(self, digest: str, count: int) -> None:
        """Reads weight.npy, once. With `SCORES_KEPT` scores that do not fit are left out."""
        try:
            self.scores = score_files.load_scores(self.data_dir, digest, count)
        except UserError as error:
            if self.use_scores == SCORES_NEEDED:
                raise UserError(f"{error}{_then(self._made_from)}") from error

    def _remedy(self, split: str, other_text: bool) -> str:
        """What makes stale records fresh, complete: scores and other outputs for stale training records are stale too.

        Args:
            split: of the records.
            other_text: whether the scores are stale too, because they belong to a text.
        """
        scripts = list(self._made_from)
        if other_text and self.use_scores == SCORES_NEEDED:
            scripts.insert(0, "preprocess.py")
        if split != self._train_split or not scripts:
            return "write them again with --resave_ofrecord"
        first, *others = scripts
        return f"run {first} again with --resave_ofrecord{_then(others)}"

    def _check_fresh(self, records: Records, split: str) -> Optional[TextSplit]:
        """Raises a UserError that names everything in which existing records differ from what the step needs.

        Returns:
            the split's `TextSplit`, or None where there is no text or it need not be that of the records.
        """
        rows, task, tokenizer, other_text = None, self.task, self.tokenizer, False
        same_form, differences = self._form.differences(records.manifest or {})
        if not same_form:  # so nothing else of them is what the step needs
            raise UserError(f"{records.path}: the records are stale: {differences[0]}; {self._remedy(split, True)}")
        if records.seq_length != self.seq_length:
            differences.append(f"their length is {records.seq_length} and --seq_length is {self.seq_length}")
        path = self._text.path(split)
        manifest = records.manifest
        if manifest is None:
            self.log(f"{records.path}: no manifest, so text and vocabulary of these records cannot be checked")
            if task.task_type != CLASSIFICATION:
                differences.append(f"they have no manifest, so their labels are classes, but --task_type is {task.task_type}")
                other_text = True
            rows = None if path is None else self._text.read(split, task)
            if rows is not None and len(rows) != len(records):
                differences.append(f"they are {len(records)} and {path} has {len(rows)} rows")
                other_text = True
        else:
            stored = manifest.get("task")
            if stored is not None:
                stored = Task.from_dict(stored)
                if not stored.same_ids(task):
                    other_text = True
                    kinds = f" of a {stored.task_type}", f" of a {task.task_type}"
                    differences.append(
                        "their task is {} with domains {} and labels {}{}, not {} with {} and {}{}".format(
                            stored.name,
                            ",".join(stored.domains),
                            ",".join(stored.labels),
                            kinds[0] if stored.task_type != task.task_type else "",
                            task.name,
                            ",".join(task.domains),
                            ",".join(task.labels),
                            kinds[1] if stored.task_type != task.task_type else "",
                        )
                    )
            if path is not None and not other_text and not records.text_digest.startswith("records:"):
                rows = self._text.read(split, task)
                if rows.digest != records.text_digest:
                    other_text = True
                    differences.append(f"{path} has changed since{_other_columns(manifest.get('text_columns'), rows.columns)}")
            if tokenizer is not None:
                if manifest.get("vocab_digest") not in (None, tokenizer.digest):
                    differences.append(f"their vocabulary was not {tokenizer.vocab_file}, or the settings of its tokenizer differ")
                if manifest.get("do_lower_case") not in (None, tokenizer.do_lower_case):
                    differences.append("they were written with --do_lower_case {}".format(str(manifest["do_lower_case"]).lower()))
        if differences:
            remedy = self._remedy(split, other_text)
            raise UserError("{}: the records are stale: {}; {}".format(records.path, "; ".join(differences), remedy))
        return rows

    def _check_weights(self, records: Records, used: int, written: bool) -> Records:
        """The training `Records`, marked as scored where there are scores: weight.npy is the truth, so the weights must be its scores.
        `written`: whether they were written from the text, with the scores."""
        if not written:
            self._load_scores(records.text_digest, used)
        if self.scores is None:  # the step reports it
            return records
        if not np.array_equal(records.sample_weights, _weights_of(records, self.scores)):
            raise UserError(
                f"{records.path}: the weights of the records are not the scores of weight.npy; "
                "write the records again with --resave_ofrecord"
            )
        return dataclasses.replace(records, scored=True)


def _then(scripts: Sequence[str]) -> str:
    """What is to be run after the first script, as the end of a message."""
    return "".join(f", then {script}" for script in (*scripts, "this command"))


def _other_columns(before: Any, now: Optional[dict]) -> str:
    """What differs between the kinds and columns of two texts, for a message; "" if they are the same."""
    if before == now:
        return ""
    described = ["text, domain, label" if columns is None else str(columns) for columns in (before, now)]
    return f", or its columns were {described[0]} and are {described[1]} now (--text_format, --text_column, …)"


def _weights_of(records: Records, scores: np.ndarray) -> np.ndarray:
    """float32 [N]: the score of each record's row, 1.0 for rows after the last score (which are not used)."""
    weights = np.ones(len(records), np.float32)
    scored = records.idxs < len(scores)
    weights[scored] = scores[records.idxs[scored]]
    return weights
