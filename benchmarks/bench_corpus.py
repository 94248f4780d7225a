"""Measures the memory of a corpus that need not fit into it: writing its records, reading its batches, and training a tiny model on it.

    python3 benchmarks/bench_corpus.py [--work_dir FOLDER] [--gigabytes 0.25,1,4] [--memory_limit 1.5]

Prints a table in Markdown: seconds and peak memory of each part, for made-up text of each size. Writing and reading are processes of their
own; the training is 20 steps of recipes/pretrain_mlm.py with a BERT of 2 layers x 64, on the records that were written. With
--memory_limit, writing and reading get no more address space than that, and fail if they need more. A text needs its size on the disk, and
its records half of it. With --work_dir, a benchmark that was interrupted continues after its last part.
"""

if not __package__:
    import _root  # noqa: F401

import contextlib
import json
import os
import random
import shutil
import sys
import tempfile

from benchmarks.bench_growth import WORDS, write_encoder, write_texts
from benchmarks.side_by_side import WORKERS, machine, show
from benchmarks.whole_process import time_command
from modeling.checkpoints.snapshot import VOCAB_FILE
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import positive_float
from ofrecord_util.corpus_kinds import KEEP
from ofrecord_util.files import replacing, write_json
from ofrecord_util.json_reading import read_json

LENGTH, BATCH, STEPS, WINDOW = 128, 32, 20, 65_536
PARTS = WRITE, _, TRAIN = ("write", "read", "train")
GIGABYTE = 10**9


def write_text(path, size):
    """Writes about `size` bytes of lines of random words, unless they are there."""
    if os.path.exists(path):
        return
    draw, written = random.Random(5), 0
    # lines are drawn once, because drawing all of them would take longer than what is measured
    lines = [" ".join(draw.choices(WORDS, k=draw.randint(10, 400))) + "\n" for _ in range(2000)]
    with replacing(path) as file:
        while written < size:
            part = "".join(draw.choices(lines, k=500)).encode("ascii")
            file.write(part)
            written += len(part)


def command_of(part, folder, text, limit):
    """The command of a part.

    Args:
        folder: of the data and the records.
        text: path of the corpus.
        limit: GB of address space, or None.
    """
    model = write_encoder(os.path.join(os.path.dirname(folder), "encoder"), 2, 64)
    if part != TRAIN:
        job = {"part": part, "data_dir": folder, "text": text, "vocabulary": os.path.join(model, VOCAB_FILE), "memory_limit": limit}
        job.update(length=LENGTH, batch=BATCH, window=WINDOW)
        return [sys.executable, os.path.join(WORKERS, "corpus_records.py"), json.dumps(job)]
    output = os.path.join(folder, "run")
    shutil.rmtree(output, ignore_errors=True)
    return [
        sys.executable, "recipes/pretrain_mlm.py", "--task_name", "growth", "--data_dir", folder, "--model_load_dir", model,
        "--device", "cpu", "--corpus_file", text, "--evaluation_text", KEEP, "--seq_length", str(LENGTH),
        "--batch_size_per_device", str(BATCH), "--num_epochs", "1", "--max_steps", str(STEPS), "--dev_every_step_num", str(STEPS),
        "--model_save_dir", output, "--shuffle_window", str(WINDOW),
    ]  # fmt: skip


def measure(size, folder, limit):
    """dict of part -> {"seconds", "peak_bytes"} for a text of `size` GB. Each part is stored as soon as it is measured."""
    text, data = os.path.join(folder, f"text-{size}.txt"), os.path.join(folder, f"data-{size}")
    found = {}
    for part in PARTS:
        path = os.path.join(folder, f"corpus-{size}-{part}.json")
        if not os.path.exists(path):
            write_text(text, size * GIGABYTE)
            write_texts(data, 6, 1)
            if part != WRITE and not os.path.exists(os.path.join(data, "ofrecord")):
                raise UserError(f"{data}: its records are gone: remove {folder}/corpus-{size}-*.json")
            timing = time_command(command_of(part, data, text, limit))
            own = {} if part == TRAIN else json.loads(timing.output.splitlines()[-1])
            write_json(path, {"seconds": timing.seconds, "peak_bytes": timing.peak_bytes, **own})
        found[part] = read_json(path, "remove it")
        show({"gigabytes": size, "part": part, **found[part]})
    if os.path.exists(text):
        os.remove(text)
    shutil.rmtree(data, ignore_errors=True)
    return found


def print_table(results):
    """Prints the results, dict of GB -> dict of part -> {"seconds", "peak_bytes"}, in Markdown."""
    print("| part | GB of text | seconds | peak GB | peak, times that of the smallest text |")
    print("| --- | --- | --- | --- | --- |")
    first = next(iter(results.values()))
    for part in PARTS:
        for size, cells in results.items():
            cell, least = cells[part], first[part]["peak_bytes"]
            print(f"| {part} | {size:g} | {cell['seconds']:.3g} | {cell['peak_bytes'] / 1e9:.2f} | {cell['peak_bytes'] / least:.2f} |")


def sizes_of(value):
    """The list of --gigabytes, ascending."""
    return sorted(set(map(positive_float, value.split(","))))


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("--gigabytes", type=sizes_of, default="0.25,1,4", help="sizes of the text, comma-separated")
    parser.add_argument("--memory_limit", type=positive_float, help="GB of address space of writing and of reading (default: no limit)")
    parser.add_argument("--work_dir", help="folder for data and results; a second call continues there (default: a temporary one)")
    args = parser.parse_args()
    show({"machine": machine(), "memory_limit": args.memory_limit})
    with contextlib.ExitStack() as stack:
        folder = os.path.abspath(args.work_dir or stack.enter_context(tempfile.TemporaryDirectory()))
        os.makedirs(folder, exist_ok=True)
        print_table({size: measure(size, folder, args.memory_limit) for size in args.gigabytes})


if __name__ == "__main__":
    run(main)
