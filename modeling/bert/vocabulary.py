"""The part of the vocabulary that a run's records hold: the only word embeddings that its graphs need.

Half of a small BERT is word embeddings, and few-shot text touches a few hundred of its 30,522 rows. The gradient of
every other row is zero in every step, so AdamW leaves it its weight decay and nothing else: rows shrink by (1 - lr_k *
decay) in step k, a factor known in closed form. The graphs therefore hold the rows in use, and a snapshot gets the
others back, decayed. The result is the same as training all rows (tests/modeling/bert/test_vocabulary.py), at a fraction of
the optimizer's time and memory.
"""

import numpy as np


class ActiveVocabulary:
    """Word pieces that occur in any of the given records.

    Args:
        records: iterable of `Records`; None entries are passed over.
    Attributes:
        ids: int [V'], the vocabulary ids in use, ascending.
    """

    def __init__(self, records):
        self.ids = np.unique(np.concatenate([np.unique(part.input_ids) for part in records if part is not None]))

    def samples(self, records):
        """The `Samples` of `Records`: their ids as rows of the word embeddings in use; None stays None.

        Raises:
            ValueError: an id that is not in use.
        """
        if records is None:
            return None
        rows = np.searchsorted(self.ids, records.input_ids).astype(np.int32)
        if rows.max(initial=0) >= len(self.ids) or not np.array_equal(self.ids[rows], records.input_ids):
            raise ValueError("records hold word pieces that the active vocabulary does not have")
        return records.samples(rows)
