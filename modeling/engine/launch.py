"""Starts one process (rank) per device and supervises the processes.

With `--gpu_num_per_node N --num_nodes M`, the script starts again as N processes on each machine, with the environment variables of
OneFlow's launcher (MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK, LOCAL_RANK). OneFlow's own launcher loses exit codes and does not stop the
other ranks when one dies; a run that it has started works too. With one process this module does nothing.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from modeling.cli.errors import EXIT_BAD_INPUT, UserError
from modeling.engine import parallel
from modeling.engine.cpu_threads import cpu_threads
from modeling.engine.runtime import flow

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 2.0  # that the other ranks get to end for the same reason


def relaunch(flags, device):
    """Starts the script again as the processes that the flags ask for, and ends with their exit code.

    It returns without effect if one process is enough, or in a process that was started this way.

    Raises:
        UserError: there are fewer GPUs than processes, or --node_ips does not name every machine.
        SystemExit: the processes have ended.
    """
    count, nodes = flags.gpu_num_per_node, flags.num_nodes
    if parallel.size() > 1 or count * nodes == 1:
        return
    if device == "cuda" and count > flow.cuda.device_count():
        raise UserError(f"--gpu_num_per_node {count}: this machine has {flow.cuda.device_count()} GPUs that OneFlow can use")
    node, address, port = 0, "127.0.0.1", flags.ctrl_port
    if nodes > 1:
        ips = flags.node_ips or []
        if len(ips) != nodes:
            raise UserError(f"--num_nodes {nodes}: --node_ips names {len(ips)} machines; name every machine, the one with rank 0 first")
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
                probe.bind((ip, 0))  # works only for addresses of this machine
                return place
            except OSError:
                continue
    raise UserError(f"--node_ips {','.join(ips)}: none is an address of this machine")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _die_with_parent():
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _supervise(environments):
    """Runs the script once per environment, forwards signals, and ends all processes when one fails; returns the exit code."""
    processes, outputs = [], []

    def forward(number, _):
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for environment in environments:
            # The other ranks print the same as rank 0, unless one of them fails alone
            output = None if environment["RANK"] == "0" else tempfile.TemporaryFile()  # noqa: SIM115  read after the processes end
            outputs.append(output)
            processes.append(
                subprocess.Popen(
                    [sys.executable, *sys.argv],
                    env=environment,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # so that Ctrl-C reaches the ranks once, from this process
                    preexec_fn=_die_with_parent,
                )
            )
        failed = _first_failure(processes)
        if failed is None:
            return 0
        code = processes[failed].returncode
        if outputs[failed] is not None or code < 0:  # rank 0 has printed its own error
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
    """Waits for the processes; returns the index of the one that caused the failure, or None if all succeed."""
    deadline = None
    while True:
        codes = [process.poll() for process in processes]
        bad = [place for place, code in enumerate(codes) if code]
        if not bad and None not in codes:
            return None
        if bad and deadline is None:
            deadline = time.monotonic() + _GRACE_SECONDS
        # The exit code of rank 0 is that of the run. OneFlow aborts the other ranks after one has died; they are not the cause
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
