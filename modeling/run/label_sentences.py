"""Sentences that say what a label means, as further training rows of metric learning (--label_sentences)."""

import dataclasses

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.label_sentences import read_label_sentences
from ofrecord_util.record_forms import RowForm
from ofrecord_util.schema import FEATURES
from ofrecord_util.summary import with_unknown


def check_label_sentences(flags) -> None:
    """Raises a UserError if --within_domain is given too: the sentences belong to no domain."""
    if flags.label_sentences and flags.within_domain:
        raise UserError("--label_sentences: its rows belong to no domain, but --within_domain compares rows of one: leave one flag out")


def find_label_sentences(context):
    """The `TextSplit` of the sentences, None without the flag. Call it before records are written.

    Raises:
        UserError: the task has pairs of texts, there is no vocabulary, the file is not valid, or its labels are numbers where those of the
            training text are words, or the other way round.
    """
    path, task = context.flags.label_sentences, context.task
    if not path:
        return None
    if task.pair:
        raise UserError("--label_sentences: a row of this task is a pair of texts, a sentence is one: leave the flag out")
    if context.tokenizer is None:
        raise UserError("--label_sentences needs --vocab_file, or a snapshot with its vocabulary")
    text, train = read_label_sentences(path, task), context.splits.text("train")
    if train is not None and train.by_position != text.by_position:
        # which number is which word is then a guess, and in senti 0 is positive
        styles = [f"{'numbers' if rows.by_position else 'words'} in {rows.path}" for rows in (text, train)]
        raise UserError(f"--label_sentences: the labels are {styles[0]}, but {styles[1]}: write both in the same way")
    return text


def with_label_sentences(context, records, text):
    """The training records, followed by those of the sentences. They are in memory only; the files of the split stay as they are.

    Args:
        context: `RunContext`; notes the digest of the sentences, which must be the same when the run continues.
        records: `Records` of the training split.
        text: of `find_label_sentences`.
    Returns:
        `Records`; `records` itself without sentences.
    """
    if text is None:
        return records
    task, path = context.task, text.path
    own, truncated = RowForm().encode(text, context.tokenizer, records.seq_length, task)
    counts = ", ".join(f"{name} {count}" for name, count in zip(task.labels, np.bincount(text.label, minlength=task.num_labels)))
    cut = f"; {truncated} cut at --seq_length {records.seq_length}" if truncated else ""
    before = counted(len(records), "row")
    line = f"--label_sentences {path}: {counted(len(text), 'row')} ({counts}), added to {before} of training text{cut}"
    context.log(with_unknown([line], *context.tokenizer.count_unknown(own.input_ids, own.input_mask)))
    context.splits.facts["train"]["label_sentences"] = {"file": path, "rows": len(text), "text_digest": text.digest}
    context.splits.digests["label sentences' digest"] = text.digest
    own = dataclasses.replace(own, idxs=own.idxs + np.int32(records.idxs.max() + 1))
    joined = {name: np.concatenate([getattr(records, name), getattr(own, name)]) for name in [*(one.name for one in FEATURES), "lengths"]}
    return dataclasses.replace(records, places=(), scored=False, **joined)
