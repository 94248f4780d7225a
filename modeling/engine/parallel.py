"""More than one device, data parallel: a process (rank) for each, started by the script itself, and what the ranks share.

`--gpu_num_per_node N --num_nodes M` starts the script anew as N processes with the environment of OneFlow's launcher
(MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK, LOCAL_RANK). OneFlow's own launcher loses exit codes and leaves the other ranks running
when one dies; a run that was started with it works all the same. Variables are OneFlow's global tensors, whole on every rank
(`sbp.broadcast`); batches are cut along their first dimension (`sbp.split(0)`), and OneFlow adds the gradients up. Every rank runs
the same Python; rank 0 alone writes and prints. With one process nothing here does anything: tensors are local.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

from modeling.cli import interruption
from modeling.cli.errors import EXIT_BAD_INPUT, UserError
from modeling.engine.blas import cpu_threads
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 2.0  # for the other ranks to end of the same cause


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


# ------------------------------------------------------------------------------------------------------------ processes


def relaunch(flags, device):
    """Starts the script anew as the processes that the flags ask for and ends with their exit code; returns where there is nothing
    to start.

    Raises:
        UserError: fewer cards than processes, or no address for each machine.
        SystemExit: when the processes have ended.
    """
    count, nodes = flags.gpu_num_per_node, flags.num_nodes
    if size() > 1 or count * nodes == 1:
        return
    if device == "cuda" and count > flow.cuda.device_count():
        raise UserError(f"--gpu_num_per_node {count}: this machine has {flow.cuda.device_count()} cards that OneFlow can use")
    node, address, port = 0, "127.0.0.1", flags.ctrl_port
    if nodes > 1:
        ips = flags.node_ips or []
        if len(ips) != nodes:
            raise UserError(f"--num_nodes {nodes}: --node_ips names {len(ips)} machines; name each, the first one leads")
        node, address = _own_place(ips), ips[0]
    elif "ctrl_port" not in flags.given:
        port = _free_port()
    environment = dict(os.environ, MASTER_ADDR=address, MASTER_PORT=str(port), WORLD_SIZE=str(count * nodes))
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cpu_threads() // count)))
    sys.exit(_supervise([dict(environment, RANK=str(node * count + local), LOCAL_RANK=str(local)) for local in range(count)]))


def _own_place(ips):
    for place, ip in enumerate(ips):
        with socket.socket() as probe:
            try:
                probe.bind((ip, 0))  # works for this machine's own addresses only
                return place
            except OSError:
                continue
    raise UserError(f"--node_ips {','.join(ips)}: none of them is this machine's")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _die_with_parent():
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _supervise(environments):
    """Runs the script once for each environment, hands signals on, and ends all when one fails; returns the exit code."""
    processes, outputs = [], []

    def forward(number, _):
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for environment in environments:
            # What the ranks other than 0 say is said by rank 0 too, unless one of them fails alone
            output = None if environment["RANK"] == "0" else tempfile.TemporaryFile()
            outputs.append(output)
            processes.append(
                subprocess.Popen(
                    [sys.executable, *sys.argv],
                    env=environment,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # a terminal's Ctrl-C comes by way of this process, once
                    preexec_fn=_die_with_parent,
                )
            )
        failed = _first_failure(processes)
        if failed is None:
            return 0
        code = processes[failed].returncode
        if outputs[failed] is not None or code < 0:  # rank 0 has said itself what it met
            _say_what_failed(processes, outputs, environments, failed)
        return code if code > 0 else 128 - code
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_failure(processes):
    """Waits for the processes; returns the place of the one whose failure counts, None where all end well."""
    deadline = None
    while True:
        codes = [process.poll() for process in processes]
        bad = [place for place, code in enumerate(codes) if code]
        if not bad and None not in codes:
            return None
        if bad and deadline is None:
            deadline = time.monotonic() + _GRACE_SECONDS
        # Rank 0's own exit code is the run's. OneFlow aborts the ranks whose partner has died: those are not the cause
        if bad and ((codes[0] or 0) > 0 or None not in codes or time.monotonic() > deadline):
            return min(bad, key=lambda place: (place > 0 or codes[0] < 0, codes[place] == -signal.SIGABRT, place))
        time.sleep(0.05)


def _say_what_failed(processes, outputs, environments, failed):
    number, code = environments[failed]["RANK"], processes[failed].returncode
    if outputs[failed] is not None:
        outputs[failed].seek(0)
        for line in outputs[failed].read().decode("utf-8", "replace").splitlines()[-20:]:
            print(f"rank {number}: {line}", file=sys.stderr)
    if code != EXIT_BAD_INPUT:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        print(f"error: rank {number} ended with {how}, the others were stopped", file=sys.stderr)
