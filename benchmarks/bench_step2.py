"""Times step 2 of Meta Fine-tuning, as documented on g1, as a whole process: ours, and the same work in PyTorch with padding to 128 and to
the longest text of each batch.

    BENCH_TORCH_PYTHON=/path/to/python python3 benchmarks/bench_step2.py --model_dir models/uncased_L-6_H-384_A-12_oneflow \\
        --data_dir data/k-shot-cross/g1/16-42 [--num_epochs 63] [--runs 5] [--paddings longest]

Prints one JSON line for the CPU and, if there is a GPU, one line for float32 and one for mixed precision on it. Seconds are those of whole
processes, including imports, records and the compilation of the graphs. The three implementations take turns. Step 1 runs first and is not
counted. Without BENCH_TORCH_PYTHON, only ours is timed.
"""

if not __package__:
    import _root  # noqa: F401

import os
import statistics
import sys
import tempfile

from benchmarks.side_by_side import DEVICE_HELP, WORKERS, devices, machine, show, torch_python
from benchmarks.whole_process import time_command
from modeling.cli.command_line import Parser
from modeling.cli.errors import run
from tools.convert_checkpoint import HUGGING_FACE, convert


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--model_dir", default="models/uncased_L-6_H-384_A-12_oneflow", help="snapshot of an uncased BERT")
    parser.add_argument("--data_dir", default="data/k-shot-cross/g1/16-42", help="folder of train.csv and dev.csv")
    parser.add_argument("--num_epochs", type=int, default=63, help="passes over the training split")
    parser.add_argument("--runs", type=int, default=5, help="number of runs per implementation")
    parser.add_argument("--paddings", default="128,longest", help="padding in PyTorch: 128, longest or both (default)")
    parser.add_argument("--device", default="all", choices=("all", "cpu", "cuda"), help=DEVICE_HELP)
    args = parser.parse_args()
    show({"machine": machine()})
    model, data = os.path.abspath(args.model_dir), os.path.abspath(args.data_dir)
    with open(os.path.join(data, "train.csv"), encoding="utf-8") as text:
        rows = sum(1 for _ in text)
    theirs = torch_python()
    with tempfile.TemporaryDirectory() as folder:
        common = ["--task_name", "g1", "--model_load_dir", model, "--data_dir", data, "--seed", "42", "--seq_length=128"]
        time_command([sys.executable, "preprocess.py", *common, "--resave_ofrecord", "--log_dir", folder])

        if theirs:
            convert(model, os.path.join(folder, "hf"), to=HUGGING_FACE, do_lower_case=True)

        def ours(number, device, half):
            return [
                sys.executable, "meta_finetuning.py", *common, "--num_epochs", str(args.num_epochs), "--batch_size_per_device", "4",
                "--dev_batch_size_per_device", "2", "--dev_every_step_num", "100", "--learning_rate", "5e-5", "--resave_ofrecord",
                "--device", device, *half, "--model_save_dir", os.path.join(folder, f"run-{device}-{len(half)}-{number}"),
            ]  # fmt: skip

        def torch(padding, device, half):
            return [
                theirs, os.path.join(WORKERS, "torch_mft.py"), "--model_dir", os.path.join(folder, "hf"), "--data_dir", data,
                "--padding", padding, "--num_epochs", str(args.num_epochs), "--threads", str(len(os.sched_getaffinity(0))),
                "--device", device, *half,
            ]  # fmt: skip

        for device, use_fp16 in devices(args.device):
            half = ["--use_fp16"] if use_fp16 else []
            found = {"ours": []}
            for number in range(args.runs):
                found["ours"].append(time_command(ours(number, device, half)))
                for padding in args.paddings.split(",") if theirs else ():
                    found.setdefault(f"torch padded to {padding}", []).append(time_command(torch(padding, device, half)))
            about = {"case": "step 2 on g1, whole process", "device": device, "mixed_precision": use_fp16, "num_epochs": args.num_epochs}
            show({**about, "runs": args.runs, "results": summary(found, rows * args.num_epochs)})


def summary(found, samples):
    """The results of a device.

    Args:
        found: dict of name -> list of `Timing`, ours first.
        samples: number of samples that each run trains on.
    """
    medians = {name: statistics.median(timing.seconds for timing in timings) for name, timings in found.items()}
    return {
        name: {
            "seconds": round(medians[name], 1),
            "least": round(min(timing.seconds for timing in timings), 1),
            "largest": round(max(timing.seconds for timing in timings), 1),
            "samples_per_second": round(samples / medians[name], 2),
            "peak_gb": round(max(timing.peak_bytes for timing in timings) / 1e9, 2),
            **({} if name == "ours" else {"ours_over_this": round(medians["ours"] / medians[name], 3)}),
        }
        for name, timings in found.items()
    }


if __name__ == "__main__":
    run(main)
