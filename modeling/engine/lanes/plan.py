"""Lanes: the parts of a batch that the cores of a CPU compute at the same time, inside one static graph.

OneFlow's CPU operations use one thread each; only GEMMs use several. A graph that runs one operation after the other therefore leaves most
cores idle outside its GEMMs. With lanes, the graph computes each part of the batch separately, with one stream per part
(modeling/engine/lanes/streams.py). The lanes run at the same time, and their GEMMs divide the threads among themselves.

A GPU needs no lanes, and several processes already divide the cores among themselves. Short graphs have one lane, since they gain little.
Moreover, OneFlow aborts if a graph finishes before it is marked as running (modeling/engine/workarounds.py), which is more likely while all
cores are busy.
"""

from typing import NamedTuple

from modeling.engine import parallel
from modeling.engine.cpu_threads import cpu_threads

_MOST = 4  # each lane repeats the operations of the graph, and the time to compile them
_WORTH_SECONDS, _FLOPS_PER_SECOND = 0.02, 1e11  # for a forward pass on two cores


class Lanes(NamedTuple):
    """How batches are divided into lanes.

    Attributes:
        count: number of lanes.
        least_tokens: batches with fewer tokens use one lane, since their graphs take only a few milliseconds; 0 if that is not known.
        short: whether the largest batch has fewer tokens.
    """

    count: int = 1
    least_tokens: int = 0
    short: bool = False

    def used(self, rows, length):
        """Number of lanes that a batch of `rows` texts of `length` tokens uses."""
        return min(self.count, rows) if rows * length >= self.least_tokens else 1

    def known_as_long(self, rows, length):
        """Whether the graph for such a batch certainly takes more than a few milliseconds."""
        return 0 < self.least_tokens <= rows * length

    def cut(self, arrays):
        """Divides the arrays of a batch into one part per lane, along the first dimension.

        Args:
            arrays: dict of name -> array. The first array, [R, S, ...], defines the number of rows R and the tokens per row S. Every other
                array has a multiple of R rows.
        Returns:
            dict of name -> tuple of views, one per part. A batch with fewer rows than lanes has fewer parts.
        """
        rows, length = rows_and_length(arrays)
        count = self.used(rows, length)
        if count == 1:
            return {name: (array,) for name, array in arrays.items()}
        bounds = [rows * lane // count for lane in range(count + 1)]
        parts = {}
        for name, array in arrays.items():
            multiple = len(array) // rows
            parts[name] = tuple(array[start * multiple : stop * multiple] for start, stop in zip(bounds, bounds[1:]))
        return parts


def rows_and_length(arrays):
    """Rows of a batch, and tokens per row, of which its first array has the shape."""
    return (*next(iter(arrays.values())).shape, 1)[:2]


def plan_lanes(dense_weights: int, batch_size: int, length: int, device: str, wanted: int = 0) -> Lanes:
    """The `Lanes` for a model and its batches: one lane per core, at most four; one lane if the batches are too small to gain.

    Args:
        dense_weights: weights of the model's GEMMs (`BertConfig.dense_weights`).
        batch_size, length: samples that a step computes at once in this process, and their maximum length.
        device: "cpu" or "cuda". A GPU always has one lane, and so does each process if there are several.
        wanted: number of lanes; 0 to choose it.
    """
    least = int(_WORTH_SECONDS * _FLOPS_PER_SECOND / (2 * dense_weights))
    short = batch_size * length < least
    if device != "cpu" or parallel.processes() > 1:
        return Lanes(1, least, short)
    if wanted:
        return Lanes(min(wanted, batch_size), least if wanted == 1 else 0, short)
    return Lanes(1 if short else min(cpu_threads(), _MOST, batch_size), least, short)


# --------------------------------------------------------------------------------- order of the inputs of a graph in lanes


def interleave(parts):
    """The inputs of a graph in lanes, as a list: one input after the other, each as its parts in the order of the lanes.

    Args:
        parts: dict of name -> tuple with one part per lane.
    """
    return [part for lanes in parts.values() for part in lanes]


def of_lane(inputs, lane: int, count: int):
    """The inputs of one lane, in the order of their names."""
    return inputs[lane::count]


def by_lane(inputs, count: int):
    """List with the inputs of each lane."""
    return [of_lane(inputs, lane, count) for lane in range(count)]


def lane_of(position: int, count: int) -> int:
    """The lane of the graph's input number `position`."""
    return position % count
