"""The one rule for where a step's samples come from, and what makes existing records stale.

With `--resave_ofrecord` the OFRecord files are written from the text, whole, the training split with the scores of
`weight.npy` where there are such. Without it the existing files are used, and must agree with text, vocabulary, length,
casing, task and scores.
"""

import contextlib
import os

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util import scores as score_files
from ofrecord_util.reader import Records, check_ranges, read_split
from ofrecord_util.schema import FEATURE_NAMES, split_flag
from ofrecord_util.tasks import Task
from ofrecord_util.text import find_text, read_text, text_warnings
from ofrecord_util.writer import write_split

_TYPE_VOCAB_SIZE = 2


def prepare_split(
    data_dir,
    split,
    task,
    tokenizer,
    seq_length,
    resave,
    prefix=None,
    part_num=1,
    example_num=None,
    log=print,
    use_scores=True,
    need_scores=True,
):
    """The records that a step uses of a split.

    Args:
        data_dir: folder of the data.
        split: "train", "dev" or "test".
        task: `Task`.
        tokenizer: `Tokenizer`; without `resave` it may be None, then vocabulary and casing are not compared.
        seq_length: tokens of a record.
        resave: write the records again from the text first.
        prefix: name of a part without its number; None means `SPLIT.of_record-`.
        part_num: number of parts.
        example_num: how many rows the user counts on, or None. The first ones are used where there are more, all where
            there are fewer.
        log: function of one line of text.
        use_scores: False in preprocess.py, which makes the scores: weight.npy is not looked at then.
        need_scores: False in steps that do not weight samples: scores that fit stay in the records, others do not stop the step.

    Returns:
        `Records` of the used samples only. In the training split `sample_weights` are the scores of weight.npy; without that
        file they are 1.0 and the log says so (a step that cannot do without asks `scores.load_scores` itself).

    Raises:
        UserError: text or records missing, at fault or stale; the vocabulary's casing; scores of other rows. Names the
            flag.
    """
    if example_num is not None and example_num < 1:
        raise UserError("{} {}: at least 1 is needed".format(split_flag(split, "example_num"), example_num))
    warning = None if tokenizer is None else tokenizer.check_casing()
    if warning:
        log("warning: " + warning)
    rows = None
    if resave:
        rows = _write_from_text(data_dir, split, task, tokenizer, seq_length, prefix, part_num, example_num, log, use_scores, need_scores)
    records = read_split(data_dir, split, prefix, part_num, None)
    if not resave:
        rows = _check_fresh(records, data_dir, split, task, tokenizer, seq_length, log)
    if rows is not None:
        for line in text_warnings(rows, task, None if split == "train" else _training_text(data_dir, task)):
            log("warning: " + line)
    check_ranges(records, None if tokenizer is None else tokenizer.vocab_size, _TYPE_VOCAB_SIZE, task)
    used = len(records) if example_num is None else min(example_num, len(records))
    if split == "train" and use_scores and need_scores:
        _check_weights(records, data_dir, used, log)
    if example_num is not None and example_num != len(records):
        flag = split_flag(split, "example_num")
        if used < len(records):
            log(f"{split}: {flag} {example_num}: the first {used} of {len(records)} rows are used")
        else:
            log(f"{split}: {flag} {example_num}, but there are {len(records)} rows: all are used")
    return records.select(slice(0, used))


def _training_text(data_dir, task):
    """The training split's `TextSplit`; None where there is none, or none of this task: its own step says what is wrong."""
    path = find_text(data_dir, "train", required=False)
    with contextlib.suppress(UserError):
        return None if path is None else read_text(path, task)


def store_scores(data_dir, records, scores, info=None, prefix=None, part_num=1, drawn=None):
    """Saves the scores of the training samples and writes the training records again with them (preprocess.py).

    Args:
        data_dir: folder of the data.
        records: `Records` of the K used samples, from `prepare_split(…, "train", …, use_scores=False)`.
        scores: float32 [K], in the order of `records`.
        info: dict kept in weight.json.
        prefix, part_num: as in `prepare_split`.
        drawn: `scores.EmbeddingMap` in the order of `records`, or None.

    Raises:
        UserError: the row numbers of the used records are not 0 to K - 1 (records of another program).
    """
    count = len(records)
    if not np.array_equal(np.sort(records.idxs), np.arange(count)):
        raise UserError(
            f"{records.path}: idxs of the {count} used records are not 0 to {count - 1}; write the records again with --resave_ofrecord"
        )
    by_row = np.empty(count, np.float32)
    by_row[records.idxs] = scores
    score_files.save_scores(data_dir, by_row, records.text_digest, info)
    if drawn is not None:
        order = np.argsort(records.idxs)
        by_row_drawn = drawn._replace(**{name: getattr(drawn, name)[order] for name in ("coordinates", "domain", "label")})
        score_files.save_map(data_dir, by_row_drawn, records.text_digest)
    everything = read_split(data_dir, "train", prefix, part_num)
    manifest = everything.manifest
    if manifest is None:  # what the records were made from is not known: None
        manifest = dict.fromkeys(("vocab_digest", "do_lower_case", "task", "truncated"), None)
        manifest["text_digest"] = everything.text_digest
    arrays = {name: getattr(everything, name) for name in FEATURE_NAMES}
    arrays["sample_weights"] = _weights_of(everything, by_row)
    write_split(data_dir, "train", prefix, part_num, arrays, manifest)


def _weights_of(records, scores):
    """float32 [N]: the score of each record's row, 1.0 for rows behind the last score (which are not used)."""
    weights = np.ones(len(records), np.float32)
    scored = records.idxs < len(scores)
    weights[scored] = scores[records.idxs[scored]]
    return weights


def _write_from_text(data_dir, split, task, tokenizer, seq_length, prefix, part_num, example_num, log, use_scores, need_scores):
    """Writes a split's records from its text; returns its `TextSplit`."""
    if tokenizer is None:
        raise UserError("--resave_ofrecord needs --vocab_file")
    rows = read_text(find_text(data_dir, split), task)
    count = len(rows)
    scores = None
    if split == "train" and use_scores:
        try:
            scores = score_files.load_scores(data_dir, rows.digest, count if example_num is None else min(example_num, count))
        except UserError:
            if need_scores:
                raise
    encoded = tokenizer.encode(rows.text_a, rows.text_b, seq_length)
    idxs = np.arange(count, dtype=np.int32)
    weights = np.ones(count, np.float32)
    if scores is not None:
        weights[: len(scores)] = scores[:count]
    arrays = {
        "input_ids": encoded.input_ids,
        "input_mask": encoded.input_mask,
        "segment_ids": encoded.segment_ids,
        "domain": rows.domain,
        "label": rows.label,
        "idxs": idxs,
        "sample_weights": weights,
    }
    manifest = {
        "text_file": os.path.relpath(rows.path, data_dir),
        "text_digest": rows.digest,
        "vocab_digest": tokenizer.digest,
        "do_lower_case": tokenizer.do_lower_case,
        "task": task.to_dict(),
        "pair": task.pair,
        "truncated": encoded.truncated,
    }
    write_split(data_dir, split, prefix, part_num, arrays, manifest)
    log(f"{split}: {count} rows of {rows.path} written as OFRecord, {encoded.truncated} truncated to {seq_length} tokens")
    return rows


def _check_fresh(records, data_dir, split, task, tokenizer, seq_length, log):
    """Raises a UserError that names everything in which existing records differ from what the step was asked for.

    Returns:
        the split's `TextSplit`, or None where there is no text or it need not be that of the records.
    """
    differences, rows = [], None
    if records.seq_length != seq_length:
        differences.append(f"their length is {records.seq_length} and --seq_length is {seq_length}")
    path = find_text(data_dir, split, required=False)
    manifest = records.manifest
    if manifest is None:
        log(f"{records.path}: no manifest, so text and vocabulary of these records cannot be checked")
        rows = None if path is None else read_text(path, task)
        if rows is not None and len(rows) != len(records):
            differences.append(f"they are {len(records)} and {path} has {len(rows)} rows")
    else:
        stored = manifest.get("task")
        if stored is not None:
            stored = Task.from_dict(stored)
            if not stored.same_ids(task):
                differences.append(
                    "their task is {} with domains {} and labels {}, not {} with {} and {}".format(
                        stored.name,
                        ",".join(stored.domains),
                        ",".join(stored.labels),
                        task.name,
                        ",".join(task.domains),
                        ",".join(task.labels),
                    )
                )
        if path is not None and not differences and not records.text_digest.startswith("records:"):
            rows = read_text(path, task)
            if rows.digest != records.text_digest:
                differences.append(f"{path} has changed since")
        if tokenizer is not None:
            if manifest.get("vocab_digest") not in (None, tokenizer.digest):
                differences.append(f"their vocabulary was not {tokenizer.vocab_file}")
            if manifest.get("do_lower_case") not in (None, tokenizer.do_lower_case):
                differences.append("they were made with --do_lower_case {}".format(str(manifest["do_lower_case"]).lower()))
    if differences:
        raise UserError(
            "{}: the records are stale: {}; write them again with --resave_ofrecord".format(records.path, "; ".join(differences))
        )
    return rows


def _check_weights(records, data_dir, used, log):
    """weight.npy is the truth: the records' weights must be its scores."""
    scores = score_files.load_scores(data_dir, records.text_digest, used)
    if scores is None:
        if (records.sample_weights == 1).all():
            log("train: no weight.npy (preprocess.py makes it), so every sample has weight 1.0")
        else:
            log("train: no weight.npy, the weights of the records are used as they are")
    elif not np.array_equal(records.sample_weights, _weights_of(records, scores)):
        raise UserError(
            f"{records.path}: the weights of the records are not the scores of weight.npy; write the records again with --resave_ofrecord"
        )


__all__ = ["Records", "prepare_split", "store_scores"]
