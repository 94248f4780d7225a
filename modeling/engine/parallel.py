"""Data parallelism: what several processes (ranks) of one run share.

Variables are OneFlow's global tensors, complete on every rank (`sbp.broadcast`). Batches are cut along their first dimension
(`sbp.split(0)`), and OneFlow adds the gradients. Every rank runs the same Python; rank 0 alone writes and prints. With one process these
functions do nothing: tensors are local. modeling/engine/launch.py starts the ranks.
"""

import contextlib
import json

import numpy as np

from modeling.cli import interruption
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow


def size():
    """Number of ranks."""
    return flow.env.get_world_size()


def rank():
    """This process's number among the ranks."""
    return flow.env.get_rank()


def is_main():
    """Whether this process is rank 0, the one that writes and prints."""
    return rank() == 0


# ------------------------------------------------------------------------------------------------------------- tensors


def _placement(device):
    return flow.placement(device, list(range(size())))


def replicate(array, device):
    """An array as a tensor that is whole on every rank; rank 0's values count."""
    tensor = flow.tensor(array, device=device)
    return tensor if size() == 1 else tensor.to_global(placement=_placement(device), sbp=flow.sbp.broadcast)


def shard(array, device):
    """An array [B, ...] that every rank holds, or a tensor of this rank's part on its device, as one tensor cut along B.

    On one CPU the tensor shares the array's memory: `flow.tensor` copies a third of a GB a second, which a teacher's attention would
    feel.
    """
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


def device_of(variables) -> str:
    """The device of a module's parameters, "cpu" or "cuda"."""
    parameter = next(variables.parameters())
    return parameter.placement.type if parameter.is_global else parameter.device.type


def to_numpy(tensor):
    """A tensor's whole value as an array, on every rank; all ranks must ask for it."""
    if tensor.is_global:
        tensor = tensor.to_global(sbp=[flow.sbp.broadcast] * len(tensor.sbp)).to_local()
    return tensor.numpy()


# ---------------------------------------------------------------------------------------------------------- agreement


def broadcast(value):
    """Rank 0's value (what JSON can hold) on every rank."""
    if size() == 1:
        return value
    data = np.frombuffer(json.dumps(value).encode("utf-8") if is_main() else b"", np.uint8).astype(np.int32)
    length = flow.tensor(np.array([len(data)], np.int32))
    flow.comm.broadcast(length, 0)
    data = flow.tensor(data if is_main() else np.zeros(int(length.numpy()[0]), np.int32))
    flow.comm.broadcast(data, 0)
    return json.loads(data.numpy().astype(np.uint8).tobytes().decode("utf-8"))


def barrier():
    """Waits until every rank is here."""
    if size() > 1:
        flow.comm.barrier()


@contextlib.contextmanager
def main_first():
    """Rank 0 runs the block before the others do."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def check_interruption():
    """`interruption.check`, for all ranks at once: rank 0's signal counts."""
    if size() == 1:
        return interruption.check()
    number = flow.tensor(np.array([interruption.received() or 0], np.int32))
    flow.comm.broadcast(number, 0)
    if number.numpy()[0]:
        raise interruption.Interrupted(int(number.numpy()[0]))
    return None
