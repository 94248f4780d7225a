"""Times a training step and an inference step of ours, of OneFlow's stock layers and of PyTorch, in one run.

    BENCH_TORCH_PYTHON=/path/to/python python3 benchmarks/bench_steps.py [--cases minilm-4x128,base-24x128@8] [--modes train,predict]

Prints one JSON line per case; `compare` in benchmarks/side_by_side.py describes it. A case such as base-24x128@8 is a training step of ours
in as many parts as 8 GB of memory ask for ("parts" in its results), beside the whole step of the others. Without BENCH_TORCH_PYTHON (a
Python with torch and transformers), PyTorch is left out; "torch bfloat16" is autocast, on a CPU that computes bfloat16. The processes take
turns, except for BERT-base with 24 texts, where they run one after the other. All texts have the full length. Ours has only the word
embeddings in use (2,000 word pieces), as in the scripts; PyTorch has all 30,522. The mode "mlm" is a training step of masked language
modelling with all word embeddings on both sides, and 15 % of the tokens masked.
"""

if not __package__:
    import _root  # noqa: F401

import os
import sys

from benchmarks.side_by_side import DEVICE_HELP, Worker, compare, devices, machine, show, torch_python
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run

MODES = ("train", "predict", "mlm")
MASKED_SHARE = 0.15
SIZES = {"minilm": {"layers": 6, "hidden": 384, "heads": 12}, "base": {"layers": 12, "hidden": 768, "heads": 12}}
CASES = ("minilm-4x40", "minilm-4x128", "minilm-24x128", "minilm-24x128@2.5", "base-4x128", "base-24x128", "base-24x128@8")
APART = "base-24x128"  # one process after the other: together they do not fit into 24 GiB
BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # flags of processors that compute bfloat16
TURN_TOKENS = 512 * 384 * 384 * 6 * 6  # work per turn: small cases run several steps per turn


def parse_case(case):
    """Sizes, batch, length and memory limit (GB, or None) of a case such as "minilm-4x128" or "minilm-24x128@2.5", as a dict.

    Raises:
        UserError: the case has another form.
    """
    size, _, shape = case.partition("-")
    shape, at, limit = shape.partition("@")
    batch, _, length = shape.partition("x")
    if size not in SIZES or not batch.isdigit() or not length.isdigit() or bool(at) != limit.replace(".", "", 1).isdigit():
        raise UserError(f"--cases {case}: a case is SIZE-BATCHxLENGTH or SIZE-BATCHxLENGTH@GB, where SIZE is one of {', '.join(SIZES)}")
    return dict(SIZES[size], batch=int(batch), length=int(length), memory_limit=float(limit) if at else None)


def computes_bfloat16(path="/proc/cpuinfo"):
    """Whether the processor computes bfloat16."""
    with open(path, encoding="utf-8") as file:
        return any(line.startswith("flags") and BFLOAT16 & set(line.split()) for line in file)


def workers(job, names, threads):
    """List of functions that start the workers for a job, ours first."""
    theirs = torch_python()
    starts = {
        "ours": lambda: Worker("ours", sys.executable, "oneflow_steps.py", dict(job, implementation="ours")),
        "stock": lambda: Worker("stock", sys.executable, "oneflow_steps.py", dict(job, implementation="stock")),
    }
    if theirs:
        half = ("bfloat16",) if job["device"] == "cpu" and computes_bfloat16() else ()
        for kind in ("eager", "compile", *half):
            starts["torch " + kind] = lambda kind=kind: Worker(
                "torch " + kind, theirs, "torch_steps.py", dict(job, implementation=kind, threads=threads), OMP_NUM_THREADS=str(threads)
            )
    return [starts[name] for name in starts if name in names]


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated")
    parser.add_argument("--modes", default="train,predict", help="train, predict, mlm: comma-separated")
    parser.add_argument(
        "--workers", default="ours,stock,torch eager,torch compile,torch bfloat16", help="implementations to time (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of measured turns per implementation")
    parser.add_argument("--device", default="all", choices=("all", "cpu", "cuda"), help=DEVICE_HELP)
    args = parser.parse_args()
    show({"machine": machine()})
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    for device, use_fp16 in devices(args.device):
        for case in args.cases.split(","):
            sizes = parse_case(case)
            for mode in args.modes.split(","):
                if mode not in MODES:
                    raise UserError(f"--modes {mode}: choose from {', '.join(MODES)}")
                if sizes["memory_limit"] and (mode == "predict" or device != "cpu"):
                    continue
                work = sizes["batch"] * sizes["length"] * sizes["hidden"] ** 2 * sizes["layers"] * (2 if mode == "predict" else 6)
                steps = max(1, min(50, TURN_TOKENS // work)) if device == "cpu" else 50
                masked = round(MASKED_SHARE * sizes["length"])
                job = dict(sizes, mode=mode, words=2000, masked=masked, steps=steps, device=device, use_fp16=use_fp16)
                about = {"case": case, "mode": mode, "device": device, "mixed_precision": use_fp16, "steps_a_turn": steps}
                show(compare(about, workers(job, args.workers.split(","), threads), args.rounds, together=not case.startswith(APART)))


if __name__ == "__main__":
    run(main)
