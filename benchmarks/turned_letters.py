"""Checks that recipes/generation.py learns: pairs of 3 to 8 letters and their reverse, a small PALM from initial values.

    python3 benchmarks/turned_letters.py --folder /tmp/turned [--seed 1]

Writes the data and the run into --folder, and prints BLEU-4 of dev and test, which share no row with the training split, and the seconds.
docs/recipes.md has the result.
"""

if not __package__:
    import _root  # noqa: F401

import os
import random
import subprocess
import sys
import time

from modeling.cli.choices import BLEU_4
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import non_negative_int
from modeling.run.metrics import METRICS_FILE, read_metrics
from ofrecord_util.escaping import say

ROWS = {"train": 2000, "dev": 100, "test": 100}
LETTERS = "abcdefghijklmnopqrst"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FLAGS = (
    "--num_hidden_layers 2 --dec_hidden_layers 2 --num_attention_heads 4 --hidden_size_per_head 16 --max_position_embeddings 32 "
    "--seq_length 12 --target_length 12 --num_epochs 30 --batch_size_per_device 32 --learning_rate 3e-3 --warmup_proportion 0.1 "
    "--hidden_dropout_prob 0 --attention_probs_dropout_prob 0 --dev_every_step_num 300 --loss_print_every_n_iter 100"
)


def write_data(folder, seed=1):
    """Writes vocab.txt, and train.csv, dev.csv and test.csv without a row that occurs twice. Returns the number of tokens."""
    draw, seen = random.Random(seed), set()
    for split, count in ROWS.items():
        rows = []
        while len(rows) < count:
            word = tuple(draw.choice(LETTERS) for _ in range(draw.randint(3, 8)))
            if word not in seen:
                seen.add(word)
                rows.append(f"{' '.join(word)}\t{' '.join(reversed(word))}\n")
        with open(os.path.join(folder, split + ".csv"), "w", encoding="utf-8") as file:
            file.writelines(rows)
    tokens = (*SPECIAL, *LETTERS)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as file:
        file.writelines(token + "\n" for token in tokens)
    return len(tokens)


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("--folder", required=True, help="new folder for data and run")
    parser.add_argument("--seed", type=non_negative_int, default=1, help="of data and run")
    args = parser.parse_args()
    try:
        os.makedirs(args.folder)
    except OSError as error:
        raise UserError(f"--folder {args.folder}: cannot be created ({error.strerror})") from error
    size, output = write_data(args.folder, args.seed), os.path.join(args.folder, "run")
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "recipes", "generation.py")
    own = f"--task_name turned --vocab_size {size} --seed {args.seed}"
    paths = ["--data_dir", args.folder, "--vocab_file", os.path.join(args.folder, "vocab.txt"), "--model_save_dir", output]
    started = time.perf_counter()
    if subprocess.run([sys.executable, script, *own.split(), *FLAGS.split(), *paths], check=False).returncode:
        raise UserError(f"{script} has failed; its error is above")
    seconds = time.perf_counter() - started
    scores = {row["split"]: row[BLEU_4] for row in read_metrics(os.path.join(output, METRICS_FILE)) if row["kind"] == "generation"}
    say(f"BLEU-4: {', '.join(f'{split} {score:.4f}' for split, score in scores.items())}; {seconds:.0f} s")


if __name__ == "__main__":
    run(main)
