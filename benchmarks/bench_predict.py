"""Times predictions as whole processes: tools/predict.py, ONNX Runtime (float32, int8), and transformers (float32, bfloat16).

    BENCH_TORCH_PYTHON=/path/to/python python3 benchmarks/bench_predict.py [--snapshot SNAPSHOT] [--model_dir models/…] \\
        [--short FILE] [--long FILE] [--runs 3] [--flat 200000]

Prints a table: seconds, CPU seconds, peak memory, and how many labels differ from ours. The processes take turns; the table has the
fastest of the runs. Without --snapshot the encoder of --model_dir gets a classifier of random weights, with which many texts lie near the
border between the labels. --model_dir 12x768 stands for a BERT of this size with random weights. Without --short and --long, the texts are
the bundled sentences, and the same joined to reviews. BENCH_TORCH_PYTHON needs torch, transformers, onnx and onnxruntime; without it these
rows are "not measured". --flat labels this number of lines with ours and prints the peak memory after each quarter of them, to show that it
does not grow.
"""

if not __package__:
    import _root  # noqa: F401

import glob
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.side_by_side import ROOT, WORKERS, machine, show, torch_python
from benchmarks.whole_process import time_command
from modeling.bert.config import BertConfig
from modeling.bert.names import CLASSIFIER
from modeling.bert.variables import classifier_shapes, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, Snapshot, write_variables
from modeling.cli import interruption
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import positive_int
from ofrecord_util.tasks import Task
from tools.convert_checkpoint import HUGGING_FACE, convert

LENGTH = 128
SENTENCES, REVIEWS, JOINED = 10_000, 3_000, 5
OURS = "tools/predict.py"
THEIRS = {
    "ONNX Runtime fp32": "onnx",
    "transformers fp32": "transformers",
    "transformers bfloat16": "transformers-bfloat16",
    "ONNX Runtime int8": "onnx-int8",
}


def bundled_sentences():
    """The sentences of the bundled test splits, without an end."""
    lines = []
    for path in sorted(glob.glob(os.path.join(ROOT, "data", "k-shot-single", "*", "*", "test.csv"))):
        with open(path, encoding="utf-8") as file:
            lines += [line.split("\t")[0] for line in file]
    return itertools.cycle(lines)


def read_lines(path):
    """The lines of a text file."""
    try:
        with open(path, encoding="utf-8") as file:
            return [line.rstrip("\n") for line in file]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): give another --short or --long") from error


def write_snapshot(folder, model_dir):
    """A snapshot with a random classifier, from an encoder or of a size such as 12x768."""
    encoder = None
    vocabulary = os.path.join("models", "uncased_L-6_H-384_A-12_oneflow", VOCAB_FILE)
    layers, _, width = model_dir.partition("x")
    if layers.isdigit() and width.isdigit():
        config = BertConfig(num_hidden_layers=int(layers), hidden_size=int(width), intermediate_size=4 * int(width))
    else:
        encoder = Snapshot(model_dir)
        config, vocabulary = encoder.config(), encoder.vocab_file()
    shapes = {**encoder_shapes(config), **classifier_shapes(config, 2)}
    values = {
        name: encoder.read(name, shape) if encoder and name not in CLASSIFIER else initial_value(name, shape, 1)
        for name, shape in shapes.items()
    }
    with open(vocabulary, encoding="utf-8") as file:
        words = file.read()
    about = {**Task("predict", ("any",), ("0", "1")).to_dict(), "seq_length": LENGTH, "do_lower_case": True}
    write_variables(folder, values, {CONFIG_FILE: config.to_json(), VOCAB_FILE: words, TASK_FILE: json.dumps(about)})


def commands(snapshot, folder, theirs):
    """dict of row -> function of an input and an output path that returns its command, or None if it cannot be measured."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0)))

    def ours(source, target):
        return [sys.executable, OURS, "--model_load_dir", snapshot, "--seq_length", str(LENGTH), "--input", source, "--output", target]

    def other(kind):
        worker = [theirs, os.path.join(WORKERS, "torch_predict.py"), "--model_dir", folder, "--kind", kind]
        return lambda source, target: [*worker, "--threads", threads, "--input", source, "--output", target]

    return {OURS: ours, **{row: other(kind) if theirs else None for row, kind in THEIRS.items()}}


def differing(path, expected):
    """Number of lines whose label differs."""
    return sum(ours.split("\t")[0] != other.split("\t")[0] for ours, other in zip(read_lines(expected), read_lines(path)))


def measure(rows, source, folder, runs):
    """dict of row -> (`Timing` of its fastest run, number of labels that differ from ours), or the reason why there is none."""
    timings, problems = {}, {}
    for number in range(runs):
        for row, command in rows.items():
            if command is None or row in problems:
                problems.setdefault(row, "not measured")
                continue
            try:
                timing = time_command(command(source, os.path.join(folder, row.replace("/", "-") + ".out")))
            except UserError as error:
                problems[row] = f"failed: {str(error)[-80:]}"
                continue
            timings.setdefault(row, []).append(timing)
        show({"run": number + 1, **{row: round(found[-1].seconds, 1) for row, found in timings.items()}})
    outputs = {row: os.path.join(folder, row.replace("/", "-") + ".out") for row in timings}
    least = {row: min(found, key=lambda timing: timing.seconds) for row, found in timings.items()}
    return {row: problems.get(row) or (least[row], differing(outputs[row], outputs[OURS])) for row in rows}


def peaks(command, count):
    """Runs a command that prints `count` lines.

    Returns:
        dict: "seconds" of the whole process, and "peak_gb", its peak memory after each quarter of the lines.
    Raises:
        UserError: the command failed.
    """
    started, found = time.perf_counter(), []
    with interruption.deferred(), subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        quarters = [-(-count * quarter // 4) for quarter in (1, 2, 3)]
        for number, _ in enumerate(process.stdout, 1):
            if number in quarters:
                found.append(peak_bytes(process.pid))
            if interruption.received():
                process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    interruption.check()
    if process.returncode:
        raise UserError(f"{command[1]}: exit code {process.returncode}")
    found.append(usage.ru_maxrss * 1024)
    return {"seconds": round(time.perf_counter() - started, 1), "peak_gb": [round(peak / 1e9, 3) for peak in found]}


def peak_bytes(process):
    """The peak memory of a running process so far."""
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def print_table(results):
    """Prints the results of each text file, dict of name -> `measure`'s, in Markdown."""
    print(f"| seconds / CPU seconds / GB / labels that differ | {' | '.join(results)} |")
    print("| --- " * (len(results) + 1) + "|")
    for row in (OURS, *THEIRS):
        cells = [found[row] if isinstance(found[row], str) else _cell(*found[row]) for found in results.values()]
        print(f"| {row} | {' | '.join(cells)} |")


def _cell(timing, different):
    return f"{timing.seconds:.1f} / {timing.cpu_seconds:.1f} / {timing.peak_bytes / 1e9:.2f} / {different}"


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--model_dir", default="models/uncased_L-6_H-384_A-12_oneflow", help="encoder, or a size such as 12x768")
    parser.add_argument("--snapshot", help="snapshot of a training script, in place of --model_dir")
    parser.add_argument("--short", help="file of short sentences, one per line")
    parser.add_argument("--long", help="file of reviews, one per line")
    parser.add_argument("--runs", type=int, default=3, help="number of runs per implementation")
    parser.add_argument("--rows", default=",".join((OURS, *THEIRS)), help="rows of the table to measure (default: all)")
    parser.add_argument("--flat", type=positive_int, help="number of lines to label with ours alone")
    args = parser.parse_args()
    show({"machine": machine()})
    theirs = torch_python()
    with tempfile.TemporaryDirectory() as folder:
        snapshot, other = args.snapshot, os.path.join(folder, "hugging_face")
        if not snapshot:
            snapshot = os.path.join(folder, "snapshot")
            write_snapshot(snapshot, args.model_dir)
        snapshot = os.path.abspath(snapshot)
        if theirs:
            convert(snapshot, other, to=HUGGING_FACE, do_lower_case=True)
            time_command([theirs, os.path.join(WORKERS, "torch_predict.py"), "--model_dir", other, "--kind", "export"])
        sentences = bundled_sentences()
        files = {
            "one text": ["a moving film"],
            f"{SENTENCES:,} sentences": read_lines(args.short) if args.short else list(itertools.islice(sentences, SENTENCES)),
            f"{REVIEWS:,} reviews, length {LENGTH}": read_lines(args.long)
            if args.long
            else [" ".join(itertools.islice(sentences, JOINED)) for _ in range(REVIEWS)],
        }
        rows, results = commands(snapshot, other, theirs), {}
        rows = {row: command if row in args.rows.split(",") else None for row, command in rows.items()}
        for name, texts in files.items():
            source = os.path.join(folder, "input.txt")
            with open(source, "w", encoding="utf-8") as file:
                file.writelines(text + "\n" for text in texts)
            results[name] = measure(rows, source, folder, args.runs)
        print_table(results)
        if args.flat:
            texts = itertools.cycle(files[f"{SENTENCES:,} sentences"])
            with open(source, "w", encoding="utf-8") as file:
                file.writelines(text + "\n" for text in itertools.islice(texts, args.flat))
            show({"lines": args.flat, **peaks(commands(snapshot, other, None)[OURS](source, "/dev/stdout"), args.flat)})


if __name__ == "__main__":
    run(main)
