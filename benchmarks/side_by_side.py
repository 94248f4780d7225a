"""Times several implementations of one job, each in a separate process, in turns.

A worker is a script that reads its job as one JSON line. It answers `{"first": seconds}` after its first call. Then it answers each line
`turn` with the seconds of one turn, and the line `end` with its peak memory. The workers take turns, so that changes in the speed of the
machine affect all of them alike. A waiting worker does not compute anything.
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import tempfile

from modeling.cli import interruption

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORKERS = os.path.join(ROOT, "benchmarks", "workers")
TORCH_PYTHON = "BENCH_TORCH_PYTHON"
DEVICE_HELP = "cpu, cuda (in float32 and mixed precision), or all (default): the CPU and, if there is one, the GPU"


def torch_python():
    """The Python with PyTorch and transformers from BENCH_TORCH_PYTHON, or None."""
    return os.environ.get(TORCH_PYTHON) or None


def devices(wanted):
    """The devices that a benchmark runs on: list of (device, mixed precision).

    Args:
        wanted: "cpu", "cuda", or "all" for the CPU and, if OneFlow can use one, a GPU.
    Raises:
        UserError: `cuda` cannot be used.
    """
    from modeling.engine.runtime import select_device  # imports OneFlow

    cuda = wanted != "cpu" and select_device("auto" if wanted == "all" else wanted, warn=lambda _line: None) == "cuda"
    return [("cpu", False)] * (wanted != "cuda") + [("cuda", False), ("cuda", True)] * cuda


class Worker:
    """One implementation, as a process.

    Args:
        name: key of its results.
        python, script: interpreter and script of the worker.
        job: dict, sent as its first line.
        environment: more environment variables, added to those of this process.
    Attributes:
        first: seconds of its first call, or None if the worker failed (`problem` is then its last line of errors).
    """

    def __init__(self, name, python, script, job, **environment):
        self.name, self.turns, self.peak_bytes, self.problem = name, [], None, None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the worker
        self._process = subprocess.Popen(
            [python, os.path.join(WORKERS, script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(os.environ, **environment),
            cwd=ROOT,
            text=True,
        )
        answer = self._ask(json.dumps(job))
        self.first = answer and answer["first"]
        self.facts = {name: value for name, value in (answer or {}).items() if name != "first"}

    def _ask(self, line):
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            self._errors.seek(0)
            self.problem = (self._errors.read().strip().splitlines() or [f"exit code {code}"])[-1]
            return None
        return json.loads(answer)

    def turn(self):
        """Runs one turn and records its seconds."""
        if self.problem is None:
            answer = self._ask("turn")
            if answer:
                self.turns.append(answer["seconds"])

    def end(self):
        """Ends the process and records its peak memory."""
        if self.problem is None:
            answer = self._ask("end")
            self.peak_bytes = answer and answer["peak_bytes"]
        self._process.stdin.close()
        self._process.wait()

    def kill(self):
        """Kills the process."""
        self._process.kill()
        self._process.communicate()


def compare(case, workers, rounds, together=True):
    """Times workers in turns.

    Args:
        case: dict that names the case.
        workers: list of functions without arguments -> `Worker`. The others are compared with the first one.
        rounds: number of measured turns per worker; one more turn comes first and does not count.
        together: False to end each worker before the next one starts, if memory is too small for all of them.
    Returns:
        dict for a JSON line: the case, and for each worker the median, least and largest seconds of a turn, the seconds of the first call,
        peak memory, and the median of the first worker divided by its own.
    """
    groups = [workers] if together else [[worker] for worker in workers]
    workers = [worker for group in groups for worker in _take_turns(group, rounds)]
    ours = statistics.median(workers[0].turns) if workers[0].turns else None
    results = {}
    for worker in workers:
        if worker.problem:
            results[worker.name] = {"problem": worker.problem[:300]}
            continue
        median = statistics.median(worker.turns)
        results[worker.name] = {
            "seconds": round(median, 5),
            "least": round(min(worker.turns), 5),
            "largest": round(max(worker.turns), 5),
            "first_call": round(worker.first, 2),
            "peak_gb": round(worker.peak_bytes / 1e9, 2),
            **worker.facts,
        }
        if ours is not None and worker is not workers[0]:
            results[worker.name]["ours_over_this"] = round(ours / median, 3)
    return {**case, "rounds": rounds, "together": together, "results": results}


def _take_turns(starts, rounds):
    """Starts workers, times them in turns and ends them; returns them."""
    workers = []
    with interruption.deferred():
        try:
            for start in starts:
                workers.append(start())
                interruption.check()
            for number in range(rounds + 1):
                for worker in workers:
                    worker.turn()
                    interruption.check()
                    if number == 0:
                        worker.turns.clear()
        except interruption.Interrupted:
            for worker in workers:
                worker.kill()
            raise
    for worker in workers:
        worker.end()
    return workers


def show(result):
    """Prints a result as one JSON line, at once."""
    print(json.dumps(result), flush=True)


def machine():
    """Description of the machine for a page of results: date, processor, cores, memory, Python."""
    model = "?"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "date": datetime.date.today().isoformat(),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
    }
