"""modeling/engine/peers.py with real processes, which need no OneFlow of their own here: sums, texts, and a process that ends early."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
import tiny

from modeling.engine import peers
from modeling.engine.launch import _free_port
from ofrecord_util.errors import UserError

SCRIPT = """
import sys
import numpy as np
from modeling.engine import peers

peers._GRACE_SECONDS = 0
number = peers.rank()
text = peers.share("text of %d" % number)
if number == int(sys.argv[1]):
    sys.exit(7)
peers.barrier()
small = peers.add_up(np.array([[1, 2, number]], np.int32))
large = peers.add_up(np.full((3, 50000), 0.1 + number, np.float64))
same = peers.add_up(np.array([1e16, 1.0 if number else 3.0]))
collected = [one.tolist() for one in peers.collect(np.full(2, number, np.float32), 2)] if number < 2 else "absent"
first = peers.spread(np.full(2, 5.5 + number)).tolist()
more = [collected, first]
print([number, text, small.tolist(), str(small.dtype), float(large.sum()), same.tolist(), peers.own("abcde"), more])
"""


def run(total, ends_early=-1):
    port = _free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(ends_early)],
            cwd=tiny.ROOT,
            env=peers.environment(number, total, "127.0.0.1", port, "a secret"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        for number in reversed(range(total))
    ]
    ended = [(*process.communicate(timeout=100), process.returncode) for process in processes]
    return ended[::-1]


@pytest.mark.slow
def test_three_processes():
    ended = run(3)
    assert [code for _, _, code in ended] == [0, 0, 0], ended
    shares = [[[0, "a"], [3, "d"]], [[1, "b"], [4, "e"]], [[2, "c"]]]
    total, collected = 150000 * (0.1 + 1.1 + 2.1), ([[0.0, 0.0], [1.0, 1.0]], [], "absent")
    for number, ((output, _, _), share) in enumerate(zip(ended, shares)):
        found = json.loads(output.replace("'", '"').replace("(", "[").replace(")", "]"))
        more = [collected[number], [5.5, 5.5]]
        assert found == [number, "text of 0", [[3, 6, 3]], "int32", pytest.approx(total), [3e16, 5.0], share, more]


@pytest.mark.slow
def test_a_process_that_ends_is_an_error_in_the_others():
    ended = run(3, ends_early=2)
    assert [code for _, _, code in ended] == [1, 1, 7]
    assert all(errors.endswith("ConnectionError: another process of the run has ended\n") for _, errors, code in ended if code == 1)


def test_another_program_on_the_port(monkeypatch):
    """Programs that try ports do not end process 0, and a process does not take another program for process 0."""
    port, ended = _free_port(), []
    for name, value in peers.environment(0, 2, "127.0.0.1", port, "k").items():
        monkeypatch.setenv(name, value)
    listening = threading.Thread(target=lambda: ended.extend(peers._listen(("127.0.0.1", port), b"k")))
    listening.start()
    for words, hangs_up in ((b"GET / HTTP/1.1\r\n\r\n", False), (b"", True), (b"", False)):
        with connected(port) as foreign:
            foreign.sendall(words)
            if hangs_up:
                foreign.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
    with pytest.raises(UserError, match=f"--ctrl_port {port}: another program answers on 127.0.0.1"):
        peers._dial(("127.0.0.1", port), b"the key of another run")
    monkeypatch.setenv("PEER_RANK", "1")
    peers._dial(("127.0.0.1", port), b"k").close()
    listening.join(timeout=10)
    assert len(ended) == 1


def connected(port):
    """A connection to a port on which a thread begins to listen."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port))


def test_one_process():
    array = np.array([1.5])
    assert peers.count() == 1
    assert peers.add_up(array) is array
    assert peers.spread(array) is array
    assert peers.collect(array, 1)[0] is array
    assert peers.share("text") == "text"
    assert peers.own("ab") == [(0, "a"), (1, "b")]
    peers.barrier()


def test_the_environment_has_nothing_of_oneflow(monkeypatch):
    """OneFlow sets these variables when it is imported; a process that inherited them would meet the others there."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    found = peers.environment(2, 3, "10.0.0.1", 50051, "k")
    assert not {"RANK", "WORLD_SIZE", "MASTER_PORT"} & set(found)
    assert {name: value for name, value in found.items() if name.startswith("PEER_")} == {
        "PEER_RANK": "2", "PEER_COUNT": "3", "PEER_ADDRESS": "10.0.0.1", "PEER_PORT": "50051", "PEER_KEY": "k"
    }  # fmt: skip
