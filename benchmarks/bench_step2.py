"""Step 2 of Meta Fine-tuning as documented on g1, whole processes: ours and the same job in PyTorch, padded to 128 and to the longest
text of a batch.

    BENCH_TORCH_PYTHON=/path/to/python python3 benchmarks/bench_step2.py --model_dir models/uncased_L-6_H-384_A-12_oneflow \\
        --data_dir data/k-shot-cross/g1/16-42 [--num_epochs 63] [--runs 5]

Prints one JSON line. Seconds are of whole processes, imports, records and compiling of the graphs included. The runs of the three
take turns. Step 1 is run first and not counted. Without BENCH_TORCH_PYTHON ours is timed alone.
"""

import os
import statistics
import sys
import tempfile

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from benchmarks.side_by_side import WORKERS, machine, show, torch_python
from benchmarks.whole_process import time_command
from modeling.command_line import Parser
from modeling.errors import run
from tools.convert_checkpoint import HUGGING_FACE, convert


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("--model_dir", default="models/uncased_L-6_H-384_A-12_oneflow", help="snapshot of an uncased BERT")
    parser.add_argument("--data_dir", default="data/k-shot-cross/g1/16-42", help="folder of train.csv and dev.csv")
    parser.add_argument("--num_epochs", type=int, default=63, help="passes over the training split")
    parser.add_argument("--runs", type=int, default=5, help="runs of each")
    args = parser.parse_args()
    show({"machine": machine()})
    model, data = os.path.abspath(args.model_dir), os.path.abspath(args.data_dir)
    theirs = torch_python()
    with tempfile.TemporaryDirectory() as folder:
        common = ["--task_name", "g1", "--model_load_dir", model, "--data_dir", data, "--seed", "42", "--seq_length=128"]
        time_command([sys.executable, "preprocess.py", *common, "--resave_ofrecord", "--log_dir", folder])

        def ours(number):
            return [
                sys.executable, "meta_finetuning.py", *common, "--num_epochs", str(args.num_epochs), "--batch_size_per_device", "4",
                "--dev_batch_size_per_device", "2", "--dev_every_step_num", "100", "--learning_rate", "5e-5", "--resave_ofrecord",
                "--device", "cpu", "--model_save_dir", os.path.join(folder, f"run-{number}"),
            ]  # fmt: skip

        jobs = {"ours": ours}
        if theirs:
            convert(model, os.path.join(folder, "hf"), to=HUGGING_FACE, do_lower_case=True)
            script = os.path.join(WORKERS, "torch_mft.py")
            for padding in ("128", "longest"):
                jobs["torch padded to " + padding] = lambda number, padding=padding: [
                    theirs, script, "--model_dir", os.path.join(folder, "hf"), "--data_dir", data, "--padding", padding,
                    "--num_epochs", str(args.num_epochs), "--threads", str(len(os.sched_getaffinity(0))),
                ]  # fmt: skip
        found = {name: [] for name in jobs}
        for number in range(args.runs):
            for name, job in jobs.items():
                found[name].append(time_command(job(number)))
    medians = {name: statistics.median(timing.seconds for timing in values) for name, values in found.items()}
    results = {
        name: {
            "seconds": round(medians[name], 1),
            "least": round(min(timing.seconds for timing in values), 1),
            "largest": round(max(timing.seconds for timing in values), 1),
            "peak_gb": round(max(timing.peak_bytes for timing in values) / 1e9, 2),
            **({} if name == "ours" else {"ours_over_this": round(medians["ours"] / medians[name], 3)}),
        }
        for name, values in found.items()
    }
    show({"case": "step 2 on g1, whole process", "num_epochs": args.num_epochs, "runs": args.runs, "results": results})


if __name__ == "__main__":
    run(main)
