"""What was read of a split, as lines for the log: source, rows by domain and label, lengths, unknown tokens, repeats, and examples."""

from typing import List, Optional

import numpy as np

from ofrecord_util.encoding import TextEncoder
from ofrecord_util.records import Records
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextSplit
from ofrecord_util.text_files import UNLABELLED
from ofrecord_util.text_warnings import Repeats

_UNKNOWN_SHARE = 0.05  # of the tokens of a split; above it, the vocabulary hardly fits the text
_FEW_TOKENS = 20  # the share of fewer tokens says little
_MOST_NAMES = 8  # domains or labels that a line lists
_EXAMPLE_TOKENS = 24


def describe_split(
    split: str,
    records: Records,
    task: Task,
    tokenizer: Optional[TextEncoder],
    text: Optional[TextSplit] = None,
    repeats: Optional[Repeats] = None,
    train: str = "train",
) -> List[str]:
    """The lines: one for the source, one for the rows, one for the tokens, and for the training split one for each of two examples.

    Args:
        split: "train", "dev", "test" or `UNLABELLED`.
        records: `Records` of the whole split.
        task: `Task`.
        tokenizer: `TextEncoder`; None leaves out the share of [UNK] and the examples.
        text: `TextSplit`, or None if it was not read.
        repeats: its `Repeats`.
        train: the split that the run trains on.
    """
    lines = [] if text is None else [f"{split}: {text.source}"]
    if split == UNLABELLED:
        counts = "without labels; " + _listed(task.domains, np.bincount(records.domain, minlength=task.num_domains))
    else:
        counts = _counts(records.domain, records.label, task)
    lines.append(f"{split}: {len(records)} rows; {counts}")
    lines.append(_tokens(split, records, tokenizer, repeats, train))
    if tokenizer is not None and split == train:
        lines += [_example(split, records, row, task, tokenizer) for row in _two_rows(records)]
    return lines


def _counts(domain: np.ndarray, label: np.ndarray, task: Task) -> str:
    """Rows by domain and label, those of many domains or labels apart from each other."""
    counts = [task.kind.counts(label[domain == place], task.num_labels) for place in range(task.num_domains)]
    about = task.kind.summary(label, task.labels)
    if about is not None:
        rows = _listed(task.domains, np.bincount(domain, minlength=task.num_domains))
        listed = f"; labels: {_listed(task.labels, np.sum(counts, axis=0))}" if task.num_labels > 1 else ""
        return f"domains: {rows}; {about}{listed}"
    table = np.array(counts)
    if max(table.shape) > _MOST_NAMES:
        return f"domains: {_listed(task.domains, table.sum(axis=1))}; labels: {_listed(task.labels, table.sum(axis=0))}"
    return "; ".join(
        f"{name} {row.sum()} ({_listed(task.labels, row)})" for name, row in zip(task.domains, table) if row.sum() or len(table) == 1
    )


def _listed(names: tuple, counts: np.ndarray) -> str:
    """The names with their counts, the most frequent ones of many."""
    shown = list(range(len(names)))
    if len(shown) > _MOST_NAMES:
        shown = np.argsort(-counts, kind="stable")[: _MOST_NAMES - 1].tolist()
    parts = [f"{names[position]}: {counts[position]}" for position in shown]
    if len(shown) < len(names):
        parts.append(f"{len(names) - len(shown)} others: {counts.sum() - counts[shown].sum()}")
    return ", ".join(parts)


def _tokens(split: str, records: Records, tokenizer: Optional[TextEncoder], repeats: Optional[Repeats], train: str) -> str:
    lengths = records.lengths
    median, high = (int(np.sort(lengths)[-(-len(lengths) * share // 100) - 1]) for share in (50, 95))
    parts = [f"{split}: texts of {int(lengths.min())} to {int(lengths.max())} tokens, median {median}, 95 % have at most {high}"]
    cut = (records.manifest or {}).get("truncated")
    if isinstance(cut, int):
        parts.append(f"{_share(cut, len(records))} cut at --seq_length {records.seq_length}")
    warn = False
    if tokenizer is not None:
        unknown, total = tokenizer.count_unknown(records.input_ids, records.input_mask)
        parts.append(f"{unknown} of {total} tokens are [UNK] ({_share(unknown, total)})")
        warn = unknown > _UNKNOWN_SHARE * total and total >= _FEW_TOKENS
    if repeats is not None:
        parts.append(f"{repeats.repeated} repeated texts")
        if repeats.shared is not None:
            parts.append(f"{repeats.shared} also in {train}")
    line = "; ".join(parts)
    if warn:
        line = f"warning: {line}: check --vocab_file and --do_lower_case, or take a model for the language of the text"
    return line


def _share(count: int, total: int) -> str:
    return f"{100 * count / max(total, 1):.1f} %"


def _two_rows(records: Records) -> List[int]:
    """Positions of the first row, and of the first one with another label, or of the second row."""
    others = np.flatnonzero((records.label != records.label[0]).reshape(len(records), -1).any(axis=1))
    return [0, *(others[:1].tolist() or list(range(1, len(records)))[:1])]


def _example(split: str, records: Records, row: int, task: Task, tokenizer: TextEncoder) -> str:
    length = int(records.lengths[row])
    tokens = [tokenizer.tokens[position] for position in records.input_ids[row, : min(length, _EXAMPLE_TOKENS)].tolist()]
    rest = f" … ({length} tokens)" if length > _EXAMPLE_TOKENS else ""
    label = [] if split == UNLABELLED else [task.kind.spell(records.label[row], task.labels) or "no label"]
    names = [task.domains[records.domain[row]], *label]
    return f"{split}: example ({', '.join(names)}): {' '.join(tokens)}{rest}"
