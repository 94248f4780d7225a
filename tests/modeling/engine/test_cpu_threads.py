"""modeling/engine/cpu_threads.py: how many threads a process and a GEMM use."""

import os

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
