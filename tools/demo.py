"""Runs steps 1 to 3 of Meta Fine-tuning on the bundled text of three domains and prints a table of the results (`make demo`).

python3 tools/demo.py --model_dir models/uncased_L-6_H-384_A-12_oneflow --output_dir output
"""

if not __package__:
    import _root  # noqa: F401

import json
import os
import time

from modeling.cli.errors import run
from modeling.report.curves_png import CURVES_FILE
from modeling.run.metrics import METRICS_FILE
from tools.demo_steps import DOMAINS, ROOT, best_snapshot, demo_parser, percent, preprocess, print_table, rows_of, run_folders, step


def main():
    parser = demo_parser(__doc__)
    parser.add_argument("--meta_epochs", default="20", help="epochs of step 2")
    parser.add_argument("--finetuning_epochs", default="8", help="epochs of step 3")
    args = parser.parse_args()
    started = time.time()
    output, cross = run_folders(args, "demo")
    common = ["--seed", "42", "--seq_length=128", "--resave_ofrecord"]

    preprocess(args.model_dir, cross, output, "--train_example_num", "96", "--dev_example_num", "96", *common)
    meta = os.path.join(output, "meta")
    step(
        "Step 2: the meta learner, trained on all domains",
        "meta_finetuning.py",
        "--task_name",
        "g1",
        "--model_load_dir",
        args.model_dir,
        "--data_dir",
        cross,
        "--num_epochs",
        args.meta_epochs,
        "--batch_size_per_device",
        "4",
        "--dev_batch_size_per_device",
        "16",
        "--dev_every_step_num",
        "40",
        "--loss_print_every_n_iter",
        "40",
        "--learning_rate",
        "3e-5",
        "--model_save_dir",
        meta,
        *common,
    )
    learner = best_snapshot(meta)
    for domain, folder in DOMAINS.items():
        step(
            f"Step 3: fine-tuning on {domain}",
            "finetuning.py",
            "--task_name",
            domain.lower(),
            "--model_load_dir",
            learner,
            "--data_dir",
            os.path.join(args.data_dir, "k-shot-single", folder, "16-42"),
            "--num_epochs",
            args.finetuning_epochs,
            "--batch_size_per_device",
            "4",
            "--dev_batch_size_per_device",
            "16",
            "--eval_batch_size_per_device",
            "16",
            "--dev_every_step_num",
            "16",
            "--loss_print_every_n_iter",
            "16",
            "--learning_rate",
            "1e-5",
            "--model_save_dir",
            os.path.join(output, "finetuned-" + folder),
            *common,
        )

    with open(os.path.join(ROOT, cross, "ofrecord", "train", "weight.json"), encoding="utf-8") as f:
        scores = json.load(f)["info"]["by_domain"]
    dev = [row for row in rows_of(meta, "dev") if row["best"]][-1]
    rows = []
    for domain, folder in DOMAINS.items():
        test = rows_of(os.path.join(output, "finetuned-" + folder), "test")[0]
        spread = [f"{scores[domain][column]:.3f}" for column in ("mean", "min", "max")]
        dev_accuracy = percent(dev["by_domain"][domain]["accuracy"])
        rows.append((domain, *spread, dev_accuracy, percent(test["accuracy"]), str(test["total"])))
    rows.append(("all", "", "", "", percent(dev["accuracy"]), "", ""))
    title = f"Meta Fine-tuning on {cross}, {time.time() - started:.0f} seconds"
    print_table(title, ("domain", "score mean", "min", "max", "meta learner, dev", "fine-tuned, test", "rows"), rows)
    print("score: prototypical score of the training samples; rows: number of test rows")
    print(f"meta learner  {learner}")
    for folder in DOMAINS.values():
        print("{:13} {}".format(folder, best_snapshot(os.path.join(output, "finetuned-" + folder))))
    print("curves        " + os.path.join(meta, CURVES_FILE))
    print(f"metrics       {os.path.join(meta, METRICS_FILE)} (one JSON object per line); each folder above has its own file")


if __name__ == "__main__":
    run(main)
