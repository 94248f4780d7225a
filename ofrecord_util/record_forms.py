"""How the rows of a text become records, and what the log says of them; `Dataset` writes the records, reads them and finds stale ones.

A script whose records hold more than a text, a domain and a label has a subclass of `RowForm`.
"""

from typing import Any, Dict, Optional, Tuple

import numpy as np

from ofrecord_util.encoding import TextEncoder
from ofrecord_util.records import Records
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextSplit


class RowForm:
    """A record for each row: `[CLS] a [SEP]`, of pairs `[CLS] a [SEP] b [SEP]`.

    Attributes:
        name: of the form in a manifest; None for this one.
        settings: dict of flag, without dashes -> value, on which the records depend besides text, length, tokenizer and task.
        in_log: whether `Dataset` describes the rows of a split in the log.
    """

    name: Optional[str] = None
    in_log = True

    def __init__(self, **settings: Any) -> None:
        self.settings: Dict[str, Any] = settings

    def encode(self, text: TextSplit, tokenizer: TextEncoder, seq_length: int, task: Task) -> Tuple[Records, int]:  # noqa: ARG002
        """The records of a split, whose weights are 1.

        Args:
            text: `TextSplit` of all N rows, or the subclass that the form is made from.
            tokenizer: `TextEncoder`.
            seq_length: S, tokens of a record.
            task: `Task`.

        Returns:
            (`Records`, what the manifest has as `truncated`).

        Raises:
            UserError: S is too short.
        """
        encoded = tokenizer.encode(text.text_a, text.text_b, seq_length)
        return plain_records(text, encoded.input_ids, encoded.input_mask, encoded.segment_ids), encoded.truncated

    def rows(self, records: Records) -> np.ndarray:
        """The number of the row of text, from 0, of each record of a whole split: int [N], ascending."""
        return np.arange(len(records))

    def written(self, records: Records, source: str, truncated: int) -> str:
        """What the log says of records that were written.

        Args:
            records: `Records` of a whole split.
            source: path of the text.
            truncated: of `encode`.
        """
        return f"{len(records)} rows of {source} written as OFRecord, {truncated} truncated to {records.seq_length} tokens"

    def differences(self, manifest: dict) -> Tuple[bool, list]:
        """What makes existing records stale.

        Args:
            manifest: of the records.

        Returns:
            (whether the records are of this form, list of str: the differences).
        """
        stored = manifest.get("form")
        if stored != self.name:
            names = [name or "rows with a label" for name in (stored, self.name)]
            return False, [f"they are records of {names[0]!s:.40}, not of {names[1]}"]
        found = {name: str(manifest.get(name)).lower() for name in self.settings if manifest.get(name) != self.settings[name]}
        return True, [f"they were written with --{name} {value:.40}" for name, value in found.items()]


def plain_records(
    text: TextSplit,
    input_ids: np.ndarray,
    input_mask: np.ndarray,
    segment_ids: np.ndarray,
    rows: Optional[np.ndarray] = None,
    targets: Optional[Dict[str, np.ndarray]] = None,
) -> Records:
    """`Records` of token arrays [N, S] with the domains and labels of a text.

    Args:
        text: `TextSplit`.
        input_ids, input_mask, segment_ids: int32 [N, S].
        rows: int [N], the row of text of each record; None for one record per row.
        targets: of the records.
    """
    return Records(
        input_ids=input_ids,
        input_mask=input_mask,
        segment_ids=segment_ids,
        domain=text.domain if rows is None else text.domain[rows],
        label=text.label if rows is None else text.label[rows],
        idxs=np.arange(len(input_ids), dtype=np.int32),
        sample_weights=np.ones(len(input_ids), np.float32),
        path=text.path,
        text_digest=text.digest,
        targets=targets or {},
    )
