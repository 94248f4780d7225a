"""SetFit (arXiv 2209.11055) with its authors' library, as one process, for comparison in benchmarks/learners.py.

It runs in the Python from BENCH_SETFIT_PYTHON, which needs setfit. It trains on DATA_DIR/train.csv, pairs of texts of all domains, fits
scikit-learn's logistic regression to the mean vectors, and writes OUTPUT_DIR/metrics.jsonl with the accuracy on dev and test by domain.
The model of the last step counts, as is usual with this library.
"""

import argparse
import json
import os
import time

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression


def read_rows(path):
    with open(path, encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n").split("\t") for line in file]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True, help="encoder in Hugging Face's layout")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--seq_length", type=int, default=128, help="tokens of a text")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--pairs", type=int, default=16, help="pairs of a step")
    parser.add_argument("--learning_rate", type=float, default=2e-5)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    os.makedirs(args.output_dir)
    splits = {name: read_rows(os.path.join(args.data_dir, name + ".csv")) for name in ("train", "dev", "test")}
    labels = sorted({row[2] for row in splits["train"]})
    body = SentenceTransformer(args.model_dir, device="cpu")  # the mean over the tokens, for a folder without modules
    body.max_seq_length = args.seq_length
    model = SetFitModel(model_body=body, model_head=LogisticRegression())
    settings = TrainingArguments(
        output_dir=os.path.join(args.output_dir, "trainer"),
        batch_size=args.pairs,
        max_steps=args.steps,
        body_learning_rate=args.learning_rate,
        seed=args.seed,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
    )
    train = Dataset.from_dict({"text": [row[0] for row in splits["train"]], "label": [labels.index(row[2]) for row in splits["train"]]})
    started = time.perf_counter()
    Trainer(model=model, args=settings, train_dataset=train).train()
    rows = [{"kind": "train", "step": args.steps, "seconds": round(time.perf_counter() - started, 1)}]
    for split in ("dev", "test"):
        domain, label = (np.array([row[column] for row in splits[split]]) for column in (1, 2))
        predicted = np.array(labels)[np.asarray(model.predict([row[0] for row in splits[split]], show_progress_bar=False))]
        hits = predicted == label
        by_domain = {str(name): {"accuracy": float(hits[domain == name].mean())} for name in np.unique(domain)}
        rows.append({"kind": split, "step": args.steps, "accuracy": float(hits.mean()), "by_domain": by_domain})
    with open(os.path.join(args.output_dir, "metrics.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


main()
