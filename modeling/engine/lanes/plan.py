"""A batch in parts that the CPU's cores compute beside each other, inside one static graph.

OneFlow's CPU operations use one thread each; only a GEMM uses several, those of its BLAS. So a graph whose operations follow one
another leaves most cores idle outside of its GEMMs. Here the graph's function is applied to each part of the batch, a lane, and
the operations of a lane go to a stream of the engine of their own (modeling/engine/lanes/streams.py): the lanes run side by side, each
with its share of the BLAS's threads.

The number of lanes is one for a process, as the BLAS's threads are: `plan_lanes`. A card needs none, and several processes share the
cores among them already. Short graphs stay in one lane. Besides gaining little,
they must not keep all cores busy: OneFlow notes that a graph is running only when its inputs have been handed over, and a graph that is
done by then ends the process. It takes a scheduler thread without a core for as long as the graph lasts.
"""

from modeling.engine import parallel
from modeling.engine.blas import cpu_threads
from modeling.engine.runtime import flow, set_blas_threads

_MOST = 4  # a lane repeats the graph's operations, and compiling takes that much longer
_WORTH_SECONDS, _FLOPS_PER_SECOND = 0.02, 1e11  # of a forward pass, by two cores

_count, _least_tokens = 1, 0


def plan_lanes(config, batch_size, length, device, wanted=0):
    """Sets the lanes of this process for a model and its batches: one a core, four at most, one where a batch is soon done; one on a card
    and in each of several processes.

    Args:
        config: `BertConfig`.
        batch_size, length: samples that a step computes at once in this process, and their greatest length.
        device: "cpu" or "cuda".
        wanted: a number of lanes instead, whatever a batch takes.
    Returns:
        int.
    """
    least = int(_WORTH_SECONDS * _FLOPS_PER_SECOND / (2 * config.dense_weights))
    short = batch_size * length < least
    if device != "cpu" or parallel.size() > 1:
        return use_lanes(1, short=short)
    if wanted:
        return use_lanes(min(wanted, batch_size), short=short)
    return use_lanes(1 if short else min(cpu_threads(), _MOST, batch_size), least, short)


def use_lanes(count, least_tokens=0, short=False):
    """Sets the lanes of this process and gives each its share of the BLAS's threads.

    Args:
        count: lanes.
        least_tokens: batches of fewer stay in one lane.
        short: whether the process's graphs are soon done.
    """
    global _count, _least_tokens
    _count, _least_tokens = count, least_tokens
    set_blas_threads(max(1, cpu_threads() // count), short)
    if count > 1:
        _use_once()
    return count


def count():
    """Lanes of this process."""
    return _count


def cut(arrays, batch_size, length):
    """Cuts the arrays of a batch into the lanes' parts along the first dimension.

    Args:
        arrays: dict name -> array [B * r, ...], r rows a sample.
        batch_size, length: B, S; a batch smaller than the number of lanes has fewer.
    Returns:
        dict name -> tuple of arrays, views of the given ones.
    """
    number = min(_count, batch_size) if batch_size * length >= _least_tokens else 1
    bounds = [batch_size * lane // number for lane in range(number + 1)]
    parts = {}
    for name, array in arrays.items():
        rows = len(array) // batch_size
        parts[name] = tuple(array[start * rows : stop * rows] for start, stop in zip(bounds, bounds[1:]))
    return parts


def _use_once():
    """Uses each kind of oneDNN's primitives once, on one thread.

    Lanes come to their first permutation at the same moment. One process was seen to end there, of oneDNN's "could not create a primitive
    descriptor for a reorder primitive" (OneFlow 0.9.0). It did not come back, with or without this, so that this is a precaution.
    """
    x = flow.ones(2, 3, 4, 5).requires_grad_()
    y = flow.softmax(x.permute(0, 2, 1, 3) * 2.0 + flow.ones(5), dim=-1)
    (y + flow.tanh(y) * y).sum().backward()
    x.grad.numpy()
