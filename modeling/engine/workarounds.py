"""Faults of OneFlow and what is done about them: one entry per fault, with versions, symptom, remedy and the test that notices its end.

Where the remedy is code that serves nothing else, it is here. Where it is how a module works (dropout, for instance), the entry names
the module. Versions are those that were tried.
"""

import gc
from typing import NamedTuple

from modeling.engine import parallel
from modeling.engine.runtime import flow, oneflow_version


class Fault(NamedTuple):
    """One fault of OneFlow."""

    versions: str
    symptom: str
    remedy: str  # what is done, and where
    test: str  # fails, or can be simplified, once the fault is gone


FAULTS = (
    Fault(
        "0.8.0, 0.9.0",
        "A graph is marked as running only after it has received its inputs. If it finishes first, the process aborts: about 1 in 1,000 "
        "steps of a tiny model on a loaded machine.",
        "Graphs of fewer than 2 million parameters compute a few matmuls (4 to 7 ms) beside their outputs: `pad_short_graph`.",
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
        "There is no gradient of layer_norm on a CPU.",
        "modeling/engine/kernels.py composes it from other operations on a CPU; tests of the stock kernels skip.",
        "tests/modeling/bert/test_encoder.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "The gradient of max over an axis crashes on a CPU (0.8.0), or takes four times as long as it should (0.9.0).",
        "modeling/bert/pooling.py takes the values at the place of the maximum.",
        "tests/modeling/bert/test_pooling.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "nn.Dropout draws one mask for all layers of a graph, ignores the seed, and its generator's state cannot be restored.",
        "modeling/bert/dropout.py draws the masks outside of the graph and passes them as inputs.",
        "tests/modeling/bert/test_dropout.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "Each parameter group is clipped by a norm of its own, so groups with and without weight decay cannot be clipped together.",
        "modeling/run/optimizer.py uses one group and excludes names from decay through a private method.",
        "tests/modeling/run/test_optimizer.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "An exception inside one of OneFlow's calls ends the process, KeyboardInterrupt included.",
        "modeling/cli/interruption.py notes signals; the loop asks between steps.",
        "tests/modeling/cli/test_interruption.py",
    ),
    Fault(
        "0.8.0",
        "C++ destructors race with threads at exit: the process sometimes aborts, and the exit code is lost.",
        "modeling/cli/errors.py leaves without destructors once all work is done.",
        "tests/modeling/cli/test_errors.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "The OFRecord reader ends the process on a truncated file, a bad length or a missing feature.",
        "ofrecord_util/reader.py reads the files and checks them before anything is used.",
        "tests/ofrecord_util/test_records.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "The launcher loses exit codes, and the other ranks go on when one has died.",
        "modeling/engine/launch.py starts and watches the ranks.",
        "tests/test_parallel.py",
    ),
    Fault(
        "0.8.0, 0.9.0",
        "LinearLR refuses a start factor of 0.",
        "modeling/run/optimizer.py starts at 1e-30 of the peak.",
        "tests/modeling/run/test_optimizer.py",
    ),
)

# Models below this many parameters get products of this size: 4 to 7 ms on one core, with and without AVX-512. With two products none of
# 7,600 steps failed in six processes on two cores; without any, every process aborted within 12,000 steps
_SMALL_MODEL, _PRODUCTS, _PRODUCT_SIZE = 2_000_000, 3, 512


def is_short(variables) -> bool:
    """Whether graphs of these variables may finish before OneFlow has marked them as running."""
    return parallel.device_of(variables) == "cpu" and sum(parameter.numel() for parameter in variables.parameters()) < _SMALL_MODEL


def pad_short_graph():
    """Inside a graph, a tensor that takes a few milliseconds to compute."""
    product = parallel.constant((_PRODUCT_SIZE, _PRODUCT_SIZE), 1.0 / _PRODUCT_SIZE, "cpu")
    for _ in range(_PRODUCTS):
        product = flow.matmul(product, product)
    return product.sum()


_ALIVE: list = []


def keep_alive(function) -> None:
    """Keeps a function's graphs until `forget_graphs`."""
    _ALIVE.append(function)


def forget_graphs() -> None:
    """Frees the graphs that nobody else holds; each of them costs three threads and 30 MB or more.

    For programs that build many graphs one after the other. Never call it while a graph is built or runs, nor where a train function that
    has compiled several shapes is gone and another one over the same variables follows.
    """
    _ALIVE.clear()
    gc.collect()


def clear_symbolic_gradients(variables) -> None:
    """Removes the gradients that a train graph has left at its parameters while it was built."""
    for parameter in variables.parameters():
        parameter.grad = None


def fan_out(x, count: int):
    """`count` times x, for as many uses of which each gets a gradient."""
    if oneflow_version() >= (0, 9, 0):
        return (x,) * count
    uses = [x]
    while len(uses) < count:
        uses.append(flow._C.identity(uses[-1]))
    return tuple(uses)
