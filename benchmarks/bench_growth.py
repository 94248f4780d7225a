"""Measures how the cost grows with batch, length, layers, domains, samples and processes, each as a factor over the smallest value.

    python3 benchmarks/bench_growth.py [--work_dir FOLDER] [--groups batch,length,layers,domains,samples,processes]

Prints a table in Markdown for docs/scaling.md. The model is a small BERT of random weights (4 layers x 256; for samples 2 layers x 64), the
texts are random words. Batch, length and layers: a training step on full rows (benchmarks/workers/oneflow_steps.py). Domains and
processes: a step of meta_finetuning.py. Samples: the whole process of preprocess.py, and the time to the first step of meta_finetuning.py.
With --work_dir, a benchmark that was interrupted continues after its last value.
"""

if not __package__:
    import _root  # noqa: F401

import contextlib
import os
import random
import shutil
import statistics
import sys
import tempfile

from benchmarks.bench_phases import STEP, choices_of
from benchmarks.runs import rows_of
from benchmarks.side_by_side import Worker, machine, show
from benchmarks.whole_process import time_command
from modeling.bert.config import BertConfig
from modeling.bert.variables import encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, VOCAB_FILE, write_variables
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from ofrecord_util.files import write_json
from ofrecord_util.json_reading import read_json

WORDS = [f"word{number}" for number in range(2000)]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
BATCH, LENGTH, LAYERS, HIDDEN = 8, 64, 4, 256
ROWS, DEV_ROWS, STEPS = 960, 48, 40  # of a run of meta_finetuning.py; the speed is that of its second half
GROUPS = {
    "batch": (4, 8, 16, 32),
    "length": (32, 64, 128, 256),
    "layers": (2, 4, 8, 12),
    "domains": (2, 4, 8, 12),
    "samples": (1_000, 10_000, 100_000),
    "processes": (1, 2),
}
TITLES = {
    "batch": f"training step, texts per batch ({LENGTH} tokens)",
    "length": f"training step, tokens per text (batches of {BATCH})",
    "layers": f"training step, encoder layers ({BATCH} x {LENGTH})",
    "domains": "step of meta_finetuning.py, domains",
    "preprocess": "preprocess.py, samples",
    "first step": "meta_finetuning.py to its first step, samples",
    "processes": "sample of meta_finetuning.py, processes with the same batch each",
}


def train_step(**changes):
    """The seconds and peak bytes of a training step, by title."""
    job = {"layers": LAYERS, "hidden": HIDDEN, "heads": 4, "batch": BATCH, "length": LENGTH, "words": len(WORDS), "steps": 5, **changes}
    worker = Worker(
        "ours", sys.executable, "oneflow_steps.py", dict(job, implementation="ours", mode="train", device="cpu", use_fp16=False)
    )
    for _ in range(6):
        worker.turn()
    worker.end()
    if worker.problem:
        raise UserError(f"oneflow_steps.py: {worker.problem}")
    return {"seconds": statistics.median(worker.turns[1:]), "peak_bytes": worker.peak_bytes}


def write_encoder(folder, layers, hidden):
    """Writes a BERT of random weights, unless it is there."""
    if not os.path.isdir(folder):
        config = BertConfig(
            len(PIECES), hidden, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=4 * hidden, max_position_embeddings=128
        )
        values = {name: initial_value(name, shape, 1) for name, shape in encoder_shapes(config).items()}
        write_variables(folder, values, {CONFIG_FILE: config.to_json(), VOCAB_FILE: "".join(piece + "\n" for piece in PIECES)})
    return folder


def write_texts(folder, rows, domains):
    """Writes `rows` rows of random words for training, and a few for dev. Domains and labels take turns."""
    os.makedirs(folder, exist_ok=True)
    draw = random.Random(f"{rows} {domains}")
    for split, count in (("train", rows), ("dev", DEV_ROWS)):
        with open(os.path.join(folder, split + ".csv"), "w", encoding="utf-8") as file:
            for row in range(count):
                words = " ".join(draw.choices(WORDS, k=draw.randint(4, 24)))
                file.write(f"{words}\tdomain{row % domains}\t{row // domains % 2}\n")
    return folder


def common_flags(folder, rows, domains, layers=LAYERS, hidden=HIDDEN):
    """Flags of a script for synthetic data, which are written first."""
    model = write_encoder(os.path.join(folder, f"encoder-{layers}-{hidden}"), layers, hidden)
    data = write_texts(os.path.join(folder, f"data-{rows}-{domains}"), rows, domains)
    return [
        "--task_name", "growth", "--data_dir", data, "--model_load_dir", model, "--seq_length", "64", "--device", "cpu",
        "--resave_ofrecord",
    ]  # fmt: skip


def meta_finetuning(folder, common, steps, *flags):
    """(`Timing`, run folder) of meta_finetuning.py for some steps without scores. It prints a line for each half of them."""
    output = os.path.join(folder, "run")
    shutil.rmtree(output, ignore_errors=True)
    short = ["--max_steps", str(steps), "--loss_print_every_n_iter", str(-(-steps // 2)), "--dev_every_step_num", "1000000"]
    command = [sys.executable, "meta_finetuning.py", *common, *short, "--num_epochs", "100"]
    command += ["--batch_size_per_device", str(BATCH)]
    return time_command([*command, "--use_sample_weights", "false", "--model_save_dir", output, *flags], STEP), output


def second_half(output):
    """Seconds per sample in the second half of a run."""
    return 1 / [row for row in rows_of(output) if row["kind"] == "train"][-1]["samples_per_second"]


def measure(group, value, folder):
    """The results for one value: dict of title -> {"seconds", "peak_bytes"}."""
    if group in ("batch", "length", "layers"):
        return {group: train_step(**{group: value})}
    if group == "samples":
        common = common_flags(folder, value, 3, layers=2, hidden=64)
        whole = time_command([sys.executable, "preprocess.py", *common, "--log_dir", folder])
        timing, _ = meta_finetuning(folder, common, 1)
        return {
            "preprocess": {"seconds": whole.seconds, "peak_bytes": whole.peak_bytes},
            "first step": {"seconds": timing.first, "peak_bytes": timing.peak_bytes},
        }
    domains, processes = (value, 1) if group == "domains" else (3, value)
    flags = ["--gpu_num_per_node", str(processes)]
    timing, output = meta_finetuning(folder, common_flags(folder, ROWS, domains), STEPS, *flags)
    samples = BATCH if group == "domains" else 1
    return {group: {"seconds": samples * second_half(output), "peak_bytes": timing.peak_bytes}}


def print_table(results):
    """Prints the results, dict of title -> dict of value -> {"seconds", "peak_bytes"}, in Markdown."""
    print("| what | value | times the smallest | seconds | cost, times the smallest | peak GB of the largest process |")
    print("| --- | --- | --- | --- | --- | --- |")
    for title, cells in results.items():
        (least, first), *_ = cells.items()
        for value, cell in cells.items():
            size, cost = value / least, cell["seconds"] / first["seconds"]
            print(f"| {TITLES[title]} | {value:,} | {size:.3g} | {cell['seconds']:.3g} | {cost:.2f} | {cell['peak_bytes'] / 1e9:.2f} |")


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("--groups", default=",".join(GROUPS), help="what grows, comma-separated (default: all)")
    parser.add_argument("--work_dir", help="folder for data and results; a second call continues there (default: a temporary one)")
    args = parser.parse_args()
    groups = choices_of(args.groups, "groups", GROUPS)
    show({"machine": machine()})
    with contextlib.ExitStack() as stack:
        folder = os.path.abspath(args.work_dir or stack.enter_context(tempfile.TemporaryDirectory()))
        os.makedirs(folder, exist_ok=True)
        results = {}
        for group in groups:
            for value in GROUPS[group]:
                path = os.path.join(folder, f"{group}-{value}.json")
                if not os.path.exists(path):
                    write_json(path, measure(group, value, folder))
                found = read_json(path, "remove it")
                show({"group": group, "value": value, **found})
                for title, cell in found.items():
                    results.setdefault(title, {})[value] = cell
    print_table(results)


if __name__ == "__main__":
    run(main)
