"""modeling/run/resources.py: the estimated memory against the graphs, the free memory, and runs that do not fit."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import KERNELS

from modeling.bert.config import BertConfig
from modeling.bert.dropout import DropoutPlan
from modeling.bert.variables import Variables, classifier_shapes, encoder_shapes
from modeling.engine.engine import Engine
from modeling.engine.global_function import GlobalFunction
from modeling.engine.lanes.plan import Lanes
from modeling.objectives.mft import finetuning_objective
from modeling.run import resources
from modeling.run.optimizer import Schedule, create_optimizer
from modeling.run.resources import Graph, MemoryPlan, Model, available_memory, check_memory, memory_limit, plan_memory, settings_that_fit
from ofrecord_util.errors import UserError

ROWS, LENGTH = 4, 64
SMALL = BertConfig(vocab_size=50, hidden_size=96, num_hidden_layers=6, num_attention_heads=4, intermediate_size=384)


def graph_floats(lanes):
    """Number of output values of all operations in a train graph, without its variables and inputs."""
    shapes = {**encoder_shapes(SMALL), **classifier_shapes(SMALL, 2)}
    variables = Variables({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    arrays = {name: np.ones((ROWS, LENGTH), np.int32) for name in ("word_rows", "input_mask", "segment_ids")}
    plan, engine = DropoutPlan(SMALL, 1, "cpu"), Engine("cpu", Lanes(lanes, short=True))
    optimizer, rates = create_optimizer(variables, Schedule(1e-3, 20, 2))

    def step(variables, **batch):
        return finetuning_objective(variables, SMALL, KERNELS["cpu"], plan.take(batch), **batch)

    job = GlobalFunction(step, "train", variables, optimizer, rates, engine)
    arrays.update(label=np.zeros(ROWS, np.int32), loss_mask=np.ones(ROWS, np.float32), **plan.masks(0, ROWS, LENGTH))
    job(arrays)[0].numpy()
    (graph,) = job._graphs.values()
    kinds = {operation.name: operation.WhichOneof("op_type") for operation in graph._full_graph_proto.net.op}
    blobs = graph._full_graph_proto.helper.lbn2logical_blob_desc
    return sum(math.prod(blobs[name].shape.dim) for name in blobs if kinds.get(name.rsplit("/", 1)[0]) == "user_conf")


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [1, 2])
def test_the_estimate_counts_the_outputs_of_a_train_graphs_operations(lanes):
    """That of predict graphs was fitted to processes of models of real sizes (benchmarks/bench_memory.py)."""
    shapes = {**encoder_shapes(SMALL), **classifier_shapes(SMALL, 2)}
    parameters = sum(math.prod(shape) for shape in shapes.values())
    plan = MemoryPlan(Model(SMALL, parameters, parameters), Lanes(lanes), math.inf)
    estimated = plan.needed([Graph(True, ROWS, LENGTH)]) - plan.needed([])
    estimated -= lanes * SMALL.num_hidden_layers * resources._TRAIN_OPERATIONS * resources._OPERATION_BYTES
    estimated -= 4 * DropoutPlan(SMALL, 0, "cpu").kept_numbers(ROWS, LENGTH)
    assert estimated / 4 == pytest.approx(graph_floats(lanes), rel=0.12)


BASE = BertConfig()
PARAMETERS = 110_000_000


def plan(limit, **changes):
    return MemoryPlan(Model(BASE, PARAMETERS, **dict({"trained": PARAMETERS}, **changes)), Lanes(2), limit)


def test_what_the_estimate_depends_on():
    graph = [Graph(True, 4, 128)]
    whole = plan(math.inf).needed(graph)
    assert plan(math.inf).needed(graph * 2) > whole + 2e9  # each length has memory of its own
    assert plan(math.inf).needed(graph, parts=2) == whole + 8 * PARAMETERS + resources._PARTS_BYTES  # the sums of gradients
    assert plan(math.inf).needed([Graph(True, 2, 128)]) < whole - 1e9
    assert plan(math.inf).needed([Graph(False, 4, 128)]) < 0.6 * whole
    half = plan(math.inf, trained=PARAMETERS // 2, frozen_layers=6).needed(graph)
    assert half < whole - 1e9
    student = Model(BASE, PARAMETERS, PARAMETERS)
    alone = MemoryPlan(student, Lanes(2), math.inf, (Model(BASE, PARAMETERS),))
    online = MemoryPlan(student, Lanes(2), math.inf, (Model(BASE, PARAMETERS, in_train_graph=True),))
    assert alone.needed(graph) == MemoryPlan(student, Lanes(2), math.inf).needed(graph) + 4 * PARAMETERS
    assert online.needed(graph) > alone.needed(graph) + 0.9e9
    predicts = [MemoryPlan(Model(BASE, parameters), Lanes(2), math.inf).needed([Graph(False, 4, 128)]) for parameters in (0, PARAMETERS)]
    assert predicts[1] == predicts[0] + 6 * PARAMETERS  # the variables, and what reads them


def test_a_batch_of_one_text_uses_one_lane():
    one, two = (MemoryPlan(Model(BASE, PARAMETERS, PARAMETERS), Lanes(count), math.inf) for count in (1, 2))
    assert one.needed([Graph(True, 1, 128)]) == two.needed([Graph(True, 1, 128)])
    gradients = two.needed([Graph(True, 2, 128)]) - one.needed([Graph(True, 2, 128)])
    assert gradients == pytest.approx(4 * PARAMETERS + 12 * resources._TRAIN_OPERATIONS * resources._OPERATION_BYTES)


def test_each_use_of_the_word_embeddings_has_a_gradient():
    once, more = (MemoryPlan(Model(BASE, PARAMETERS, PARAMETERS, word_uses=uses), Lanes(2), math.inf) for uses in (1, 3))
    words = BASE.vocab_size * BASE.hidden_size
    assert more.needed([Graph(True, 4, 128)]) - once.needed([Graph(True, 4, 128)]) == pytest.approx(4 * 2 * 4 * words)  # two lanes
    assert more.needed([Graph(False, 4, 128)]) == once.needed([Graph(False, 4, 128)])


def test_a_generator_has_a_backward_pass():
    graph, small = [Graph(True, 4, 128)], dataclasses.replace(BASE, hidden_size=192, num_attention_heads=3, intermediate_size=768)
    student = Model(BASE, PARAMETERS, PARAMETERS)
    without, forward, trained = (
        MemoryPlan(student, Lanes(2), math.inf, others).needed(graph)
        for others in ((), (Model(small, 0, in_train_graph=True),), (Model(small, 0, 1, in_train_graph=True),))
    )
    alone = MemoryPlan(Model(small, 0, 1), Lanes(2), math.inf).needed(graph) - MemoryPlan(Model(small, 0, 1), Lanes(2), math.inf).needed([])
    assert without < forward < trained
    assert 0.8 * alone < trained - without < alone  # its masks are counted elsewhere


def test_a_teacher_needs_memory_too():
    """Of its own graphs, of all its tokens, of what it returns, and of what the student is compared with."""
    nothing = plan(math.inf).needed([])
    graph = Graph(False, 2, 128)
    alone = plan(math.inf).needed([graph]) - nothing
    held = MemoryPlan(Model(BASE, PARAMETERS, PARAMETERS), Lanes(2), math.inf, (Model(BASE, 0, graphs=(graph,)),))
    assert held.needed([]) == nothing + alone
    whole = plan(math.inf).needed([graph._replace(all_tokens=True)]) - nothing
    assert 1.05 * alone < whole < 1.1 * alone  # 12 layers instead of 11
    returned = plan(math.inf).needed([graph._replace(all_tokens=True, returned=1000)]) - nothing
    assert returned == whole + 3 * 4 * 1000 * 2 * 128
    compared = MemoryPlan(Model(BASE, PARAMETERS, PARAMETERS), Lanes(2), math.inf, compared=lambda length: 10 * length)
    step = [Graph(True, 2, 128)]
    for parts in (2, 12):
        more = compared.needed(step, parts) - plan(math.inf).needed(step, parts)
        assert more == pytest.approx(4 * 10 * 128 * 2 * 128 * (11 + 3 * parts))


def test_a_run_that_does_not_fit_is_refused_with_settings_that_do():
    graphs = [Graph(False, 4, 128)]
    for limit in (4e9, 3e9):
        fitting = settings_that_fit(plan(limit), graphs, 128)
        assert "--freeze_layers" in fitting
        layers = int(fitting.rsplit(" ", 1)[1])
        least = [*graphs, Graph(True, 1, 128)]
        assert plan(limit).freezing(layers).needed(least, 2) <= limit < plan(limit).freezing(layers - 1).needed(least, 2)
    length = int(settings_that_fit(plan(5.3e9), graphs, 512).split("--seq_length ")[1].split()[0])
    assert plan(5.3e9).needed([Graph(False, 4, min(128, length)), Graph(True, 1, length)], 2) <= 5.3e9
    whole = settings_that_fit(plan(5.3e9), graphs, 512, rows=12)  # a part of a step that must not have fewer texts
    assert int(whole.split("--seq_length ")[1].split()[0]) < length
    assert settings_that_fit(plan(1e9), graphs, 128) == "free some memory, or give a smaller model"
    check_memory(4e9, 4e9, "")
    with pytest.raises(UserError, match=r"^the run needs about 5.0 GB of memory, but may use only 4.0 GB: give less; --memory_limit GB"):
        check_memory(5e9, 4e9, "give less")
    with pytest.raises(UserError, match=r"only 4.0 GB: a higher --memory_limit$"):
        check_memory(5e9, 4e9, "a higher --memory_limit")


def test_free_memory(monkeypatch):
    files = {"/proc/meminfo": ["MemTotal: 9 kB\n", "MemAvailable:    8000000 kB\n"], "/proc/self/status": ["VmRSS:\t 1000000 kB\n"]}
    monkeypatch.setattr(resources, "_lines", lambda path: files.get(path, []))
    assert available_memory() == 8000000 * 1024
    assert memory_limit(None) == pytest.approx(0.9 * 9000000 * 1024)
    assert memory_limit(2.5) == 2.5e9
    group = "/sys/fs/cgroup/"
    files.update({group + "memory.max": ["max\n"], group + "memory.current": ["5\n"]})
    assert available_memory() == 8000000 * 1024
    files.update({group + "memory.max": ["4000000000\n"], group + "memory.current": ["3000000000\n"]})
    files[group + "memory.stat"] = ["anon 1\n", "inactive_file 500000000\n"]
    assert available_memory() == 1500000000
    del files[group + "memory.max"]
    files[group + "memory/memory.limit_in_bytes"] = ["9223372036854771712\n"]
    files[group + "memory/memory.usage_in_bytes"] = ["1\n"]
    assert available_memory() == 8000000 * 1024
    files[group + "memory/memory.limit_in_bytes"] = ["2000\n"]
    assert available_memory() == 1999
    files.clear()
    assert available_memory() is None
    assert memory_limit(None) == math.inf


def test_the_memory_of_a_gpu_is_not_planned():
    assert plan_memory(SimpleNamespace(engine=Engine("cuda")), None) is None


def test_a_large_tokenizer_needs_memory():
    """The library takes 0.37 GB for XLM-R's 250,002 tokens; a WordPiece vocabulary is far smaller."""

    def needed(**more):
        return MemoryPlan(Model(BertConfig(vocab_size=250_002, **more), 1000), Lanes(1), 1e12).needed([])

    assert needed(model_type="xlm-roberta") - needed() == pytest.approx(0.375e9, rel=0.01)
