"""modeling/run/bucketing.py: the sizes and lengths of batches."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from modeling.bert.config import BertConfig
from modeling.engine import parallel
from modeling.engine.engine import Engine
from modeling.engine.lanes.plan import Lanes
from modeling.run import bucketing as graph_plan
from modeling.run.bucketing import Bucketing, EvaluationBatches, TrainingBatches, train_batch_size
from modeling.run.evaluation import evaluation_batch_size
from modeling.run.resources import Graph
from ofrecord_util.batches import training_needs
from ofrecord_util.errors import UserError
from ofrecord_util.records import Records

MINILM = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
FLAGS = {
    "batch_size_per_device": 4,
    "gradient_accumulation_steps": 1,
    "num_epochs": 63,
    "seed": 1,
    "dev_every_step_num": 100,
    "texts_per_row": 0,
}


def records(lengths, seq_length=128):
    mask = (np.arange(seq_length)[None] < np.asarray(lengths)[:, None]).astype(np.int32)
    column = np.zeros(len(lengths), np.int32)
    return Records(mask, mask, 0 * mask, column, column, np.arange(len(lengths), dtype=np.int32), column.astype(np.float32)).samples()


def plan(device="cpu", lanes=1, **flags):
    return Bucketing(SimpleNamespace(**dict(FLAGS, **flags)), MINILM, Engine(device, Lanes(lanes)))


@pytest.mark.parametrize(
    ("wanted", "length", "device", "ranks", "size"),
    [
        (2, 128, "cpu", 1, 6),
        (1, 40, "cpu", 1, 22),
        (48, 128, "cpu", 1, 6),
        (2, 512, "cpu", 1, 2),
        (2, 128, "cuda", 1, 2),
        (2, 128, "cpu", 2, 2),
    ],
)
def test_a_cpu_chooses_its_batches(monkeypatch, wanted, length, device, ranks, size):
    """As many tokens as the memory of the model's graphs allows, whatever the flag says."""
    monkeypatch.setattr(parallel, "size", lambda: ranks)
    assert evaluation_batch_size(wanted, length, Engine(device, Lanes(2)), MINILM) == size


SPLIT = records([9] * 40 + [64] * 16)


def test_a_split_that_is_evaluated_often_is_worth_another_graph():
    assert plan().evaluation(SPLIT, 2).lengths == (64,)
    often = plan()
    size = often.evaluation(SPLIT, 2, records([9] * 9600)).size
    assert often.graphs == [Graph(False, size, length) for length in (16, 64)]
    assert plan(dev_every_step_num=10**6).evaluation(SPLIT, 2, records([9] * 960)).lengths == (64,)


def test_more_lanes_make_graphs_dearer():
    often = [plan().evaluation(SPLIT, 2, records([9] * number)).lengths for number in (4, 9600)]
    assert often == [(64,), (16, 64)]
    assert plan(lanes=400).evaluation(SPLIT, 2, records([9] * 9600)).lengths == (64,)


def test_no_batch_is_larger_than_its_split():
    assert plan().evaluation(records([9, 9, 9]), 2).size == 3
    assert plan().evaluation(records([9]), 2).size == 1
    (shape,) = plan().evaluation(records([9, 9, 9]), 2, may_share=True).packed
    assert shape.number * shape.most >= 3
    assert shape.number <= 3


def test_a_teacher_has_few_graphs_for_all_splits():
    teacher = plan(lanes=2)
    batches = teacher.teacher([records([9] * 2400), SPLIT], 2, lambda length: 5 * length)
    assert batches.lengths == (16, 64)
    assert batches.size == evaluation_batch_size(2, 64, Engine("cpu", Lanes(2)), MINILM, 0.5) < plan(lanes=2).evaluation(SPLIT, 2).size
    assert teacher.graphs == [Graph(False, batches.size, length, True, 5 * length) for length in (16, 64)]


def test_splits_of_a_run_share_their_graphs():
    both = plan(lanes=2)
    batches = both.evaluations({"dev": records([9] * 40), "test": SPLIT}, {"dev": 2, "test": 3}, records([9] * 960))
    assert batches["dev"] == batches["test"]
    shapes = batches["dev"].packed
    assert both.graphs == [Graph(False, shape.number, shape.length) for shape in shapes]
    assert max(shape.length for shape in shapes) >= 64
    assert both.evaluations({}, {}) == {}
    for unable in (plan(device="cuda"), plan(pad_to_max_length=True)):
        assert not unable.evaluations({"dev": SPLIT}, {"dev": 2})["dev"].packed
        assert unable.evaluation(SPLIT, 2, may_share=True).size > 0


def test_one_length_where_it_is_asked_for():
    asked = plan(pad_to_max_length=True)
    assert asked.evaluation(SPLIT, 2) == EvaluationBatches(6, (128,))
    assert asked.training(SPLIT, 4, may_share=True) == TrainingBatches(1, (128,))
    assert graph_plan.train_batch_size(SimpleNamespace(batch_size_per_device=3, gradient_accumulation_steps=5)) == 15


UNLIKE = records([8] * 48 + [24] * 24 + [72] * 24)  # whose rows of their own are padding for the most part


def test_short_texts_share_rows_where_it_pays():
    shared = plan()
    chosen = shared.training(UNLIKE, 4, may_share=True)
    assert chosen.per_row == 4
    assert shared.graphs == [Graph(True, 1, length) for length in chosen.lengths]
    assert plan().training(records([72] * 96), 4, may_share=True).per_row == 1  # no padding to save, but attention over other texts
    assert plan().training(UNLIKE, 4).per_row == 1  # where the objective looks at single tokens
    for unable in (plan(device="cuda"), plan(texts_per_row=1), plan(pad_to_max_length=True)):
        assert unable.training(UNLIKE, 4, may_share=True).per_row == 1
    two = plan(lanes=2)
    chosen = two.training(UNLIKE, 4, may_share=True)  # a row for each lane at least
    assert chosen.per_row == 2
    assert two.graphs == [Graph(True, 2, length) for length in chosen.lengths]
    assert max(chosen.lengths) >= 80
    assert all(length % 8 == 0 for length in chosen.lengths)
    accumulated = plan(lanes=2, gradient_accumulation_steps=3)
    assert accumulated.training(UNLIKE, 12, may_share=True).per_row == 2
    assert {graph.rows for graph in accumulated.graphs} == {2}
    assert plan(lanes=4).training(UNLIKE, 4, may_share=True).per_row == 1


def test_the_choice_takes_fewest_seconds_by_estimate():
    """Against each number of texts by itself."""
    tokens = {}
    for per_row in (1, 2, 4):
        only = plan(texts_per_row=per_row).training(UNLIKE, 4, may_share=True)
        assert only.per_row == per_row
        needed = training_needs(UNLIKE, 4, 63, 1, per_row)
        tokens[per_row] = 4 // per_row * np.mean([min(length for length in only.lengths if length >= need) for need in needed])
    assert tokens[4] < tokens[2] < 0.8 * tokens[1]


def test_texts_per_row_as_asked_for():
    assert plan(texts_per_row=2, device="cuda").training(UNLIKE, 4, may_share=True).per_row == 2
    with pytest.raises(UserError, match="--texts_per_row 3: does not divide --batch_size_per_device 4"):
        plan(texts_per_row=3).training(UNLIKE, 4, may_share=True)
    holes = dataclasses.replace(UNLIKE, input_mask=UNLIKE.input_mask * (np.arange(128) != 3))
    assert plan().training(holes, 4, may_share=True).per_row == 1
    maximum = Bucketing(SimpleNamespace(**dict(FLAGS, texts_per_row=2)), dataclasses.replace(MINILM, pooling="max"), Engine())
    for unable, split in ((plan(texts_per_row=2), holes), (plan(texts_per_row=2, pad_to_max_length=True), UNLIKE), (maximum, UNLIKE)):
        with pytest.raises(UserError, match="--texts_per_row 2: not possible with"):
            unable.training(split, 4, may_share=True)


def test_epochs_without_an_end_are_refused():
    with pytest.raises(UserError, match=r"--num_epochs 9223372036854775807: .* give at most --num_epochs \d+$"):
        plan(num_epochs=2**63 - 1).training(UNLIKE, 4, may_share=True)
    most = 10**8 // len(UNLIKE)
    with pytest.raises(UserError, match=f"more than 100,000,000 samples; give at most --num_epochs {most}$"):
        plan(num_epochs=most + 1).training(UNLIKE, 48)
    with pytest.raises(UserError, match=f"more than 100,000,000 samples; give at most --num_epochs {10**7 // len(UNLIKE)}$"):
        plan(num_epochs=most + 1).training(UNLIKE, 1)  # the limit of steps is the lower one


def test_the_lengths_of_evaluations_need_no_number_for_each_evaluation():
    """The evaluations are planned before the training, which refuses such a run."""
    assert plan(num_epochs=2**63 - 1, dev_every_step_num=1).evaluation(SPLIT, 2, records([9] * 47)).lengths == (16, 64)


def test_samples_of_a_step(monkeypatch):
    flags = SimpleNamespace(batch_size_per_device=48, episodes_per_step=3, gradient_accumulation_steps=5)
    assert (train_batch_size(flags), train_batch_size(flags, "episodes_per_step")) == (240, 15)
    monkeypatch.setattr(parallel, "size", lambda: 7)
    flags.gradient_accumulation_steps = 3120
    assert train_batch_size(flags) == 48 * 3120 * 7
    flags.gradient_accumulation_steps = 3121
    start = "^--batch_size_per_device 48, --gradient_accumulation_steps 3121 on 7 devices: a step would have 1,048,656 samples"
    with pytest.raises(UserError, match=f"{start}, more than 1,048,576: give smaller numbers$"):
        train_batch_size(flags)
    monkeypatch.setattr(parallel, "size", lambda: 1)
    flags.gradient_accumulation_steps = 349_526
    said = "^--episodes_per_step 3, --gradient_accumulation_steps 349526: a step would have 1,048,578 episodes, more than 1,048,576"
    with pytest.raises(UserError, match=said):
        train_batch_size(flags, "episodes_per_step", "episodes")


def test_a_run_that_goes_on_keeps_its_rows():
    planned = TrainingBatches.from_list([2, [16, 88], 2])
    continued = plan()
    assert continued.training(UNLIKE, 4, True, planned) == planned == (2, (16, 88), 2)
    assert continued.graphs == [Graph(True, 1, 16), Graph(True, 1, 88)]


class Memory:
    """A `MemoryPlan` that needs one byte per token of the training graphs, and one per evaluation graph."""

    def __init__(self, limit):
        self.limit = limit

    def needed(self, graphs, parts):
        return sum(graph.rows * graph.length if graph.trains else 1 for graph in graphs)


def test_a_step_is_computed_in_as_many_parts_as_fit():
    """In more parts the fewer bytes there are. The rest of the layout stays: it decides the dropout masks and what shares a row."""
    lengths = records([24] * 90 + [72] * 6)
    free = plan().training(lengths, 12)
    assert free == plan().training(lengths, 12, memory=Memory(10**6)) == TrainingBatches(1, (24, 72), 1)
    for limit, parts in ((12 * 96, 1), (12 * 96 - 1, 2), (6 * 96 - 1, 3), (2 * 96 - 1, 12), (96, 12)):
        bucketing = plan()
        chosen = bucketing.training(lengths, 12, memory=Memory(limit))
        assert chosen == free._replace(parts=parts), (limit, chosen)
        assert Memory(limit).needed(bucketing.graphs, parts) <= limit
    shared = plan().training(UNLIKE, 4, may_share=True)
    assert plan().training(UNLIKE, 4, may_share=True, memory=Memory(sum(shared.lengths))).per_row == shared.per_row == 4
    for limit in (95, 72):  # the two lengths fit in no number of parts
        assert plan().training(lengths, 12, memory=Memory(limit)) == TrainingBatches(1, (72,), 12)
    assert plan().training(lengths, 12, memory=Memory(1)).parts == 12  # nothing fits: the least
    accumulated = plan(gradient_accumulation_steps=3).training(lengths, 12, memory=Memory(3 * 72))
    assert accumulated.parts == 6


def test_parts_are_for_one_process_on_a_cpu(monkeypatch):
    lengths = records([24] * 90 + [72] * 6)
    assert plan(device="cuda").training(lengths, 12, memory=Memory(72)).parts == 1
    monkeypatch.setattr(parallel, "size", lambda: 2)
    assert plan().training(lengths, 12, memory=Memory(72)).parts == 1


def test_a_part_has_whole_groups_of_texts():
    """Groups of three texts: twelve texts have four groups, so four parts at most."""
    lengths = records([9] * 40 + [64] * 16)
    assert plan().training(lengths, 12, memory=Memory(1)).parts == 12
    assert plan().training(lengths, 12, memory=Memory(1), together=3).parts == 4


def test_lengths_of_a_run_whose_texts_are_drawn_otherwise():
    """The texts of its steps decide, not those of epochs."""
    few, many = np.full(3000, 60), np.repeat([10, 60], [2800, 200])
    assert plan().training(SPLIT, 32, needed=few).lengths == (64,)
    assert plan().training(SPLIT, 32, needed=many).lengths == (16, 64)
