"""Processes of one run that do not share their graphs: each has the whole model and computes tasks of its own.

The ranks of modeling/engine/parallel.py run each graph together, so all of them compute the same step: OneFlow compiles a graph on rank 0
for all ranks. Tasks of meta-learning are independent of each other. So each process is a OneFlow of one rank, and the processes meet
between graphs. The first one adds up their arrays, in the order of the processes, and gives the sums to all of them. The arrays travel as
bytes over sockets. modeling/engine/launch.py starts the processes.
"""

import contextlib
import os
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener

import numpy as np

from modeling.engine.pulse import beat
from ofrecord_util.errors import UserError

_RANK, _COUNT, _ADDRESS, _PORT, _KEY = "PEER_RANK", "PEER_COUNT", "PEER_ADDRESS", "PEER_PORT", "PEER_KEY"
_OF_ONEFLOW = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK")
_LONGEST_TEXT = 2**20  # bytes
_WAIT_SECONDS, _GRACE_SECONDS = 0.1, 10.0  # between two attempts to connect; that the supervisor gets to end the processes
_links: list = []  # of process 0: the connections to the others in their order; of another process: the one to process 0


def environment(number, total, address, port, key):
    """The environment variables of process `number` of `total`: those of this process, without those of OneFlow's ranks.

    Args:
        address, port: where process 0 listens.
        key: text that all processes of the run know.
    """
    own = {name: value for name, value in os.environ.items() if name not in _OF_ONEFLOW}
    return dict(own, **{_RANK: str(number), _COUNT: str(total), _ADDRESS: address, _PORT: str(port), _KEY: key})


def count():
    """Number of processes; 1 in a run that has no others."""
    return int(os.environ.get(_COUNT, "1"))


def rank():
    """Number of this process, from 0."""
    return int(os.environ.get(_RANK, "0"))


def own(items):
    """The share of this process in a list that all processes have: list of (place, item). Of `count` items in a row, each process has one,
    in the order of the processes."""
    return [(place, item) for place, item in enumerate(items) if place % count() == rank()]


def add_up(array):
    """The sum of the arrays of all processes, the same bits in each. All processes must call it.

    Args:
        array: NumPy array of one shape and dtype in all processes.
    """
    if count() == 1:
        return array
    data = np.ascontiguousarray(array)
    with _exchange() as links:
        if rank():
            _send(links, data)
            return _received(links[0], data)
        total = data.copy()
        for link in links:
            total += _received(link, data)
        _send(links, total)
        return total


def collect(array, present):
    """The arrays of the first `present` processes in their order, in process 0; [] in the others. These processes must call it, and no
    others.

    Args:
        array: NumPy array of one shape and dtype in all processes.
        present: number of processes, at least 1.
    """
    if present == 1:
        return [array]
    data = np.ascontiguousarray(array)
    with _exchange() as links:
        if rank():
            _send(links, data)
            return []
        return [data, *(_received(link, data) for link in links[: present - 1])]


def spread(array):
    """The array of process 0, in all processes. All processes must call it, with arrays of one shape and dtype."""
    if count() == 1:
        return array
    data = np.ascontiguousarray(array)
    with _exchange() as links:
        if rank():
            return _received(links[0], data)
        _send(links, data)
        return data


def share(text):
    """The text of process 0, in all processes. All processes must call it."""
    if count() == 1:
        return text
    with _exchange() as links:
        if rank():
            return links[0].recv_bytes(_LONGEST_TEXT).decode("utf-8")
        for link in links:
            link.send_bytes(text.encode("utf-8"))
        return text


def barrier():
    """Waits until every process calls it."""
    add_up(np.zeros(1, np.int32))


@contextlib.contextmanager
def _exchange():
    """Context manager of the connections. In the block, a connection that ends is the end of another process."""
    beat()
    links = _connected()
    try:
        yield links
    except (EOFError, OSError) as error:
        raise _ended() from error
    finally:
        beat()


def _send(links, array):
    """Sends the bytes of an array through each connection."""
    for link in links:
        link.send_bytes(array.reshape(-1).view(np.uint8))


def _received(link, like):
    """The next array of a connection, of the shape and dtype of another one."""
    data = link.recv_bytes(like.nbytes)
    if len(data) != like.nbytes:
        raise EOFError(f"{len(data)} bytes in place of {like.nbytes}")
    return np.frombuffer(data, like.dtype).reshape(like.shape)


def _connected():
    """The connections, which the first call makes."""
    if not _links:
        place, key = (os.environ[_ADDRESS], int(os.environ[_PORT])), os.environ[_KEY].encode("utf-8")
        _links.extend([_dial(place, key)] if rank() else _listen(place, key))
    return _links


def _dial(place, key):
    address, port = place
    while True:
        try:
            link = Client(place, authkey=key)
            link.send_bytes(str(rank()).encode("ascii"))
            return link
        except ConnectionRefusedError:  # process 0 does not listen yet
            time.sleep(_WAIT_SECONDS)
        except (AuthenticationError, AssertionError, EOFError, OSError) as error:
            if _is_of_handshake(error):
                raise UserError(f"--ctrl_port {port}: another program answers on {address}: give all machines another port") from error
            raise UserError(f"{address}: cannot be reached ({error}); check --node_ips and --ctrl_port") from error


def _is_of_handshake(error):
    """Whether an error says that the program at the other end is not one of the run's."""
    return not isinstance(error, OSError) or isinstance(error, ConnectionError) or error.errno is None  # None: not a message's length


def _listen(place, key):
    found = {}
    with Listener(place, backlog=count(), authkey=key) as listener:
        while len(found) < count() - 1:
            try:
                link = listener.accept()
                found[int(link.recv_bytes(16))] = link
            except (AuthenticationError, AssertionError, EOFError, OSError, ValueError) as error:
                if not _is_of_handshake(error):
                    raise
    return [found[number] for number in sorted(found)]


def _ended():
    """The error of a lost connection. The supervisor knows which process has ended and why, and ends this one meanwhile."""
    time.sleep(_GRACE_SECONDS)
    return ConnectionError("another process of the run has ended")
