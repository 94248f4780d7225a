"""Compares Meta Fine-tuning with fine-tuning on each domain alone and with plain mixing, over several seeds
(docs/results.md).

    python3 benchmarks/mft_results.py --model_dir models/uncased_L-6_H-384_A-12_oneflow --data_dir data \\
        --output_dir output/mft_results

DATA_DIR contains k-shot-cross/g1/16-42 and k-shot-single/{SST-2,MR,CR}/16-42. Each job runs one of the documented
commands in a separate process with one thread. Finished jobs do not run again. At the end, the script prints the
table in Markdown.
"""

if not __package__:
    import _root  # noqa: F401

import os

import numpy as np

from benchmarks.runs import best_snapshot, last_of, mean_and_spread, print_table, results_parser, run_jobs, run_script

DOMAINS = {"sst-2": "SST-2", "mr": "MR", "cr": "CR"}
META = {  # name of the row -> flags of step 2
    "mixing": ["--use_domain_loss", "false", "--use_sample_weights", "false"],
    "scores only": ["--use_domain_loss", "false"],
    "mft": [],
    "mft, all": ["--corruption", "all"],
    "mft, normalized": ["--normalize_sample_weights"],
    "mft, normalized, all": ["--normalize_sample_weights", "--corruption", "all"],
}


LAST_STEP_ONLY = 10**9  # a --dev_every_step_num that no run reaches, so that dev is evaluated only once, at the end


def file_name(words):
    """ "mft, all" -> "mft-all"."""
    return words.replace(",", "").replace(" ", "-")


class Grid:
    """All jobs of one seed, as methods. Each method calls those that it depends on."""

    def __init__(self, args, seed):
        self.args, self.seed = args, seed
        self.model_dir = os.path.abspath(args.model_dir)

    def _run(self, name, script, task, data, snapshot, *flags):
        data_dir = os.path.join(os.path.abspath(self.args.data_dir), data, "16-42")
        common = ["--task_name", task, "--model_load_dir", snapshot, "--data_dir", data_dir, "--seq_length", "128"]
        folder = os.path.join(os.path.abspath(self.args.output_dir), str(self.seed), name)
        return folder, run_script([script, *common, "--seed", str(self.seed), *map(str, flags)], folder)

    def meta(self, row):
        """Step 2 with the flags of a row; returns its best snapshot."""
        folder, _ = self._run(
            file_name("meta " + row), "meta_finetuning.py", "g1", "k-shot-cross/g1", self.model_dir,
            "--num_epochs", self.args.meta_epochs, "--learning_rate", self.args.meta_learning_rate,
            "--batch_size_per_device", 4, "--dev_batch_size_per_device", 16, "--dev_every_step_num", self.args.dev_every,
            "--loss_print_every_n_iter", 63, *META[row],
        )  # fmt: skip
        return best_snapshot(folder)

    def single(self, name, domain, snapshot, *flags):
        """Runs finetuning.py on a domain; returns the accuracy of its snapshot on the whole test split."""
        _, rows = self._run(
            file_name(f"{name} {domain}"), "finetuning.py", domain, "k-shot-single/" + DOMAINS[domain], snapshot,
            "--dev_batch_size_per_device", 16, "--eval_batch_size_per_device", 32, *flags,
        )  # fmt: skip
        return last_of(rows, "test")["accuracy"]

    def finetune(self, name, domain, snapshot, learning_rate, dev_every):
        """Step 3: fine-tuning, then a test of the snapshot that is best on dev."""
        return self.single(
            "ft " + name, domain, snapshot,
            "--num_epochs", self.args.ft_epochs, "--batch_size_per_device", self.args.ft_batch_size,
            "--dev_every_step_num", dev_every, "--learning_rate", learning_rate, "--loss_print_every_n_iter", 32,
        )  # fmt: skip

    def run(self, row):
        """All test accuracies for one row of the table: dict of (name, domain) -> accuracy."""
        if row == "single":
            # Tests the last snapshot: with 32 dev rows, dev would sometimes select a snapshot that is hardly trained
            how = (self.args.single_learning_rate, LAST_STEP_ONLY)
            return {("single", domain): self.finetune("single", domain, self.model_dir, *how) for domain in DOMAINS}
        snapshot = self.meta(row)
        result = {}
        for domain in DOMAINS:
            result[row, domain] = self.single("direct " + row, domain, snapshot, "--do_train", "false", "--do_eval")
        for domain in DOMAINS if row in self.args.finetuned else ():
            how = (self.args.ft_learning_rate, self.args.ft_dev_every)
            result[row + ", fine-tuned", domain] = self.finetune(row, domain, snapshot, *how)
        return result


def prepare(args):
    """Runs step 1 for the group and for each domain, unless the scores exist already."""
    for task, data in [("g1", "k-shot-cross/g1"), *((task, "k-shot-single/" + name) for task, name in DOMAINS.items())]:
        data_dir = os.path.abspath(os.path.join(args.data_dir, data, "16-42"))
        if not os.path.exists(os.path.join(data_dir, "ofrecord", "train", "weight.npy")):
            script = ["preprocess.py", "--task_name", task, "--model_load_dir", os.path.abspath(args.model_dir)]
            folder = os.path.join(os.path.abspath(args.output_dir), "preprocess-" + task)
            run_script([*script, "--data_dir", data_dir, "--seq_length", "128", "--resave_ofrecord"], folder, flag="--log_dir")


def main():
    parser = results_parser(__doc__)
    parser.add_argument("--rows", nargs="+", default=["single", "mixing", "mft", "mft, normalized, all"], choices=["single", *META])
    parser.add_argument("--finetuned", nargs="*", default=["mft", "mft, normalized, all"], help="rows to which step 3 is applied")
    parser.add_argument("--meta_epochs", type=int, default=20)
    parser.add_argument("--dev_every", type=int, default=40, help="steps of step 2 between evaluations on dev")
    parser.add_argument("--ft_epochs", type=int, default=20)
    parser.add_argument("--ft_batch_size", type=int, default=4)
    parser.add_argument("--ft_dev_every", type=int, default=40, help="steps of step 3 between evaluations on dev")
    parser.add_argument("--meta_learning_rate", type=float, default=3e-5)
    parser.add_argument("--ft_learning_rate", type=float, default=1e-5)
    parser.add_argument("--single_learning_rate", type=float, default=5e-5)
    args = parser.parse_args()

    prepare(args)
    jobs = [(row, seed) for row in args.rows for seed in args.seeds]
    results = run_jobs([lambda row=row, seed=seed: Grid(args, seed).run(row) for row, seed in jobs], args.workers)
    table = {}
    for result in results:
        for (name, domain), accuracy in result.items():
            table.setdefault(name, {}).setdefault(domain, []).append(100 * accuracy)
    lines = []
    for name, domains in table.items():
        mean = np.mean([np.mean(values) for values in domains.values()])
        lines.append([name, *map(mean_and_spread, domains.values()), f"{mean:.1f}"])
    print_table("test accuracy", args.seeds, [*DOMAINS.values(), "mean"], lines)


if __name__ == "__main__":
    main()
