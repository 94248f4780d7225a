"""modeling/bert/vocabulary.py and the reduced embedding table: the same training as with the whole table."""

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, NO_DROPOUT, documented, golden_batch

from modeling.bert.names import WORD_EMBEDDINGS
from modeling.bert.variables import Variables
from modeling.bert.vocabulary import ActiveVocabulary
from modeling.checkpoints.snapshot import Snapshot, write_variables
from modeling.engine.global_function import global_function
from modeling.objectives.mft import finetuning_objective
from modeling.run.optimizer import Schedule, create_optimizer
from ofrecord_util.records import Records


def records(input_ids):
    ids = np.asarray(input_ids, np.int32)
    ones, column = np.ones_like(ids), np.zeros(len(ids), np.int32)
    return Records(ids, ones, 0 * ones, column, column, column, column.astype(np.float32))


def test_ids_of_all_splits_are_in_use():
    train, dev = records([[5, 9, 0], [9, 2, 0]]), records([[98, 5, 0]])
    vocabulary = ActiveVocabulary([train, None, dev])
    assert vocabulary.ids.tolist() == [0, 2, 5, 9, 98]
    for part in (train, dev):
        rows = vocabulary.samples(part)
        np.testing.assert_array_equal(vocabulary.ids[rows.word_rows], part.input_ids)
        assert rows.word_rows.dtype == np.int32
    assert vocabulary.samples(None) is None
    for unknown in (3, 99):
        with pytest.raises(ValueError, match="active vocabulary"):
            vocabulary.samples(records([[5, unknown]]))


def trained(active):
    """Variables after five steps of AdamW with a strong decay, the schedule and the decay."""
    batch = dict(golden_batch(), label=np.array([2, 0, 1], np.int32), loss_mask=np.ones(3, np.float32))
    ids = None
    if active:
        vocabulary = ActiveVocabulary([records(batch["word_rows"])])
        ids, batch["word_rows"] = vocabulary.ids, vocabulary.samples(records(batch["word_rows"])).word_rows
    variables = Variables(documented("weight"), active_ids=ids)
    schedule, decay = Schedule(0.02, 7, 2), 0.3
    optimizer, rates = create_optimizer(variables, schedule, decay)

    @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates)
    def job(variables, word_rows, input_mask, segment_ids, label, loss_mask):
        return finetuning_objective(variables, NO_DROPOUT, KERNELS["cpu"], None, word_rows, input_mask, segment_ids, label, loss_mask)

    for _ in range(5):
        job(batch)[0].numpy()
    return variables, schedule.decay_factor(5, decay)


@pytest.mark.slow
def test_training_the_rows_in_use_is_training_all_rows(tmp_path):
    whole, _ = trained(active=False)
    some, decay = trained(active=True)
    assert some.get(WORD_EMBEDDINGS).shape[0] < CONFIG.vocab_size
    assert some.count() == whole.count()
    expected, arrays = whole.arrays(), some.arrays(decay)
    start = documented("weight")[WORD_EMBEDDINGS]
    unused = np.setdiff1d(np.arange(CONFIG.vocab_size), golden_batch()["word_rows"])
    assert np.abs(expected[WORD_EMBEDDINGS][unused] - start[unused]).max() > 1e-3  # decay is there to be missed
    for name in expected:
        # key biases have no gradient but rounding, which AdamW blows up to a step of its own
        if not name.endswith("key-bias"):
            np.testing.assert_allclose(arrays[name], expected[name], atol=2e-5, err_msg=name)
    np.testing.assert_allclose(arrays[WORD_EMBEDDINGS][unused], expected[WORD_EMBEDDINGS][unused], atol=1e-6)

    write_variables(str(tmp_path / "s"), documented("weight"))
    some.load(Snapshot(str(tmp_path / "s")))
    for name, value in documented("weight").items():
        np.testing.assert_array_equal(some.arrays()[name], value)
