"""modeling/engine/cpu_threads.py: how many threads a process and a GEMM use, and the priority of the thread that polls."""

import os
import threading
import time

import pytest

from modeling.engine import blas, cpu_threads


def test_threads_of_a_process(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads.cpu_threads() == 3
    for value in ("0", "many", ""):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert cpu_threads.cpu_threads() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("spins", "lanes", "short", "threads"),
    [(True, 1, True, 1), (True, 1, False, 6), (False, 1, True, 6), (False, 4, False, 1), (True, 2, False, 3)],
)
def test_threads_of_a_gemm(monkeypatch, spins, lanes, short, threads):
    """Lanes divide the cores; a short graph gets no threads that wait in a loop."""
    counts = []
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    monkeypatch.setattr(blas, "loaded", blas.Blas("a BLAS", counts.append, spins))
    assert cpu_threads.gemm_threads(lanes, short) == threads
    cpu_threads.set_gemm_threads(threads)
    assert counts == [threads]


def test_without_a_library_there_is_nothing_to_set(monkeypatch):
    monkeypatch.setattr(blas, "loaded", None)
    cpu_threads.set_gemm_threads(2)


def test_the_thread_that_polls_gets_the_lowest_priority(monkeypatch):
    """The other threads keep theirs, and nothing changes before one thread has used by far the most time."""
    ids, stop = {}, threading.Event()

    def poll():
        ids["polls"] = str(threading.get_native_id())
        while not stop.is_set() and time.thread_time() < 0.3:
            pass
        ready.set()
        stop.wait()

    def sleep():
        ids["sleeps"] = str(threading.get_native_id())
        stop.wait()

    ready, threads = threading.Event(), [threading.Thread(target=one) for one in (poll, sleep)]
    for thread in threads:
        thread.start()
    try:
        assert ready.wait(60)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        monkeypatch.setattr(cpu_threads, "_engine_threads", frozenset([ids["sleeps"]]))
        cpu_threads.calm_scheduler()
        assert os.getpriority(os.PRIO_PROCESS, int(ids["sleeps"])) == own
        monkeypatch.setattr(cpu_threads, "_engine_threads", frozenset(ids.values()))
        cpu_threads.calm_scheduler()
        assert os.getpriority(os.PRIO_PROCESS, int(ids["polls"])) == 19
        assert os.getpriority(os.PRIO_PROCESS, int(ids["sleeps"])) == own
        assert cpu_threads._engine_threads == frozenset()  # it is found
    finally:
        stop.set()
        for thread in threads:
            thread.join()
