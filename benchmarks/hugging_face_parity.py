"""Compares a snapshot with its export to transformers: both compute probabilities from the same raw sentences.

    python3 benchmarks/hugging_face_parity.py --snapshot output/…/snapshot_best_ft_model_cr_dev_0.9 \\
        --torch_python /opt/torch/bin/python

`--torch_python` is a Python with PyTorch and transformers. It does not need the requirements of this project, and this
project does not need the two packages. The export goes to a temporary folder. The script prints the largest difference
between probabilities and between log-probabilities, and the sentences whose tokens differ, if any. The exit code is 1 if
a log-probability differs by more than `--tolerance`.
"""

if not __package__:
    import _root  # noqa: F401

import json
import os
import subprocess
import tempfile

import numpy as np

from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.predictor import Predictor
from tools.convert_checkpoint import HUGGING_FACE, convert

SENTENCES = (
    "a moving film",
    "Two hours I will not get back.",
    "The battery lasts a day, the screen is superb, and the price is fair!",
    "I returned it: the zoom jams, the menus are slow & the manual is useless...",
    "Naïve café owners in PARIS loved it — mostly.",
    "it's n't un-put-downable; supercalifragilisticexpialidocious",
    "中文 and 日本語, 한국어 🙂",
    "5.0 megapixels, $499.99, 3x (optical) zoom",
    "",
    "good " * 200,
)

# Runs in --torch_python: reads {folder, texts, pairs} and writes {ids, log_probabilities}, as JSON.
_THEIRS = r"""
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, __version__
job = json.load(sys.stdin)
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(job["folder"])
model = AutoModelForSequenceClassification.from_pretrained(job["folder"]).eval()
ids, rows = [], []
with torch.no_grad():
    for first, second in zip(job["texts"], job["pairs"] or [None] * len(job["texts"])):
        batch = tokenizer(first, second, truncation=True, return_tensors="pt")
        ids.append(batch["input_ids"][0].tolist())
        rows.append(torch.log_softmax(model(**batch).logits[0], -1).tolist())
versions = {"torch": torch.__version__, "transformers": __version__}
print("\n" + json.dumps({"ids": ids, "log_probabilities": rows, "labels": model.config.id2label, "versions": versions}))
"""


def ask_transformers(python, job):
    """Runs `job` with transformers in the other Python; returns its output.

    Raises:
        UserError: that Python cannot be run, or it failed.
    """
    environment = dict(os.environ, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    try:
        result = subprocess.run(
            [python, "-c", _THEIRS],
            input=json.dumps(job),
            capture_output=True,
            env=environment,
            text=True,
        )
    except OSError as error:
        raise UserError(f"--torch_python {python}: cannot be run ({error.strerror})") from error
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"--torch_python {python}: exit code {result.returncode}: {last}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--snapshot", required=True, help="snapshot of a training step")
    parser.add_argument("--torch_python", required=True, metavar="PYTHON", help="a Python with torch and transformers")
    parser.add_argument("--input", metavar="FILE", help="sentences, one per line (default: ten built-in ones)")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest accepted difference between log-probabilities")
    args = parser.parse_args()
    texts = list(SENTENCES)
    if args.input:
        try:
            with open(args.input, encoding="utf-8") as file:
                texts = [line.rstrip("\r\n").split("\t")[0] for line in file]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--input {args.input}: cannot be read ({error})") from error
    if not texts:
        raise UserError(f"--input {args.input}: contains no sentences")

    predictor = Predictor(args.snapshot, "cpu", batch_size=1)
    pairs = texts[1:] + texts[:1] if predictor.task.pair else None
    ours = [list(p.probabilities.values()) for p in predictor(list(zip(texts, pairs)) if pairs else texts)]
    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.join(folder, "exported")
        convert(args.snapshot, folder, to=HUGGING_FACE)
        job = {"folder": folder, "texts": texts, "pairs": pairs}
        theirs = ask_transformers(args.torch_python, job)

    encoded = predictor.preprocess(list(zip(texts, pairs)) if pairs else texts)
    own_ids = [row[: mask.sum()].tolist() for row, mask in zip(encoded.input_ids, encoded.input_mask)]
    differing = [text for text, own, other in zip(texts, own_ids, theirs["ids"]) if own != other]
    ours, other = np.array(ours), np.array(theirs["log_probabilities"])
    difference = np.abs(np.log(ours) - other).max()
    versions = ", ".join(f"{name} {version}" for name, version in sorted(theirs["versions"].items()))
    print(f"{len(texts)} sentences, {', '.join(theirs['labels'].values())}; {versions}")
    print(f"sentences whose tokens differ: {len(differing)}" + "".join(f"\n  {text[:60]!r}" for text in differing))
    print(f"largest difference between probabilities:     {np.abs(ours - np.exp(other)).max():.2e}")
    print(f"largest difference between log-probabilities: {difference:.2e}")
    return int(bool(difference > args.tolerance))


if __name__ == "__main__":
    run(main)
