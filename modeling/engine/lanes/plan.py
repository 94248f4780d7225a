"""Lanes: the parts of a batch that the cores of a CPU compute at the same time, inside one static graph.

OneFlow's CPU operations use one thread each; only a GEMM uses several. A graph whose operations follow one another therefore leaves most
cores idle outside of its GEMMs. In lanes, each part of the batch goes through the graph's function on its own, and its operations go
to a stream of their own (modeling/engine/lanes/streams.py): the lanes run at the same time, and each GEMM uses its share of the threads.

A GPU needs no lanes, and several processes already divide the cores among themselves. Short graphs stay in one lane: they gain little, and
OneFlow aborts when a graph finishes before it is marked as running (modeling/engine/workarounds.py), which is likelier while all
cores are busy.
"""

from typing import NamedTuple

from modeling.engine import parallel
from modeling.engine.cpu_threads import cpu_threads

_MOST = 4  # each lane repeats the graph's operations, and so the time to compile them
_WORTH_SECONDS, _FLOPS_PER_SECOND = 0.02, 1e11  # of a forward pass, on two cores


class Lanes(NamedTuple):
    """How batches are cut.

    Attributes:
        count: lanes.
        least_tokens: batches with fewer tokens stay in one lane.
        short: whether the graphs take a few milliseconds only.
    """

    count: int = 1
    least_tokens: int = 0
    short: bool = False

    def cut(self, arrays):
        """Cuts the arrays of a batch into the parts of the lanes, along the first dimension.

        Args:
            arrays: dict of name -> array. The first one, [R, S, ...], says how many rows the batch has and how many tokens a row has;
                each other one has a multiple of R rows.
        Returns:
            dict of name -> tuple of arrays, views of the arrays; a batch of fewer rows than lanes has fewer parts.
        """
        rows, length = (*next(iter(arrays.values())).shape, 1)[:2]
        count = min(self.count, rows) if rows * length >= self.least_tokens else 1
        if count == 1:
            return {name: (array,) for name, array in arrays.items()}
        bounds = [rows * lane // count for lane in range(count + 1)]
        parts = {}
        for name, array in arrays.items():
            multiple = len(array) // rows
            parts[name] = tuple(array[start * multiple : stop * multiple] for start, stop in zip(bounds, bounds[1:]))
        return parts


def plan_lanes(dense_weights: int, batch_size: int, length: int, device: str, wanted: int = 0) -> Lanes:
    """The `Lanes` for a model and its batches: one per core, at most four, one where a batch is too short to gain.

    Args:
        dense_weights: weights of the model's GEMMs (`BertConfig.dense_weights`).
        batch_size, length: samples that a step computes at once in this process, and their greatest length.
        device: "cpu" or "cuda"; a GPU has one lane, and so has each of several processes.
        wanted: a number of lanes that overrides the choice; 0 to choose.
    """
    least = int(_WORTH_SECONDS * _FLOPS_PER_SECOND / (2 * dense_weights))
    short = batch_size * length < least
    if device != "cpu" or parallel.size() > 1:
        return Lanes(short=short)
    if wanted:
        return Lanes(min(wanted, batch_size), short=short)
    return Lanes(1 if short else min(cpu_threads(), _MOST, batch_size), least, short)


# --------------------------------------------------------------------------------- order of the inputs of a graph in lanes


def interleave(parts):
    """dict of name -> tuple of parts, one per lane -> list of a graph's inputs: input by input, and the lanes of each in order."""
    return [part for lanes in parts.values() for part in lanes]


def of_lane(inputs, lane: int, count: int):
    """The inputs of one lane, in the order of the names."""
    return inputs[lane::count]


def by_lane(inputs, count: int):
    """list per lane of its inputs."""
    return [of_lane(inputs, lane, count) for lane in range(count)]


def lane_of(position: int, count: int) -> int:
    """The lane of the input at a position."""
    return position % count
