"""The path of a new user, in small: an own comma-separated file, fine-tuning, evaluation, two seeds beside each other, predictions, a
server, and an export that another program loads."""

import csv
import http.client
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny

from modeling.run.predictions import read_predictions

pytestmark = pytest.mark.slow
TRAIN = (
    "finetuning.py --task_name shop --data_dir my_data --model_load_dir encoder --auto_settings --device cpu "
    "--text_column review --label_column stars --learning_rate 5e-3 --num_epochs 8"
)
LABELS = ["bad, sadly", "good"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with an encoder and a user's data: comma-separated with a header, quotes, another column and no domain."""
    project = tiny.Project(tmp_path_factory.mktemp("first_hour") / "project")
    tiny.write_encoder(project.path("encoder"))
    os.makedirs(project.path("my_data"))
    for split, counts in (("train", (21, 20)), ("dev", (7, 6)), ("test", (9, 8))):
        with open(project.path("my_data", split + ".csv"), "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("order", "review", "stars"))
            for number, (text, _, label) in enumerate(tiny.opinions("cr", counts, split, LABELS)):
                writer.writerow((number, text.replace(" ", ", ", 1), label))
    return project


def tool(project, name, *arguments):
    """Standard output of a tool that ends well."""
    command = [sys.executable, os.path.join(tiny.ROOT, "tools", name), *arguments]
    result = subprocess.run(
        command, cwd=project.folder, env=dict(os.environ, COLUMNS="160"), capture_output=True, encoding="utf-8", timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def trained(project):
    """The `tiny.Run` of finetuning.py on the user's data."""
    output = project.run(TRAIN + " --seed 1 --model_save_dir output/shop")
    assert "my_data/train.csv: comma-separated" in output
    assert re.search(r"--auto_settings: 41 training rows, 2 labels, hidden size 20: .*--batch_size_per_device 4", output)
    return project.run_of(output)


def test_train_and_evaluate(project, trained):
    """The words of an opinion are learnt, and evaluate.py finds the accuracy of the run's own test."""
    (test,) = trained.rows("test")[-1:]
    assert test["accuracy"] >= 0.8
    output = tool(project, "evaluate.py", trained.path(trained.best()), os.path.join("my_data", "test.csv"))
    hits = round(test["accuracy"] * 17)
    assert f"({hits}/17)" in output


def test_two_seeds_are_compared(project):
    output = tool(project, "sweep.py", "--seeds", "1,2", "--jobs", "2", "--output_dir", "output/seeds", "--", *TRAIN.split())
    runs = [tiny.Run(project.path("output", "seeds", f"seed={seed}")) for seed in (1, 2)]
    accuracies = [run.rows("test")[-1]["accuracy"] for run in runs]
    spread = f"{np.mean(accuracies):.4f} ± {np.std(accuracies, ddof=1):.4f}"
    assert spread in output
    assert spread in tool(project, "compare.py", *(os.path.relpath(run.folder, project.folder) for run in runs))


def test_predict_serve_export_and_load_elsewhere(project, trained):
    """The labels of the run's own predictions come from predict.py, from the server, and from ONNX Runtime with the exported file."""
    onnxruntime, tokenizers = pytest.importorskip("onnxruntime"), pytest.importorskip("tokenizers")
    pytest.importorskip("uvicorn")
    names, _, samples = read_predictions(trained.path("predictions_test.tsv"))
    assert list(names) == LABELS
    texts, expected = zip(*((sample.texts[0], sample.predicted) for sample in samples))
    snapshot = trained.path(trained.best())

    with open(project.path("new.txt"), "w", encoding="utf-8") as file:
        file.writelines(text + "\n" for text in texts)
    output = tool(project, "predict.py", "--model_load_dir", snapshot, "--device", "cpu", "--input", "new.txt")
    assert [line.split("\t")[0] for line in output.splitlines()] == list(expected)

    assert ask_server(project, snapshot, texts) == list(expected)

    tool(project, "convert_checkpoint.py", "--model_dir", snapshot, "--output_dir", "shop.onnx", "--to", "onnx")
    session = onnxruntime.InferenceSession(project.path("shop.onnx"), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    tokenizer = tokenizers.Tokenizer.from_str(about["tokenizer.json"])
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(texts)
    inputs = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    (logits,) = session.run(None, {name: np.array([getattr(one, part) for one in encoded], np.int64) for name, part in inputs.items()})
    assert [json.loads(about["labels"])[row] for row in logits.argmax(1)] == list(expected)


def ask_server(project, snapshot, texts):
    """The labels that tools/serve.py gives to texts, one request each."""
    command = [sys.executable, os.path.join(tiny.ROOT, "tools", "serve.py"), "--model_load_dir", snapshot, "--device", "cpu", "--port", "0"]
    process = subprocess.Popen(command, cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline()).group(1))
        labels = []
        for text in texts:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/predict", json.dumps({"text": text}).encode("utf-8"), {"Content-Type": "application/json"})
            labels.append(json.loads(connection.getresponse().read())["label"])
            connection.close()
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return labels
