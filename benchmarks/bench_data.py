"""Times reading and writing: text to records, records to arrays, snapshots, the outputs of a teacher.

    python3 benchmarks/bench_data.py --data_dir data/SENTI --task_name senti

Prints one JSON line per case, with medians over --runs. The split is copied to a temporary folder first. The snapshot has the sizes of
BERT-base and random values. The teacher has 6 layers x 384; three of them are written for the first --teacher_rows texts. Written files are
synced to disk, as in all scripts. Files are read just after they were written, so they come from memory.
"""

if not __package__:
    import _root  # noqa: F401

import math
import os
import shutil
import statistics
import tempfile
import time

import numpy as np

from benchmarks.side_by_side import machine, show
from modeling.bert.config import BertConfig
from modeling.bert.variables import encoder_shapes
from modeling.checkpoints.snapshot import Snapshot, write_variables
from modeling.checkpoints.teacher_output_writer import TeacherOutputWriter
from modeling.checkpoints.teacher_outputs import Layout, TeacherOutputs
from modeling.cli.command_line import Parser
from modeling.cli.errors import run
from modeling.objectives.teacher import ATTENTION, HIDDEN, LOGITS, REPRESENTATION, Knowledge
from ofrecord_util.dataset import Dataset
from ofrecord_util.reader import read_split
from ofrecord_util.reading import size_text
from ofrecord_util.tasks import resolve_task
from ofrecord_util.text_files import find_text
from ofrecord_util.tokenization import Tokenizer


def measure(case, job, runs, count=None):
    """Prints the median seconds of a job, and with `count`, the number of samples, also the samples per second."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    rate = {} if count is None else {"samples": count, "samples_per_second": round(count / median)}
    spread = {"least": round(min(seconds), 4), "largest": round(max(seconds), 4), "runs": runs}
    show({"case": case, "seconds": round(median, 4), **spread, **rate})


def measure_teacher_outputs(folder, real, length, runs):
    """Times writing and reading the outputs of a teacher, in batches of 24 texts. real: int [N], tokens of each text."""
    layout = Layout(Knowledge((1, 3, 5), hidden=True, attention=True, representation=True), 384, 12, 2)
    idxs, batches = np.arange(len(real), dtype=np.int32), np.array_split(np.arange(len(real)), -(-len(real) // 24))
    draw, largest = np.random.default_rng(0), max(map(len, batches))
    shapes = {LOGITS: (2,), REPRESENTATION: (384,)}
    for layer in layout.knowledge.layers:
        shapes.update({HIDDEN.format(layer): (length, 384), ATTENTION.format(layer): (12, length, length)})
    outputs = {name: draw.standard_normal((largest, *shape)).astype(np.float32) for name, shape in shapes.items()}

    def write():
        with TeacherOutputWriter(folder, layout, idxs, real, {}) as writer:
            for rows in batches:
                writer.write(rows, outputs)

    write()
    size = size_text(sum(np.dtype(dtype).itemsize * math.prod(shape) for shape, dtype in layout.arrays(real).values()))
    measure(f"teacher outputs written, {size}", write, runs, len(real))
    opened = TeacherOutputs(folder)
    measure(
        "teacher outputs to arrays of batches",
        lambda: [opened.batch(idxs[rows], int(real[rows].max()), layout.knowledge) for rows in batches],
        runs,
        len(real),
    )


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--data_dir", default="data/k-shot-cross/g1/16-42", help="folder of train.csv")
    parser.add_argument("--vocab_file", default="models/uncased_L-6_H-384_A-12_oneflow/vocab.txt")
    parser.add_argument("--task_name", default="g1")
    parser.add_argument("--seq_length", type=int, default=128)
    parser.add_argument("--teacher_rows", type=int, default=480)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    show({"machine": machine()})
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(find_text(args.data_dir, "train"), folder)
        task = resolve_task(args.task_name, folder)
        count = 0

        def write():
            nonlocal count
            tokenizer = Tokenizer(args.vocab_file)
            records = Dataset(folder, task, tokenizer, args.seq_length, resave=True, log=lambda _line: None).records("train")
            count = len(records)

        write()
        measure("text to checked records, vocabulary loaded each time", write, args.runs, count)
        measure("records to arrays", lambda: read_split(folder, "train"), args.runs, count)

        shapes = encoder_shapes(BertConfig())
        draw = np.random.default_rng(0)
        values = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        path = os.path.join(folder, "snapshot")
        size = sum(value.nbytes for value in values.values())
        measure(f"snapshot of BERT-base written, {size / 1e6:.0f} MB", lambda: write_variables(path, values), args.runs)

        def load():
            snapshot = Snapshot(path)
            for name, shape in shapes.items():
                snapshot.read(name, shape)

        measure("snapshot of BERT-base read", load, args.runs)

        real = read_split(folder, "train").lengths[: args.teacher_rows]
        measure_teacher_outputs(os.path.join(folder, "teacher"), real, args.seq_length, args.runs)


if __name__ == "__main__":
    run(main)
