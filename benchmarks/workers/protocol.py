"""The worker's side of benchmarks/side_by_side.py. It needs only Python's standard library."""

import json
import resource
import sys
import time


def read_job():
    """The job, from the first line of standard input."""
    return json.loads(sys.stdin.readline())


def serve(first_call, turn, **facts):
    """Makes the first call, then runs one turn per line `turn` until the line `end`.

    Args:
        first_call: function without arguments.
        turn: function without arguments that returns the number of steps in the turn; its seconds are divided by this number.
        facts: more values for the first answer.
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
