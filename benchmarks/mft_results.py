"""Measures Meta Fine-tuning against fine-tuning each domain alone and against plain mixing, over several seeds
(docs/results.md).

    python3 benchmarks/mft_results.py --model_dir models/uncased_L-6_H-384_A-12_oneflow --data_dir data --output_dir
    output/mft_results

DATA_DIR holds k-shot-cross/g1/16-42 and k-shot-single/{SST-2,MR,CR}/16-42. Each job is one of the documented commands
in a process of its own with one thread; jobs whose result is there already are not run again. Prints the table in
Markdown at the end.
"""

import argparse
import concurrent.futures
import glob
import json
import os
import subprocess
import sys
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOMAINS = {"sst-2": "SST-2", "mr": "MR", "cr": "CR"}
META = {  # name of the row -> flags of step 2
    "mixing": ["--use_domain_loss", "false", "--use_sample_weights", "false"],
    "mft": [],
    "mft-normalized": ["--normalize_sample_weights"],
    "scores-only": ["--use_domain_loss", "false"],
    "domain-only": ["--use_sample_weights", "false"],
    "lambda-1": ["--normalize_sample_weights", "--domain_loss_weight", "1.0"],
    "last-layer": ["--normalize_sample_weights", "--domain_layers", "5"],
}


def run_script(flags, folder, nice):
    """Runs one script into `folder`; returns its metrics rows. A folder with a finished run is taken as it is."""
    done = os.path.join(folder, "seconds.json")
    if not os.path.exists(done):
        if os.path.isdir(folder):
            os.rename(folder, f"{folder}.unfinished-{os.getpid()}-{time.time_ns()}")
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        started = time.time()
        command = [sys.executable] + flags + ["--model_save_dir", folder]
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        result = subprocess.run(
            ["nice", "-n", str(nice)] + command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if result.returncode:
            raise SystemExit("{}\n{}".format(" ".join(command), result.stdout[-2000:]))
        with open(done, "w") as f:
            json.dump({"seconds": round(time.time() - started, 1), "command": " ".join(flags)}, f)
    with open(os.path.join(folder, "metrics.jsonl")) as f:
        return [json.loads(line) for line in f]


class Grid:
    """All jobs of one seed, as methods that call each other in the order in which they depend on one another."""

    def __init__(self, args, seed):
        self.args, self.seed = args, seed

    def _common(self, script, task, data, snapshot):
        data_dir = os.path.join(os.path.abspath(self.args.data_dir), data, "16-42")
        return [
            script,
            "--task_name",
            task,
            "--model_load_dir",
            snapshot,
            "--data_dir",
            data_dir,
            "--seed",
            str(self.seed),
            "--seq_length",
            "128",
        ]

    def _folder(self, *parts):
        return os.path.join(os.path.abspath(self.args.output_dir), str(self.seed), *parts)

    def meta(self, row):
        """Step 2 with the flags of a row; returns (folder, rows)."""
        folder = self._folder("meta-" + row)
        flags = self._common("meta_finetuning.py", "g1", "k-shot-cross/g1", os.path.abspath(self.args.model_dir))
        flags += [
            "--num_epochs",
            str(self.args.meta_epochs),
            "--batch_size_per_device",
            "4",
            "--dev_batch_size_per_device",
            "16",
            "--dev_every_step_num",
            "100",
            "--learning_rate",
            str(self.args.meta_learning_rate),
            "--loss_print_every_n_iter",
            "50",
        ]
        return folder, run_script(flags + META[row], folder, self.args.nice)

    def finetune(self, row, domain, snapshot, learning_rate):
        """Step 3; returns the test accuracy of the snapshot that is best on dev."""
        flags = self._common("finetuning.py", domain, "k-shot-single/" + DOMAINS[domain], snapshot)
        flags += [
            "--num_epochs",
            str(self.args.ft_epochs),
            "--batch_size_per_device",
            str(self.args.ft_batch_size),
            "--dev_batch_size_per_device",
            "16",
            "--eval_batch_size_per_device",
            "32",
            "--dev_every_step_num",
            "32",
            "--learning_rate",
            str(learning_rate),
            "--loss_print_every_n_iter",
            "32",
        ]
        rows = run_script(flags, self._folder(f"ft-{row}-{domain}"), self.args.nice)
        return [r for r in rows if r["kind"] == "test"][0]["accuracy"]

    def direct(self, row, domain, snapshot):
        """The meta learner itself on a domain's test split."""
        flags = self._common("finetuning.py", domain, "k-shot-single/" + DOMAINS[domain], snapshot)
        flags += [
            "--do_train",
            "false",
            "--do_eval",
            "--dev_batch_size_per_device",
            "16",
            "--eval_batch_size_per_device",
            "32",
        ]
        rows = run_script(flags, self._folder(f"direct-{row}-{domain}"), self.args.nice)
        return [r for r in rows if r["kind"] == "test"][0]["accuracy"]

    def run(self, row):
        """All test accuracies of one row of the table: dict of (name, domain) -> accuracy."""
        if row == "single":
            snapshot = os.path.abspath(self.args.model_dir)
            return {
                ("single", d): self.finetune("single", d, snapshot, self.args.single_learning_rate) for d in DOMAINS
            }
        folder, _ = self.meta(row)
        snapshot = glob.glob(os.path.join(folder, "snapshot_best_*"))[0]
        result = {}
        for domain in DOMAINS:
            result[row, domain] = self.direct(row, domain, snapshot)
            if row in self.args.finetuned:
                result[row + ", fine-tuned", domain] = self.finetune(row, domain, snapshot, 1e-5)
        return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--rows", nargs="+", default=["single", "mixing", "mft"], choices=["single", *META])
    parser.add_argument("--finetuned", nargs="*", default=["mixing", "mft"], help="rows that step 3 follows")
    parser.add_argument("--meta_epochs", type=int, default=63)
    parser.add_argument("--ft_epochs", type=int, default=64)
    parser.add_argument("--ft_batch_size", type=int, default=8)
    parser.add_argument("--single_learning_rate", type=float, default=5e-5)
    parser.add_argument("--meta_learning_rate", type=float, default=1e-4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nice", type=int, default=10)
    args = parser.parse_args()

    for task, data in [("g1", "k-shot-cross/g1"), *((t, "k-shot-single/" + d) for t, d in DOMAINS.items())]:
        data_dir = os.path.join(args.data_dir, data, "16-42")
        if not os.path.exists(os.path.join(data_dir, "ofrecord", "train", "weight.npy")):
            flags = [
                "preprocess.py",
                "--task_name",
                task,
                "--model_load_dir",
                args.model_dir,
                "--data_dir",
                data_dir,
                "--seq_length",
                "128",
            ]
            subprocess.run(
                [sys.executable] + flags + ["--resave_ofrecord", "--log_dir", args.output_dir], cwd=ROOT, check=True
            )
    jobs = [(row, seed) for row in args.rows for seed in args.seeds]
    with concurrent.futures.ThreadPoolExecutor(args.workers) as pool:
        results = list(pool.map(lambda job: Grid(args, job[1]).run(job[0]), jobs))
    table = {}
    for result in results:
        for (name, domain), accuracy in result.items():
            table.setdefault(name, {}).setdefault(domain, []).append(100 * accuracy)
    print(
        "| test accuracy, mean (spread) of {} seeds | {} | mean |".format(len(args.seeds), " | ".join(DOMAINS.values()))
    )
    print("| --- | " + " --- | " * (len(DOMAINS) + 1))
    for name, domains in table.items():
        cells = [f"{np.mean(values):.1f} ({np.ptp(values):.1f})" for values in domains.values()]
        print("| {} | {} | {:.1f} |".format(name, " | ".join(cells), np.mean([np.mean(v) for v in domains.values()])))


if __name__ == "__main__":
    main()
