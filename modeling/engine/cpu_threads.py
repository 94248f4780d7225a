"""CPU threads: how many a process uses, how many a GEMM uses, and which thread of OneFlow's gives way.

OneFlow's CPU operations use one thread each. Only a GEMM uses several, those of its BLAS (modeling/engine/blas.py). Their number is one
setting of the process; each `Engine` (modeling/engine/engine.py) sets it before its graphs run.
"""

import contextlib
import os

from modeling.engine import blas

# A higher niceness could leave the scheduler thread without CPU time for a whole graph run
_SCHEDULER_NICENESS = 10

_engine_threads: frozenset = frozenset()  # thread ids that the import of OneFlow has started


def cpu_threads() -> int:
    """Number of CPU threads that one process uses: OMP_NUM_THREADS where the user set it, else the cores this process may run on."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else len(os.sched_getaffinity(0))


def gemm_threads(lanes: int = 1, short: bool = False) -> int:
    """Threads of a GEMM where `lanes` of them run at the same time.

    Args:
        lanes: parts of a batch that compute at the same time.
        short: whether the graphs take a few milliseconds only. The threads of OpenBLAS wait for each other in a loop. On a busy machine this
            costs a short graph more than it gains, and keeps OneFlow from marking the graph as running in time
            (modeling/engine/workarounds.py). One thread then.
    """
    if short and blas.loaded is not None and blas.loaded.spins:
        return 1
    return max(1, cpu_threads() // lanes)


def set_gemm_threads(count: int) -> None:
    """Sets the number of threads of a GEMM, for the whole process. No graph may be running."""
    if blas.loaded is not None:
        blas.loaded.set_threads(count)


@contextlib.contextmanager
def starting_engine_threads():
    """Notes the threads that start while the block imports OneFlow, for `calm_scheduler`."""
    global _engine_threads
    before = set(os.listdir("/proc/self/task"))
    yield
    _engine_threads = frozenset(os.listdir("/proc/self/task")) - before


def calm_scheduler() -> None:
    """Lowers the priority of OneFlow's scheduler thread; called after each run of a graph in lanes until the thread has been found.

    While a graph runs, the scheduler thread polls without a pause. At equal priority it takes CPU time from the threads that compute. It is
    found by its CPU time: of the threads that the import has started it has used by far the most. The others (among them the threads
    that compute sums) sleep while there is nothing to do, and must not wait when there is.
    """
    global _engine_threads
    if not _engine_threads:
        return
    used = {thread: _processor_seconds(thread) for thread in _engine_threads}
    scheduler, others = max(used, key=used.get), sorted(used.values())[:-1]
    if used[scheduler] < 0.05 + 2 * max(others, default=0):
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, int(scheduler), max(_SCHEDULER_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    _engine_threads = frozenset()


def _processor_seconds(thread):
    try:
        with open(f"/proc/self/task/{thread}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
