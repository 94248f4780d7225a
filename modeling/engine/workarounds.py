"""Faults of OneFlow and their remedies: one entry per fault, with versions, symptom, remedy, and the test that covers it.

Code that exists only as a remedy is in this module. If a remedy is part of how another module works (dropout, for instance), the entry
names that module. Only OneFlow 0.8.0 and 0.9.0 have been tried.
"""

import gc
from typing import NamedTuple

from modeling.engine import parallel
from modeling.engine.runtime import flow, oneflow_version


class Fault(NamedTuple):
    """One fault of OneFlow."""

    versions: str
    symptom: str
    remedy: str  # what the project does, and where
    test: str  # fails, or can be simplified, once the fault is gone


FAULTS = (
    Fault(
        "0.8.0, 0.9.0",
        "A graph is marked as running only after it has received its inputs. If it finishes first, the process aborts: about 1 in 1,000 "
        "steps of a tiny model on a loaded machine.",
        "Graphs of fewer than 2 million parameters also compute a few matmuls (4 to 7 ms): `pad_short_graph`.",
        "tests/modeling/engine/test_global_function.py::test_graphs_of_small_models_take_a_few_milliseconds",
    ),
    Fault(
        "0.8.0, 0.9.0",
        'Train graphs that share their state break ("must be a variable created in nn.Graph", or a crash) once one of them has been freed.',
        "Graphs live until `forget_graphs`.",
        "tests/modeling/engine/test_global_function.py::test_graphs_that_are_forgotten_give_back_their_threads",
    ),
    Fault(
        "0.9.0",
        "With several processes, freeing a graph sometimes aborts (Check failed: actor_read_ctx->waiting_list.empty()). On a CPU, the "
        "outputs of a graph's operations stay allocated after the graph has been freed.",
        "No script frees graphs; each uses few of them, and their memory is estimated (modeling/run/resources.py).",
        "tests/modeling/engine/test_workarounds.py::test_a_freed_graph_keeps_its_memory",
    ),
    Fault(
        "0.9.0",
        "A parameter keeps the symbolic gradient of the first train graph, and the second graph adds to it.",
        "`clear_symbolic_gradients` before a further train graph is built.",
        "tests/modeling/engine/test_global_function.py::test_train_graphs_of_several_shapes_are_one_run",
    ),
    Fault(
        "0.8.0",
        "Three or more gradients of one tensor are added in an order that differs between processes, and so do the last digits of a run.",
        "`fan_out` chains copies, so that every sum has two terms.",
        "tests/modeling/engine/test_workarounds.py::test_fan_out",
    ),
    Fault(
        "0.8.0",
        "SGD with momentum and learning rate 0 does not add the gradient to the momentum, as it does in 0.9.0.",
        "modeling/engine/lanes/sums.py changes the update in the job to one that subtracts learning rate times gradient from the momentum.",
        "tests/modeling/engine/test_accumulation.py",
    ),
    Fault(
        "0.8.0",
        "cumsum ends the process in a train graph (Cannot find op_type_name: cumsum_grad), also for a tensor without a gradient.",
        "modeling/engine/kernels.py adds up by products of matrices: `has_cumulative_sums`.",
        "tests/modeling/objectives/test_replaced_tokens.py",
    ),
    Fault(
        "0.8.0",
        "The backward pass of a graph follows tensors that are detached, and ends at an operation without one (broadcast_not_equal).",
        "modeling/objectives/replaced_tokens.py takes its labels as indices, which have no gradient.",
        "tests/modeling/objectives/test_replaced_tokens.py",
    ),
    Fault(
        "0.8.0",
        "layer_norm has no gradient on a CPU.",
        "modeling/engine/kernels.py composes it from other operations on a CPU; tests of the stock kernels skip.",
        "tests/modeling/bert/test_encoder.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "The gradient of max over an axis crashes on a CPU (0.8.0), or takes four times as long as necessary (0.9.0).",
        "modeling/bert/pooling.py gathers the values at the index of the maximum.",
        "tests/modeling/bert/test_pooling.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "nn.Dropout uses one mask for all layers of a graph and ignores the seed, and the state of its generator cannot be restored.",
        "modeling/bert/dropout.py samples the masks outside the graph and passes them as inputs.",
        "tests/modeling/bert/test_dropout.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "Each parameter group is clipped by its own norm, so groups with and without weight decay cannot be clipped together.",
        "modeling/run/optimizer.py uses one group and excludes names from decay through a private method.",
        "tests/modeling/run/test_optimizer.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "An exception inside one of OneFlow's calls ends the process, KeyboardInterrupt included.",
        "modeling/cli/interruption.py records signals; the training loop checks for them between steps.",
        "tests/modeling/cli/test_interruption.py",
    ),
    Fault(
        "0.8.0",
        "C++ destructors race with threads at exit: the process sometimes aborts, and the exit code is lost.",
        "modeling/cli/errors.py ends the process without destructors after all work is done.",
        "tests/modeling/cli/test_errors.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "The OFRecord reader ends the process on a truncated file, a bad length or a missing feature.",
        "ofrecord_util/reader.py reads the files and checks them before it uses them.",
        "tests/ofrecord_util/test_damaged_records.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "The launcher loses exit codes, and the other ranks continue after one has died.",
        "modeling/engine/launch.py starts and supervises the ranks.",
        "tests/test_parallel.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "LinearLR rejects a start factor of 0.",
        "modeling/run/optimizer.py starts at 1e-30 of the peak.",
        "tests/modeling/run/test_optimizer.py",
    ),
    Fault(
        "0.9.0",
        "autograd.grad fails in a graph: it copies the gradients, which have no values there. A second `backward` fails too (gradient is "
        "missing for loss).",
        "`gradient_of` calls the function that autograd.grad wraps.",
        "tests/modeling/engine/test_workarounds.py::test_a_gradient_inside_a_graph",
    ),
)

# Graphs of models with fewer parameters compute this many products of matrices of this size: 4 to 7 ms on one core, with and without
# AVX-512. With two products, none of 7,600 steps failed in six processes on two cores. Without products, every process aborted within
# 12,000 steps
_SMALL_MODEL, _PRODUCTS, _PRODUCT_SIZE = 2_000_000, 3, 512


def is_short(variables) -> bool:
    """Whether graphs of these variables may finish before OneFlow marks them as running."""
    return parallel.device_of(variables) == "cpu" and sum(parameter.numel() for parameter in variables.parameters()) < _SMALL_MODEL


def pad_short_graph():
    """A tensor inside a graph that takes a few milliseconds to compute."""
    product = parallel.constant((_PRODUCT_SIZE, _PRODUCT_SIZE), 1.0 / _PRODUCT_SIZE, "cpu")
    for _ in range(_PRODUCTS):
        product = flow.matmul(product, product)
    return product.sum()


def has_cumulative_sums() -> bool:
    """Whether a train graph can have cumsum."""
    return oneflow_version() >= (0, 9, 0)


def gradient_of(value, place):
    """The gradient of a scalar inside a graph, as a constant. It is none of the graph's losses.

    Args:
        value: a scalar.
        place: the tensor with respect to which; one without a history (`detach`) that requires a gradient.
    """
    ones = parallel.constant(tuple(value.shape), 1.0, value.placement.type if value.is_global else value.device.type)
    arguments = (flow._oneflow_internal.TensorTuple([tensor]) for tensor in (value, place, ones))
    (gradient,) = flow._oneflow_internal.autograd.grad(*arguments, False, False)
    return gradient


_ALIVE: list = []


def keep_alive(function) -> None:
    """Keeps a function's graphs until `forget_graphs`."""
    _ALIVE.append(function)


def forget_graphs() -> None:
    """Frees all graphs that have no other references. Each graph takes three threads, which are given back, and memory, which is not.

    It is for programs that build many graphs one after the other. Do not call it while a graph is built or runs. Do not call it either
    between two train functions over the same variables, if the first one has compiled several shapes.
    """
    _ALIVE.clear()
    gc.collect()


def clear_symbolic_gradients(variables) -> None:
    """Removes the symbolic gradients that the construction of a train graph has left in its parameters."""
    for parameter in variables.parameters():
        parameter.grad = None


def fan_out(x, count: int):
    """A tuple of `count` tensors equal to x, for `count` uses that each have a gradient."""
    if oneflow_version() >= (0, 9, 0):
        return (x,) * count
    uses = [x]
    while len(uses) < count:
        uses.append(flow._C.identity(uses[-1]))
    return tuple(uses)
