"""Data parallelism: tensors, values and signals that the processes (ranks) of one run share.

Variables are OneFlow's global tensors, complete on every rank (`sbp.broadcast`). Batches are cut along their first dimension
(`sbp.split(0)`), and OneFlow sums the gradients. Every rank runs the same Python code; only rank 0 writes and prints. With one process,
tensors are local, and there is no communication. modeling/engine/launch.py starts the ranks.

A run may consist of processes that do not share their graphs (modeling/engine/peers.py). Each of them is a OneFlow of one rank with local
tensors. The values and signals that the processes of a run agree on are the same in both cases.
"""

import contextlib
import json

import numpy as np

from modeling.cli import interruption
from modeling.engine import peers
from modeling.engine.memo import memoize
from modeling.engine.pulse import beat
from modeling.engine.runtime import flow


def size():
    """Number of ranks."""
    return flow.env.get_world_size()


def rank():
    """Rank of this process."""
    return flow.env.get_rank()


def processes():
    """Number of processes of the run, whether they share their graphs or not."""
    return max(size(), peers.count())


def is_main():
    """Whether this process is the first one, which writes and prints."""
    return rank() == 0 and peers.rank() == 0


# ------------------------------------------------------------------------------------------------------------- tensors


def _placement(device):
    return flow.placement(device, list(range(size())))


def replicate(array, device):
    """An array as a tensor that is complete on every rank. The values are those of rank 0."""
    # `flow.tensor` copies an array twice, at a third of a GB per second
    copies = isinstance(array, np.ndarray) and device == "cpu"
    tensor = flow.from_numpy(np.ascontiguousarray(array)).clone() if copies else flow.tensor(array, device=device)
    return tensor if size() == 1 else tensor.to_global(placement=_placement(device), sbp=flow.sbp.broadcast)


def shard(array, device):
    """One tensor that is split along B among the ranks.

    Args:
        array: array [B, ...] that every rank holds, or tensor of this rank's part on its device. With one process on a CPU, the result
            shares the memory of the array, because `flow.tensor` copies only a third of a GB per second. That would be slow for the
            attention of a teacher.
        device: "cpu" or "cuda".
    """
    beat()
    if isinstance(array, np.ndarray):
        if size() > 1:
            part = len(array) // size()
            array = array[rank() * part :][:part]
        array = flow.from_numpy(np.ascontiguousarray(array))
        if device != "cpu":
            array = array.to(device)
    return array if size() == 1 else array.to_global(placement=_placement(device), sbp=flow.sbp.split(0))


def constant(shape, value, device):
    """A float32 tensor of one value, inside a graph."""

    def make():
        if size() == 1:
            return flow._C.constant(shape, value, dtype=flow.float32, device=flow.device(device))
        return flow._C.global_constant(shape, value, dtype=flow.float32, placement=_placement(device), sbp=[flow.sbp.broadcast])

    return memoize(("constant", tuple(shape), value, device), make)


def arange(count, device):
    """0, 1, … as float32 [count], inside a graph."""

    def make():
        if size() == 1:
            return flow.arange(count, dtype=flow.float32, device=flow.device(device))
        return flow.arange(count, dtype=flow.float32, placement=_placement(device), sbp=[flow.sbp.broadcast])

    return memoize(("arange", count, device), make)


def device_of(variables) -> str:
    """The device of a module's parameters, "cpu" or "cuda"."""
    parameter = next(variables.parameters())
    return parameter.placement.type if parameter.is_global else parameter.device.type


def to_numpy(tensor):
    """The whole tensor as an array, on every rank. All ranks must call it."""
    if tensor.is_global:
        tensor = tensor.to_global(sbp=[flow.sbp.broadcast] * len(tensor.sbp)).to_local()
    return tensor.numpy()


def wait_for_graphs(variables):
    """Waits until the graphs of some variables have run to their end.

    The moments of an optimizer and the sums of gradients must not be read or written before. Reading an output of a graph waits for this
    output only, and OneFlow knows of no order between a graph and its optimizer's state. A variable is read after the whole graph.

    Args:
        variables: a module whose parameters all of the graphs have.
    """
    to_numpy(min(variables.parameters(), key=lambda parameter: parameter.numel()))


# ---------------------------------------------------------------------------------------------------------- agreement


def broadcast(value):
    """The value of the first process in every process. It must be representable in JSON."""
    if size() == 1:
        return json.loads(peers.share(json.dumps(value))) if peers.count() > 1 else value
    beat()
    data = np.frombuffer(json.dumps(value).encode("utf-8") if is_main() else b"", np.uint8).astype(np.int32)
    length = flow.tensor(np.array([len(data)], np.int32))
    flow.comm.broadcast(length, 0)
    data = flow.tensor(data if is_main() else np.zeros(int(length.numpy()[0]), np.int32))
    flow.comm.broadcast(data, 0)
    return json.loads(data.numpy().astype(np.uint8).tobytes().decode("utf-8"))


def barrier():
    """Waits until every process calls it."""
    peers.barrier()
    if size() > 1:
        beat()
        flow.comm.barrier()
        beat()


@contextlib.contextmanager
def main_first():
    """Context manager whose block the first process runs before the others."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def check_interruption():
    """`interruption.check` for all processes at once. Only a signal of the first one counts."""
    if processes() == 1:
        return interruption.check()
    if size() == 1:
        number = broadcast(interruption.received() or 0)
    else:
        beat()
        received = flow.tensor(np.array([interruption.received() or 0], np.int32))
        flow.comm.broadcast(received, 0)
        number = int(received.numpy()[0])
    if number:
        raise interruption.Interrupted(number)
    return None
