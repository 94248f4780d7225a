"""CPU threads: how many a process uses, how many a GEMM uses, and the priority of OneFlow's scheduler thread.

OneFlow's CPU operations use one thread each. Only GEMMs use several, through the BLAS (modeling/engine/blas.py). Their number is a setting
of the whole process. Each `Engine` (modeling/engine/engine.py) sets it before its graphs run.
"""

import contextlib
import os

from modeling.engine import blas

# A higher niceness could leave the scheduler thread without CPU time for a whole graph run
_SCHEDULER_NICENESS = 10

_engine_threads: frozenset = frozenset()  # ids of the threads that the import of OneFlow started


def cpu_threads() -> int:
    """Number of CPU threads that one process uses: OMP_NUM_THREADS if the user set it, else the cores that this process may use."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else len(os.sched_getaffinity(0))


def gemm_threads(lanes: int = 1, short: bool = False) -> int:
    """Threads of one GEMM if `lanes` GEMMs run at the same time.

    Args:
        lanes: parts of a batch that compute at the same time.
        short: whether the graphs take a few milliseconds only. They get one thread with OpenBLAS, whose threads wait for each other in a
            loop. On a busy machine this costs a short graph more than it gains, and OneFlow may mark the graph as running too late
            (modeling/engine/workarounds.py).
    """
    if short and blas.loaded is not None and blas.loaded.spins:
        return 1
    return max(1, cpu_threads() // lanes)


def set_gemm_threads(count: int) -> None:
    """Sets the number of threads per GEMM for the whole process. No graph may be running."""
    if blas.loaded is not None:
        blas.loaded.set_threads(count)


@contextlib.contextmanager
def starting_engine_threads():
    """Context manager that records which threads start in the block, which imports OneFlow; for `calm_scheduler`."""
    global _engine_threads
    before = set(os.listdir("/proc/self/task"))
    yield
    _engine_threads = frozenset(os.listdir("/proc/self/task")) - before


def calm_scheduler() -> None:
    """Lowers the priority of OneFlow's scheduler thread. It is called after each run of a graph that is not short.

    While a graph runs, the scheduler thread polls without a pause. At equal priority it takes CPU time from the threads that compute, those
    of this process and those of others: two trainings of one thread each on two cores had half a core each. The
    function identifies it by its CPU time: it has used by far the most among the threads that the import started. The other threads (among
    them those that compute sums) sleep while they have no work, and must keep their priority. Once the thread is found, the function
    does nothing.
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
