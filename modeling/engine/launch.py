"""Starts one process (rank) per device and supervises the processes.

With `--gpu_num_per_node N --num_nodes M`, the script starts again as N processes on each machine, with the environment variables of
OneFlow's launcher (MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK, LOCAL_RANK). OneFlow's own launcher loses exit codes and does not stop the
other ranks when one dies; a run that it has started works too. With one process this module does nothing. Processes that compute tasks of
their own get the environment variables of modeling/engine/peers.py, and a GPU each.

The first signal is passed on to the ranks, which end after the current step. The second one kills them, because a rank that hangs does not
react. A rank without a sign of life for --rank_timeout seconds ends all ranks too.
"""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time

from modeling.cli.errors import EXIT_BAD_INPUT, UserError
from modeling.cli.interruption import SIGNALS
from modeling.cli.scripts import META_LEARNING
from modeling.engine import parallel, peers, pulse
from modeling.engine.cpu_threads import cpu_threads
from modeling.engine.runtime import flow
from ofrecord_util.escaping import for_terminal, say
from ofrecord_util.files import open_to_append

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 2.0  # that the other ranks get to end for the same reason
_EXIT_SILENT_RANK = 1


def relaunch(flags, device):
    """Starts the script again as the processes that the flags ask for, and ends with their exit code.

    It returns without effect if one process is enough, or in a process that was started this way.

    Raises:
        UserError: there are fewer GPUs than processes, or --node_ips does not name every machine.
        SystemExit: the processes have ended.
    """
    count, nodes = flags.gpu_num_per_node, flags.num_nodes
    if parallel.processes() > 1 or count * nodes == 1:
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
    if node == 0:
        _check_port(address, port)
    first, total = node * count, count * nodes
    if flags.script in META_LEARNING:
        key = secrets.token_hex() if nodes == 1 else f"{address}:{port}"
        environments = [peers.environment(first + local, total, address, port, key) for local in range(count)]
        for environment, card in zip(environments, _cards(count) if device == "cuda" else ()):
            environment["CUDA_VISIBLE_DEVICES"] = card
    else:
        environment = dict(os.environ, MASTER_ADDR=address, MASTER_PORT=str(port), WORLD_SIZE=str(total))
        environments = [dict(environment, RANK=str(first + local), LOCAL_RANK=str(local)) for local in range(count)]
    for environment in environments:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cpu_threads() // count)))
    with _Ranks(environments, first, flags.rank_timeout) as ranks:
        sys.exit(ranks.wait())


def _cards(count):
    """Names of the GPUs of `count` processes, one each, as CUDA_VISIBLE_DEVICES has them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(card) for card in range(count)]


def _check_port(address, port):
    """Raises a UserError if OneFlow could not listen on the port. It would abort without a message."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port of a run that has just ended can be used
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError as error:
            raise UserError(f"--ctrl_port {port}: cannot be used on {address} ({error.strerror}): give another port") from error


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


class _Ranks:
    """The processes of a run on this machine. As a context manager it ends all of them when the block ends.

    Args:
        environments: the environment variables of each process.
        first: rank of the first of them.
        timeout: seconds without a sign of life after which a rank counts as hung.
    """

    def __init__(self, environments, first, timeout):
        self._environments, self._first, self._timeout = environments, first, timeout
        self._processes, self._outputs, self._pulses = [], [], []
        self._signals, self._before, self._started = [], {}, time.monotonic()

    def __enter__(self):
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
        return self

    def _start(self):
        for number, environment in enumerate(self._environments, self._first):
            # The other ranks print the same as rank 0, unless one of them fails alone
            output = None if number == 0 else tempfile.TemporaryFile()  # noqa: SIM115  read after the processes end
            beats = tempfile.TemporaryFile()  # noqa: SIM115  read while the processes run
            self._outputs.append(output)
            self._pulses.append(beats)
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, *sys.argv],
                    env=dict(environment, **{pulse.FD_VARIABLE: str(beats.fileno())}),
                    stdout=output,
                    stderr=output,
                    pass_fds=[beats.fileno()],
                    start_new_session=True,  # so that Ctrl-C reaches the ranks once, from this process
                    preexec_fn=_die_with_parent,
                )
            )

    def __exit__(self, *_):
        self._kill()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for file in (*self._outputs, *self._pulses):
            if file is not None:
                file.close()

    def _note(self, number, _):
        self._signals.append(number)  # `wait` passes it on: a process that is just starting would lose it

    def _forward(self, number):
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _kill(self):
        for process in self._processes:
            if process.poll() is None:
                process.kill()  # also ends a process that SIGSTOP has stopped
                process.wait()

    def wait(self):
        """Starts the ranks and waits until they have ended or must be ended. Returns the exit code, and prints why the run failed."""
        self._start()
        deadline, forwarded = None, False
        while True:
            if self._signals and not forwarded:
                forwarded = True
                self._forward(self._signals[0])
            codes = [process.poll() for process in self._processes]
            bad = [place for place, code in enumerate(codes) if code]
            if None not in codes and not bad:
                return 0
            if bad and deadline is None:
                deadline = time.monotonic() + _GRACE_SECONDS
            # The exit code of rank 0 is that of the run. OneFlow aborts the other ranks after one has died; they are not the cause
            if bad and ((codes[0] or 0) > 0 or None not in codes or time.monotonic() > deadline):
                return self._failure(min(bad, key=lambda place: (place > 0 or codes[0] < 0, codes[place] == -signal.SIGABRT, place)))
            if len(self._signals) > 1:
                self._kill()
                self._say(f"error: all ranks were ended by a second signal ({signal.Signals(self._signals[1]).name})")
                return 128 + self._signals[1]
            silent = self._silent_rank()
            if silent is not None:
                self._kill()
                self._say(silent)
                return _EXIT_SILENT_RANK
            time.sleep(0.05)

    def _silent_rank(self):
        """The error line if a rank was silent for too long, else None. A stopped process is the cause; else the first that fell silent."""
        now = time.monotonic()
        running = [place for place, process in enumerate(self._processes) if process.poll() is None]
        last = {place: pulse.last_beat(self._pulses[place], self._started) for place in running}
        if not last or now - min(last.values()) <= self._timeout:
            return None
        stopped = [place for place in running if _state(self._processes[place].pid) in "tT"]
        place = stopped[0] if stopped else min(running, key=last.get)
        number, why = self._first + place, ", its process is stopped (SIGSTOP)" if stopped else ""
        return (
            f"error: rank {number} was silent for {now - last[place]:.0f} s{why}: all ranks were ended; --resume continues the run, and "
            f"--rank_timeout {self._timeout:g} sets the limit"
        )

    def _failure(self, failed):
        code = self._processes[failed].returncode
        if self._outputs[failed] is not None or code < 0:  # rank 0 has printed its own error
            number = self._first + failed
            if self._outputs[failed] is not None:
                self._outputs[failed].seek(0)
                for line in self._outputs[failed].read().decode("utf-8", "replace").splitlines()[-20:]:
                    self._say(f"rank {number}: {line}")
            if code != EXIT_BAD_INPUT:
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                self._say(f"error: rank {number} ended with {how}, the others were stopped")
        return code if code > 0 else 128 - code

    def _say(self, line):
        """Prints a line on standard error and adds it to the run's log."""
        with contextlib.suppress(OSError):
            say(line, sys.stderr)
        path = next(filter(None, map(pulse.log_path, self._pulses)), None)
        if path is not None:
            with contextlib.suppress(OSError, UserError), open_to_append(path) as log:
                log.write(time.strftime("%Y-%m-%d %H:%M:%S ") + for_terminal(line) + "\n")


def _state(pid):
    """State of a process as in `ps`; T for a stopped one."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "?"
