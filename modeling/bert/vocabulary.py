"""The word pieces that occur in a run's records. The graphs hold the word embeddings of these pieces only.

Half of the parameters of a small BERT are word embeddings, and few-shot texts use a few hundred of its 30,522 rows. The gradient of all
other rows is zero in every step, so AdamW only applies weight decay to them: step k multiplies them by 1 - lr_k * decay. So the graphs
hold only the rows in use, and a snapshot gets the other rows with the product of these factors. The result equals training all rows
(tests/modeling/bert/test_vocabulary.py) and takes a fraction of the optimizer's time and memory.
"""

import numpy as np


class ActiveVocabulary:
    """The word pieces that occur in some records.

    Args:
        records: iterable of `Records`; None is skipped.
    Attributes:
        ids: int [V'], the vocabulary ids in use, in ascending order.
    """

    def __init__(self, records):
        self.ids = np.unique(np.concatenate([np.unique(part.input_ids) for part in records if part is not None]))

    def samples(self, records):
        """The `Samples` of `Records`, with ids replaced by rows of the word embeddings in use.

        Args:
            records: `Records`, or None, for which it returns None.

        Raises:
            ValueError: an id is not in use.
        """
        if records is None:
            return None
        rows = np.searchsorted(self.ids, records.input_ids).astype(np.int32)
        if rows.max(initial=0) >= len(self.ids) or not np.array_equal(self.ids[rows], records.input_ids):
            raise ValueError("the records contain word pieces that are not in the active vocabulary")
        return records.samples(rows)
