"""Sends requests to tools/serve.py from many clients at once; prints the rate, latencies, and whether an answer was lost or wrong.

    python3 benchmarks/bench_serve.py [--snapshot SNAPSHOT] [--clients 100] [--requests 10000] [--texts 1]

Each client is a thread with one connection, and sends its next request when it has the answer to the last one. An answer counts if it has
status 200 and the label that the snapshot gives to this text alone. Without --snapshot the encoder of --model_dir gets a classifier of
random weights. The clients run on the same machine and take a part of its time.
"""

if not __package__:
    import _root  # noqa: F401

import collections
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

from benchmarks.bench_predict import bundled_sentences, write_snapshot
from benchmarks.side_by_side import ROOT, machine, show
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import positive_int

_TEXTS = 500  # different ones


def start(snapshot):
    """(process of a server, its host and port)"""
    command = [sys.executable, "tools/serve.py", "--model_load_dir", snapshot, "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if " is served at http://" not in line:
        raise UserError(f"tools/serve.py did not start: {line.strip() or 'see its error above'}")
    return process, line.rstrip().rpartition("/")[2]


def ask(connection, texts):
    """(status, parsed answer)"""
    connection.request("POST", "/predict", json.dumps({"text": texts}), {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def client(address, jobs, results):
    """Works off an iterator of texts; appends (seconds, status, whether the answer fits the texts, labels) per request."""
    connection = http.client.HTTPConnection(address, timeout=120)
    for texts in jobs:
        started = time.perf_counter()
        try:
            status, found = ask(connection, texts)
        except (OSError, http.client.HTTPException, ValueError) as error:
            results.append((time.perf_counter() - started, type(error).__name__, texts, None))
            connection.close()
            continue
        labels = [each["label"] for each in found] if status == 200 and [each["text"] for each in found] == texts else None
        results.append((time.perf_counter() - started, status, texts, labels))
    connection.close()


class _Shared:
    """An iterator that several threads may use."""

    def __init__(self, items):
        self._items, self._lock = iter(items), threading.Lock()

    def __iter__(self):
        return self

    def __next__(self):
        with self._lock:
            return next(self._items)


def measure(address, clients, requests, texts):
    """Sends the requests; returns a dict for a JSON line."""
    known = list(itertools.islice(bundled_sentences(), _TEXTS))
    connection = http.client.HTTPConnection(address, timeout=120)
    expected = {text: ask(connection, [text])[1][0]["label"] for text in known}
    around = itertools.cycle(known)
    jobs, results = _Shared([[next(around) for _ in range(texts)] for _ in range(requests)]), []
    threads = [threading.Thread(target=client, args=(address, jobs, results)) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    latencies = [each[0] for each in results]
    right = sum(labels == [expected[text] for text in given] for _, _, given, labels in results)
    return {
        "clients": clients,
        "requests": requests,
        "texts_per_request": texts,
        "answers": len(results),
        "lost": requests - sum(labels is not None for *_, labels in results),
        "other_label": len(results) - right,
        "statuses": dict(collections.Counter(str(each[1]) for each in results)),
        "seconds": round(seconds, 2),
        "requests_per_second": round(requests / seconds, 1),
        "latency_ms": {
            name: round(1000 * float(np.percentile(latencies, share)), 1) for name, share in (("50 %", 50), ("99 %", 99), ("100 %", 100))
        },
    }


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--model_dir", default="models/uncased_L-6_H-384_A-12_oneflow", help="encoder")
    parser.add_argument("--snapshot", help="snapshot of a training script, in place of --model_dir")
    parser.add_argument("--clients", type=positive_int, default=100, help="number of clients at once")
    parser.add_argument("--requests", type=positive_int, default=10_000, help="number of requests")
    parser.add_argument("--texts", type=positive_int, default=1, help="texts per request")
    args = parser.parse_args()
    show({"machine": machine()})
    with tempfile.TemporaryDirectory() as folder:
        snapshot = args.snapshot or os.path.join(folder, "snapshot")
        if args.snapshot is None:
            write_snapshot(snapshot, args.model_dir)
        process, address = start(snapshot)
        try:
            result = measure(address, args.clients, args.requests, args.texts)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()
    show({**result, "exit_code": process.returncode})
    return int(bool(result["lost"]))


if __name__ == "__main__":
    run(main)
