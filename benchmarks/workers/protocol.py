"""The worker's side of benchmarks/side_by_side.py; needs nothing but Python's own library."""

import json
import resource
import sys
import time


def read_job():
    """The job that the first line holds."""
    return json.loads(sys.stdin.readline())


def serve(first_call, turn, **facts):
    """Makes the first call, then runs turns as long as they are asked for.

    Args:
        first_call: function without arguments.
        turn: function without arguments -> what is divided out of its seconds (steps of a turn).
        facts: more for the answer, as they are.
    """
    started = time.perf_counter()
    first_call()
    _answer(first=time.perf_counter() - started, **facts)
    for line in sys.stdin:
        if line.strip() == "end":
            _answer(peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            return
        started = time.perf_counter()
        count = turn()
        _answer(seconds=(time.perf_counter() - started) / count)


def _answer(**values):
    print(json.dumps(values), flush=True)
