"""modeling/engine/lanes/plan.py: a batch in lanes is the batch in one piece, and each lane's operations are on a stream of their own."""

import collections
import functools

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, NO_DROPOUT, documented, golden_batch

from modeling.bert.config import BertConfig
from modeling.bert.dropout import DropoutPlan
from modeling.bert.fused_parameters import VECTORS, fuse
from modeling.bert.variables import Variables
from modeling.engine import blas, parallel
from modeling.engine import engine as engine_module
from modeling.engine import global_function as global_function_module
from modeling.engine.engine import Engine, plan_engine
from modeling.engine.global_function import global_function
from modeling.engine.lanes import build
from modeling.engine.lanes.plan import Lanes, plan_lanes
from modeling.engine.runtime import flow
from modeling.objectives.mft import FINETUNING_METRICS, finetuning_objective, predict_logits
from modeling.run.optimizer import Schedule, create_optimizer

LABELS = {"label": np.array([2, 0, 1], np.int32), "loss_mask": np.array([1.5, 0.0, 1.5], np.float32)}


def engine(count):
    """An engine of that many lanes."""
    return Engine("cpu", Lanes(count, short=True))


BASE, MINILM = BertConfig(), BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)


@pytest.mark.parametrize(
    ("config", "cores", "batch_size", "length", "wanted", "count", "threads"),
    [
        (BASE, 1, 32, 128, 0, 1, (1, False)),
        (BASE, 2, 32, 128, 0, 2, (1, False)),
        (BASE, 2, 1, 512, 0, 1, (2, False)),
        (BASE, 3, 2, 128, 0, 2, (1, False)),
        (BASE, 16, 32, 128, 0, 4, (4, False)),
        (BASE, 16, 3, 128, 0, 3, (5, False)),
        (BASE, 16, 32, 128, 8, 8, (2, False)),
        (BASE, 4, 32, 128, 1, 1, (4, False)),
        (BASE, 2, 2, 5, 0, 1, (2, True)),
        (BASE, 2, 2, 5, 8, 2, (1, True)),
        (MINILM, 2, 4, 128, 0, 2, (1, False)),
        (MINILM, 2, 2, 32, 0, 1, (2, True)),
        (CONFIG, 2, 32, 512, 0, 1, (2, True)),
    ],
)
def test_the_lanes_share_the_cores(monkeypatch, config, cores, batch_size, length, wanted, count, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    monkeypatch.setattr(blas, "loaded", None)
    planned = plan_engine("cpu", config.dense_weights, batch_size, length, wanted)
    assert (planned.lanes.count, (planned.gemm_threads, planned.lanes.short)) == (count, threads)


def test_cards_and_several_processes_need_no_lanes(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert plan_lanes(BASE.dense_weights, 32, 128, "cpu").count == 4
    assert plan_lanes(BASE.dense_weights, 32, 128, "cuda", 4).count == 1
    monkeypatch.setattr(parallel, "size", lambda: 2)
    assert plan_lanes(BASE.dense_weights, 32, 128, "cpu", 4).count == 1


def test_a_short_batch_stays_in_one_piece(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    planned = plan_lanes(MINILM.dense_weights, 4, 128, "cpu")
    for batch_size, length, parts in ((4, 128, 2), (4, 32, 2), (2, 32, 1), (1, 128, 1)):
        batch = {"word_rows": np.zeros((batch_size, length), np.int32)}
        assert len(planned.cut(batch)["word_rows"]) == parts, (batch_size, length)
        assert planned.known_as_long(batch_size, length) == (batch_size * length >= 128), (batch_size, length)


def test_a_lane_alone_knows_long_batches(monkeypatch):
    """Also one per process: OneFlow's scheduler thread then takes the core of the other process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone, wanted = plan_lanes(MINILM.dense_weights, 4, 128, "cpu"), plan_lanes(MINILM.dense_weights, 4, 128, "cpu", 1)
    monkeypatch.setattr(parallel, "size", lambda: 2)
    for planned in (alone, wanted, plan_lanes(MINILM.dense_weights, 4, 128, "cpu")):
        assert planned.count == 1
        assert planned.known_as_long(4, 128)
        assert not planned.known_as_long(1, 16)
    assert not Lanes(2).known_as_long(4, 128)  # nothing is known of its graphs


def test_a_batch_is_cut_by_samples_and_not_copied():
    ids, masks = np.arange(10).reshape(5, 2), np.arange(60).reshape(20, 3)
    parts = Lanes(3).cut({"ids": ids, "masks": masks})
    assert [part.tolist() for part in parts["ids"]] == [ids[:1].tolist(), ids[1:3].tolist(), ids[3:].tolist()]
    assert [len(part) for part in parts["masks"]] == [4, 8, 8]
    for name, whole in (("ids", ids), ("masks", masks)):
        assert np.array_equal(np.concatenate(parts[name]), whole)
        assert all(np.shares_memory(part, whole) for part in parts[name])
    assert [len(part) for part in Lanes(3).cut({"ids": ids[:2]})["ids"]] == [1, 1]  # fewer samples than lanes


def training(count, config, peak=1e-3):
    """(variables, train function, its dropout) of a tiny BERT in that many lanes."""
    variables, plan = Variables(documented("weight")), DropoutPlan(config, 7, "cpu")
    optimizer, rates = create_optimizer(variables, Schedule(peak, 20, 2))

    @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates, engine=engine(count))
    def job(variables, **features):
        return finetuning_objective(variables, config, KERNELS["cpu"], plan.take(features), **features)

    return variables, job, plan


@functools.lru_cache(maxsize=None)
def trained(count, config, steps=5):
    """(metrics [steps, 2], values, moments, graph) of a tiny BERT trained in that many lanes."""
    variables, job, plan = training(count, config)
    batch, metrics = dict(golden_batch(), **LABELS), []
    for step in range(steps):
        inputs = dict(batch, **plan.masks(step, *batch["word_rows"].shape))
        loss, values = job(inputs)
        metrics.append(values.numpy())
        assert values.shape == (len(FINETUNING_METRICS),)
        assert float(loss.numpy()) == metrics[-1][0]
    (graph,) = job._graphs.values()
    return np.array(metrics), variables.arrays(), job.optimizer_state(), graph


@pytest.mark.slow
@pytest.mark.parametrize("config", [NO_DROPOUT, CONFIG], ids=["without dropout", "with dropout"])
@pytest.mark.parametrize("count", [2, 3])
def test_training_in_lanes_is_training_in_one_piece(count, config):
    """Lanes of unlike size, one of them with a sample of loss_mask 0; each sample meets the same dropout masks."""
    metrics, values, state, _ = trained(1, config)
    others, same, moments, _ = trained(count, config)
    assert config.hidden_dropout_prob or metrics[0, 0] - metrics[-1, 0] > 0.1
    np.testing.assert_allclose(others, metrics, rtol=0, atol=2e-5)
    assert set(same) == set(values)
    assert set(moments) == set(state)
    for name, value in values.items():
        np.testing.assert_allclose(same[name], value, rtol=0, atol=1e-4, err_msg=name)
        if f"{name}-m" in state and state[f"{name}-m"].ndim:
            np.testing.assert_allclose(moments[f"{name}-m"], state[f"{name}-m"], rtol=0, atol=1e-5, err_msg=name)
    assert max(np.abs(values[name] - start).max() for name, start in documented("weight").items()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "calls"), [([2, 2], 1), ([1, 1, 1], 1), ([1, 2], 2)])
def test_lanes_of_one_shape_are_traced_once(rows, calls):
    """What of the loss no input reaches counts once, as in one piece; outputs are means of the batch. The gradients of `w` come
    of GEMMs, those of `b` do not, and that of `alone` not from the batch."""
    x = np.random.default_rng(3).standard_normal((sum(rows), 4)).astype(np.float32)

    def step(lanes):
        traced = []
        start = {"w": np.full((4, 2), 0.5, np.float32), "b": np.full((1, 2), 0.25, np.float32), "alone": np.full((3, 1), 2.0, np.float32)}
        variables = Variables(start)
        optimizer, rates = create_optimizer(variables, Schedule(1e-2, 20, 2))

        @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates, engine=Engine("cpu", lanes))
        def job(variables, x):
            traced.append(x.shape)
            error = ((flow.matmul(x, variables.get("w")) + variables.get("b")) ** 2).mean()
            return error + (variables.get("alone") ** 2).sum(), error, parallel.constant((2,), 1.0, "cpu")

        outputs = [output.numpy() for output in job({"x": x})]
        return outputs, job.optimizer_state(), len(traced)

    whole, state, _ = step(Lanes())
    assert [len(part) for part in Lanes(len(rows)).cut({"x": x})["x"]] == rows
    outputs, moments, traced = step(Lanes(len(rows)))
    assert traced == calls
    for output, expected in zip(outputs, whole):
        np.testing.assert_allclose(output, expected, rtol=1e-6)
    w, b = np.full((4, 2), 0.5), np.full((1, 2), 0.25)
    assert whole[1] == pytest.approx(((x.astype(np.float64) @ w + b) ** 2).mean(), rel=1e-5)
    gradients = {name: value for name, value in moments.items() if name.endswith("-m")}
    assert len(gradients) == len([name for name in state if name.endswith("-m")]) == 3
    for name, value in gradients.items():
        np.testing.assert_allclose(value, state[name], rtol=1e-5, atol=1e-8, err_msg=name)
        assert np.abs(value).max() > 1e-4, name


@pytest.mark.slow
def test_predicting_in_lanes_is_predicting_in_one_piece():
    traced = []

    def predicted(count):
        @global_function(type="predict", variables=variables, engine=engine(count))
        def job(variables, word_rows, input_mask, segment_ids):
            traced.append(count)
            logits = predict_logits(variables, NO_DROPOUT, KERNELS["cpu"], word_rows, input_mask, segment_ids)
            return logits, word_rows.to(flow.float32) * 2.0, parallel.constant((1, 2), 3.0, "cpu")

        batch = golden_batch()
        return [output.numpy() for output in job(batch)]

    variables = Variables(documented("weight"))
    logits, doubled, _ = predicted(1)
    for count in (2, 3):
        same, ids, constants = predicted(count)
        assert np.array_equal(constants, np.full((count, 2), 3.0))
        np.testing.assert_allclose(same, logits, rtol=0, atol=1e-6)
        assert np.array_equal(ids, doubled)
        assert np.array_equal(ids, golden_batch()["word_rows"] * 2)
    assert traced == [1, 2, 2, 3]  # three samples in two lanes are lanes of unlike shapes, each of which is traced


@pytest.mark.slow
def test_each_lane_computes_its_part_of_everything():
    _, _, _, graph = trained(2, NO_DROPOUT, steps=1)
    sizes = graph._full_graph_proto.helper.lbn2logical_blob_desc
    streams, updated = collections.defaultdict(collections.Counter), collections.Counter()
    for operation in graph._full_graph_proto.net.op:
        if operation.WhichOneof("op_type") == "user_conf":
            streams[operation.user_conf.op_type_name][operation.stream_name_hint] += 1
            if operation.user_conf.op_type_name == "adam_update":
                (variable,) = operation.user_conf.input["model"].s
                updated[operation.stream_name_hint] += np.prod(list(sizes[variable].shape.dim))
    for kind in ("erf", "softmax", "batch_matmul", "tanh"):
        assert streams[kind]["lane-0"] == streams[kind]["lane-1"] > 0, (kind, streams[kind])
    for kind in ("matmul", "broadcast_mul"):
        assert set(streams[kind]) == {"lane-0", "lane-1"}
        assert min(streams[kind].values()) > 0.4 * sum(streams[kind].values()), (kind, streams[kind])
    assert min(updated.values()) > 0.45 * sum(updated.values()), updated
    assert "" not in set().union(*streams.values())


def test_one_lane_uses_no_private_interface(monkeypatch):
    """--cpu_lanes 1 bypasses the completion of the job, its streams and the scheduler's priority."""
    monkeypatch.setattr(build, "CompiledJob", None)
    monkeypatch.setattr(global_function_module, "calm_scheduler", None)
    _, job, _ = training(1, NO_DROPOUT)
    job(dict(golden_batch(), **LABELS))[0].numpy()
    (graph,) = job._graphs.values()
    assert "build_graph" not in type(graph).__dict__
    assert type(graph).build_graph is flow.nn.Graph.build_graph
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):  # in two lanes it is used
        training(2, NO_DROPOUT)[1](dict(golden_batch(), **LABELS))


def test_engines_of_one_process_do_not_change_each_other(monkeypatch):
    """A function goes on in its own lanes and threads after another engine's function was built and has run."""
    threads = []
    monkeypatch.setattr(engine_module, "set_gemm_threads", threads.append)
    monkeypatch.setattr(engine_module, "_active", None)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    traced, batch = [], golden_batch()

    def predicting(count):
        @global_function(type="predict", variables=Variables(documented("weight")), engine=Engine("cpu", Lanes(count)))
        def job(variables, word_rows, input_mask, segment_ids):
            traced.append(count)
            return predict_logits(variables, NO_DROPOUT, KERNELS["cpu"], word_rows, input_mask, segment_ids)

        return job

    two, three = predicting(2), predicting(3)
    first = two(batch).numpy()
    np.testing.assert_allclose(three(batch).numpy(), first, rtol=0, atol=1e-6)
    assert np.array_equal(two(batch).numpy(), first)
    assert threads == [3, 2, 3]
    assert traced == [2, 2, 3]  # nothing is traced again; lanes of unlike shapes are traced one by one
    assert len(two._graphs) == len(three._graphs) == 1


@pytest.mark.slow
def test_a_state_goes_on_in_another_number_of_lanes():
    """A run that was cut off on two cores may continue on one."""
    _, values, state, _ = trained(2, NO_DROPOUT, steps=3)
    _, expected, _, _ = trained(1, NO_DROPOUT, steps=4)
    variables = Variables(values)
    optimizer, rates = create_optimizer(variables, Schedule(1e-3, 20, 2))

    @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates)
    def job(variables, **features):
        return finetuning_objective(variables, NO_DROPOUT, KERNELS["cpu"], None, **features)

    job.restore(state)
    batch = dict(golden_batch(), **LABELS)
    job(batch)[0].numpy()
    for name, value in variables.arrays().items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-4, err_msg=name)


def test_lanes_and_layers_share_constants_and_vectors():
    """One constant of each value and shape in a graph; all biases, gammas and betas are cut out of their parameter at once, and their
    gradient is one blob."""
    _, _, _, graph = trained(2, NO_DROPOUT, steps=1)
    job = graph._full_graph_proto
    operations = [operation for operation in job.net.op if operation.WhichOneof("op_type") == "user_conf"]
    made = collections.Counter(
        (tuple(operation.user_conf.attr["shape"].at_shape.dim), operation.user_conf.attr["floating_value"].at_double)
        for operation in operations
        if operation.user_conf.op_type_name == "constant" and "backward" not in operation.name.lower()
    )
    assert made, made
    assert max(made.values()) == 1, made
    (cut,) = (o for o in operations if o.user_conf.op_type_name == "split_like" and VECTORS in o.user_conf.input["in"].s[0])
    parts = fuse(documented_shapes())[VECTORS]
    assert len(cut.user_conf.output["out"].s) == len(parts) == 3 + CONFIG.num_hidden_layers * 8 + 1
    (gradient,) = (
        o.user_conf.input["model_diff"].s[0]
        for o in operations
        if o.user_conf.op_type_name == "adam_update" and VECTORS in o.user_conf.input["model"].s[0]
    )
    makers = {operation.name: operation.user_conf.op_type_name for operation in operations}
    assert makers[gradient.rsplit("/", 1)[0]] == "concat"


def documented_shapes():
    return {name: value.shape for name, value in documented("weight").items()}


@pytest.mark.slow
def test_each_lane_sums_its_share_of_the_squared_gradients():
    """The norm of all gradients is one operation of OneFlow's, for which every lane would wait."""
    _, _, _, graph = trained(3, NO_DROPOUT, steps=1)
    norms = [o for o in graph._full_graph_proto.net.op if o.user_conf.op_type_name == "multi_reduce_sum_pow_abs"]
    assert [norm.user_conf.attr["p"].at_float for norm in norms] == [1.0, 2.0, 2.0, 2.0]
    assert {norm.stream_name_hint for norm in norms[1:]} == {"lane-0", "lane-1", "lane-2"}
    whole, *parts = (list(norm.user_conf.input["x"].s) for norm in norms)
    assert whole == [norm.user_conf.output["y"].s[0] for norm in norms[1:]]
    gradients = [blob for part in parts for blob in part]
    assert len(set(gradients)) == len(gradients) == len(fuse(documented_shapes()))
    sizes = graph._full_graph_proto.helper.lbn2logical_blob_desc
    loads = [sum(np.prod(list(sizes[blob].shape.dim)) for blob in part) for part in parts]
    assert min(loads) > 0.25 * sum(loads), loads


def test_gradients_go_to_their_updates_without_a_copy():
    _, _, _, graph = trained(2, NO_DROPOUT, steps=1)
    operations = {operation.name: operation.user_conf for operation in graph._full_graph_proto.net.op}
    updates = [conf for conf in operations.values() if conf.op_type_name == "adam_update"]
    makers = {operations[conf.input["model_diff"].s[0].rsplit("/", 1)[0]].op_type_name for conf in updates}
    assert len(updates) == len(fuse(documented_shapes())), makers
    assert "matmul" in makers, makers
    assert not any("cast" in maker for maker in makers), makers


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3])
def test_gradients_are_clipped_by_the_norm_of_all(count):
    """By the first moments: the norm is 1 where the loss is large, and goes with the loss where it is small."""

    _, job, _ = training(count, NO_DROPOUT, peak=1e-12)  # at which nothing is learnt
    norms, before = [], 0.0
    for scale in (0.01, 0.02, 1000.0):
        batch = dict(golden_batch(), label=LABELS["label"], loss_mask=LABELS["loss_mask"] * np.float32(scale))
        job(batch)[0].numpy()
        state = job.optimizer_state()
        moments = np.concatenate([state[name].ravel().astype(np.float64) for name in sorted(state) if name.endswith("-m")])
        norms.append(np.linalg.norm((moments - 0.9 * before) / 0.1))
        before = moments
    assert 1e-4 < norms[0] < 0.5
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-3)
    assert norms[2] == pytest.approx(1.0, abs=1e-5)
