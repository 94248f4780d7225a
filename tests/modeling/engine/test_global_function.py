"""modeling/engine/global_function.py: one compiled graph a shape, and train graphs that are one training run."""

import os

import numpy as np
import pytest
from tiny_model import KERNELS, NO_DROPOUT, documented, golden_batch, numpy_of

from modeling.bert.variables import Variables
from modeling.engine import workarounds
from modeling.engine.global_function import GlobalFunction, global_function
from modeling.engine.runtime import flow
from modeling.engine.workarounds import forget_graphs
from modeling.objectives.mft import finetuning_objective
from modeling.run.optimizer import Schedule, create_optimizer

START = np.array([[0.5, -2.0, 1.0]], np.float32)


def one_variable():
    return Variables({"w": START.copy()})


def adamw(variables, **changes):
    return create_optimizer(variables, Schedule(**dict({"peak": 0.05, "total_steps": 20, "warmup_steps": 2}, **changes)))


def test_predict_and_train_share_the_variables():
    variables = one_variable()
    optimizer = flow.optim.SGD(variables.parameters(), lr=0.25)

    @global_function(type="predict", variables=variables)
    def predict_job(variables, x):
        """Scales."""
        return variables.get("w") * x

    @global_function(type="train", variables=variables, optimizer=optimizer)
    def train_job(variables, x):
        product = variables.get("w") * x
        return product.sum(), product

    assert (predict_job.__name__, predict_job.__doc__) == ("predict_job", "Scales.")
    x = np.array([[1.0, 2.0, -1.0], [3.0, 0.0, 5.0]], np.float32)
    np.testing.assert_allclose(predict_job({"x": x}).numpy(), START * x)
    loss, product = numpy_of(train_job({"x": x}))
    np.testing.assert_allclose(product, START * x)
    np.testing.assert_allclose(loss, (START * x).sum())
    after = START - 0.25 * x.sum(axis=0)
    np.testing.assert_allclose(variables.get("w").numpy(), after, atol=1e-6)
    np.testing.assert_allclose(predict_job({"x": x}).numpy(), after * x, atol=1e-5)  # a compiled graph sees it
    np.testing.assert_allclose(variables.get("w").numpy(), after, atol=1e-6)  # and changes nothing


def test_the_body_runs_once_a_shape_and_never_on_numbers():
    seen = []
    variables = one_variable()

    @global_function(type="predict", variables=variables)
    def job(variables, x):
        seen.append((tuple(x.shape), x.is_lazy, variables.get("w") is not None))
        return variables.get("w") * x * 2

    for rows in (2, 4, 2, 2, 4, 1, 4):
        x = np.full((rows, 3), rows, np.float32)
        np.testing.assert_allclose(job({"x": x}).numpy(), START * x * 2)
    assert seen == [((2, 3), True, True), ((4, 3), True, True), ((1, 3), True, True)]


def test_inputs_go_by_keyword_in_any_order():
    @global_function(type="predict", variables=one_variable())
    def job(variables, x, y):
        return x - y + 0 * variables.get("w")[0, 0]

    x, y = np.arange(3, dtype=np.float32), np.full(3, 5, np.float32)
    for call in ({"x": x, "y": y}, {"y": y, "x": x}):
        np.testing.assert_array_equal(job(call).numpy(), [-5, -4, -3])
    np.testing.assert_array_equal(job({"y": x, "x": y}).numpy(), [5, 4, 3])
    with pytest.raises(KeyError, match="y"):
        job({"x": x})


def test_earlier_outputs_keep_their_values():
    """`predict` and the training loop read outputs many calls later."""

    @global_function(type="predict", variables=one_variable())
    def job(variables, x):
        return (x + variables.get("w")).sum()

    outputs = [job({"x": np.full((1, 3), step, np.float32)}) for step in range(12)]
    np.testing.assert_allclose([float(output.numpy()) for output in outputs], [3 * step - 0.5 for step in range(12)])


@pytest.mark.parametrize("small", [True, False])
def test_graphs_of_small_models_take_a_few_milliseconds(monkeypatch, small):
    """A graph that is done before OneFlow has noted that it runs ends the process."""
    monkeypatch.setattr(workarounds, "_SMALL_MODEL", 4 if small else 3)  # the variable has 3 numbers

    @global_function(type="predict", variables=one_variable())
    def job(variables, x):
        return variables.get("w") * x, x * 2.0

    x = np.ones((2, 3), np.float32)
    product, doubled = job({"x": x})
    np.testing.assert_allclose(product.numpy(), START * x)
    assert (doubled.numpy() == 2).all()
    (graph,) = job._graphs.values()
    assert [op.user_conf.op_type_name for op in graph._full_graph_proto.net.op].count("matmul") == 3 * small


def test_what_is_no_global_function():
    variables = one_variable()
    optimizer, _ = adamw(variables)

    def job(variables, x):
        return x.sum()

    for wrong in ({"type": "eval"}, {"type": "train"}, {"type": "predict", "optimizer": optimizer}):
        with pytest.raises(ValueError, match=r"type must be|needs an optimizer"):
            GlobalFunction(job, variables=variables, **wrong)
        with pytest.raises(ValueError, match=r"type must be|needs an optimizer"):
            global_function(variables=variables, **wrong)(job)


def test_functions_of_one_name_are_graphs_of_their_own():
    def make(factor):
        @global_function(type="predict", variables=one_variable())
        def job(variables, x):
            return variables.get("w") * x * factor

        return job

    first, second = make(2.0), make(3.0)
    x = np.ones((1, 3), np.float32)
    for _ in range(2):
        np.testing.assert_allclose(first({"x": x}).numpy(), START * 2)
        np.testing.assert_allclose(second({"x": x}).numpy(), START * 3)


def test_train_graphs_of_several_shapes_are_one_run():
    """The same rows alone or among zeros: moments and step counter go on from one shape's graph to the next."""
    rows = np.random.RandomState(3).randn(8, 2, 3).astype(np.float32)

    def train(lengths):
        variables = one_variable()
        optimizer, rates = adamw(variables)

        @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates)
        def job(variables, x):
            return (variables.get("w") * x).sum()

        trace = []
        for step, batch in enumerate(rows):
            x = np.zeros((lengths[step % len(lengths)], 3), np.float32)
            x[:2] = batch
            loss = job({"x": x}).numpy()
            trace.append(np.append(variables.get("w").numpy(), loss))
        return np.array(trace)

    one = train([2])
    assert np.abs(one[-1, :3] - START).max() > 0.1
    for lengths in ([2, 4], [4, 2, 5]):
        np.testing.assert_allclose(train(lengths), one, rtol=0, atol=1e-6)


def test_bert_trained_on_two_lengths_is_bert_trained_on_one():
    label, loss_mask = np.array([2, 0, 1], np.int32), np.array([1, 1, 1], np.float32)
    names = ("bert-embeddings-word_embeddings", "bert-encoder-layer_1-intermediate-dense-weight", "classification-output_bias")

    def train(lengths, steps=6):
        variables = Variables(documented("weight"))
        optimizer, rates = adamw(variables, peak=1e-3)

        @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates)
        def job(variables, **features):
            return finetuning_objective(variables, NO_DROPOUT, KERNELS["cpu"], None, **features)

        losses = []
        for step in range(steps):
            length = lengths[step % len(lengths)]
            batch = {name: np.zeros((3, length), np.int32) for name in golden_batch()}
            for name, array in golden_batch().items():
                batch[name][:, :13] = array
            losses.append(float(job(dict(batch, label=label, loss_mask=loss_mask))[0].numpy()))
        return losses, {name: variables.get(name).numpy() for name in names}

    losses, values = train([13])
    alternating, others = train([17, 13])
    assert losses[0] - losses[-1] > 0.05
    np.testing.assert_allclose(alternating, losses, rtol=0, atol=1e-5)
    for name in names:
        assert np.abs(values[name] - documented("weight")[name]).max() > 1e-3
        np.testing.assert_allclose(others[name], values[name], rtol=0, atol=1e-5, err_msg=name)


def test_graphs_that_are_forgotten_give_back_their_threads():
    def threads():
        return len(os.listdir("/proc/self/task"))

    def compiled():
        @global_function(type="predict", variables=one_variable())
        def job(variables, x):
            return (x * variables.get("w")).sum()

        return job({"x": np.ones(3, np.float32)}).numpy()

    results = [compiled()]
    forget_graphs()
    before = threads()
    results += [compiled() for _ in range(4)]
    assert threads() >= before + 4
    forget_graphs()
    assert threads() <= before + 1
    assert np.array([*results, compiled()]).std() == 0
