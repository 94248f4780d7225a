"""A run's folder made of files, without any training, for the tests of what is read from one."""

import json
import os

import numpy as np

from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, write_variables
from modeling.run.evaluation import Predictions, measure
from modeling.run.predictions import predictions_path, write_predictions
from ofrecord_util.scores import EmbeddingMap, save_map, save_scores
from ofrecord_util.tasks import Task
from ofrecord_util.text import read_text

EVIL = "<img src=x onerror=alert(1)> & 'quotes' \"too\""
TASK = Task("t", ("books", "dvd", "R&B <i>"), ("no", "yes"))
COUNTS = {"train": 19, "dev": 13, "test": 11}
STEPS = 40


def write_text(data_dir, split):
    """Writes and reads a split's text; the first rows are a threat and a long one."""
    os.makedirs(data_dir, exist_ok=True)
    texts = [EVIL, "long " * 400] + [f"text {row} of {split}" for row in range(2, COUNTS[split])]
    rows = [f"{text}\t{TASK.domains[row % 3]}\t{TASK.labels[row % 5 % 2]}\n" for row, text in enumerate(texts)]
    path = os.path.join(data_dir, split + ".csv")
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(rows))
    return read_text(path, TASK)


def predictions_of(rows, seed):
    """`Predictions` for a split's text; the first two rows are far off."""
    count = len(rows)
    logits = np.random.RandomState(seed).randn(count, 2).astype(np.float32)
    logits[[0, 1], rows.label[[0, 1]]] = -9
    return Predictions(np.arange(count), rows.domain, rows.label, logits, rows.digest)


def write_run(folder, data_dir, script="meta_distill", with_map=True):
    """Writes data with scores, and the folder of a finished run with a best snapshot and a teacher; returns the folder."""
    texts = {split: write_text(data_dir, split) for split in COUNTS}
    train = texts["train"]
    draw = np.random.RandomState(2)
    save_scores(data_dir, draw.rand(len(train)).astype(np.float32), train.digest)
    if with_map:
        prototypes = draw.randn(3, 2, 2).astype(np.float32)
        drawn = EmbeddingMap(draw.randn(len(train), 2).astype(np.float32), train.domain, train.label, prototypes, np.array([0.5, 0.25]))
        save_map(data_dir, drawn, train.digest)
    os.makedirs(folder)
    results = {}
    for place, name in enumerate(("dev", "test", "teacher_dev", "teacher_test")):
        split = name.split("_")[-1]
        found = predictions_of(texts[split], place)
        results[name] = measure(found.logits, found.label, found.domain, TASK, 42).to_dict()
        write_predictions(predictions_path(folder, name), TASK, found, texts[split] if name == split else None)
    train_rows = [
        {"kind": "train", "step": step, "epoch": step / 20, "learning_rate": 1e-5 * step, "loss": 2.0 / step, "hidden_loss": 1.0 / step,
         "label_loss": 1.0 / step, "accuracy": step / 50}
        for step in range(1, STEPS + 1)
    ]  # fmt: skip
    worse = dict(results["dev"], cross_entropy=9.0)
    rows = [{"kind": "teacher_dev", **results["teacher_dev"]}, {"kind": "teacher_test", **results["teacher_test"]}, *train_rows]
    rows += [{"kind": "dev", "step": 20, "best": True, **results["dev"]}, {"kind": "dev", "step": 40, "best": False, **worse}]
    rows += [{"kind": "test", **results["test"]}]
    with open(os.path.join(folder, "metrics.jsonl"), "w", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    about = {
        split: {
            "rows": len(text), "text_file": split + ".csv", "text_digest": text.digest, "truncated": 0,
            "by_domain": {name: {label: int(((text.domain == d) & (text.label == c)).sum()) for c, label in enumerate(TASK.labels)}
                          for d, name in enumerate(TASK.domains)},
        }
        for split, text in texts.items()
    }  # fmt: skip
    record = {
        "script": script,
        "command": [script + ".py", "--task_name", "t", "--data_dir", data_dir],
        "flags": {"task_name": "t", "data_dir": data_dir, "num_epochs": 2, "seed": 42, "learning_rate": 1e-5, "keep_all_best": True,
                  "student_model": "models/small", "teacher_model": "output/x/snapshot_best_mft_model_t_dev_0.5", "domains": None},
        "task": TASK.to_dict(),
        "config": {"num_hidden_layers": 2, "hidden_size": 20, "num_attention_heads": 4, "vocab_size": 77},
        "data": about,
        "device": "cpu",
        "versions": {"oneflow": "0.9.0", "python": "3.10.13"},
        "vocab_digest": "a" * 64,
        "snapshot_digest": "b" * 64,
        "teacher_digest": "c" * 64,
        "parameters": 12345678,
        "total_steps": STEPS,
        "samples_per_step": 4,
    }  # fmt: skip
    with open(os.path.join(folder, "flags.json"), "w", encoding="utf-8") as file:
        json.dump(record, file)
    files = {CONFIG_FILE: "{}", VOCAB_FILE: "[PAD]\n", TASK_FILE: json.dumps(dict(TASK.to_dict(), seq_length=24, do_lower_case=True))}
    best = os.path.join(folder, f"snapshot_best_distill_model_t_dev_{results['dev']['accuracy']!r}")
    write_variables(best, {"a": np.arange(6, dtype=np.float32)}, files)
    return folder
