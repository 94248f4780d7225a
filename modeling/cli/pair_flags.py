"""The flags of recipes/pretrain_pairs.py alone, as rows of the flag table (modeling/cli/flag_table.py)."""

from modeling.cli.choices import ACCURACY, CLASSIFIER_POOLINGS, CROSS_ENTROPY, PAIR_LOSSES, SYMMETRIC
from modeling.cli.flag_kinds import Flag, Group, boolean, pair_batch_size, positive_int, text
from modeling.cli.scripts import CORPUS_PAIR_TRAINING

HALVES = Group(
    "pairs of a corpus",
    "A pair is the two halves of a text. With a task of text pairs it is the two texts of a row, with --paired_lines those of a line.",
)

# fmt: off
HALVES_FLAGS = (
    Flag("paired_lines", HALVES, CORPUS_PAIR_TRAINING, boolean, False,
         "each line of --corpus_file has two texts with a tab between them, such as a turn of a conversation and the next one; they are a "
         "pair, and no text of a line is cut in two"),
    Flag("batch_size_per_device", HALVES, CORPUS_PAIR_TRAINING, pair_batch_size, 32,
         "pairs per batch. Each is compared with all others of its batch, so the number is a part of the objective: neither memory nor "
         "--gradient_accumulation_steps divides it"),
    Flag("pair_loss", HALVES, CORPUS_PAIR_TRAINING, text, SYMMETRIC,
         "contrastive = cross-entropy of the own second half among all second halves of the batch, with a learned temperature; symmetric = "
         "the mean of this and of the own first half among all first halves; all = as contrastive, but a sum, with a factor that grows "
         "from 1 to the root of the hidden size in 10,000 steps; triplet = the cosine with one other half may not be greater",
         choices=PAIR_LOSSES),
    Flag("pooling", HALVES, CORPUS_PAIR_TRAINING, text, None,
         "vector of a text: mean or max = over the real tokens of the last layer; cls = tanh(W h[CLS] + b); raw_cls = h[CLS]; sqrt_length, "
         "sha and 2ha as in MEAD", unset="that of the snapshot, mean if the snapshot has no classifier", choices=CLASSIFIER_POOLINGS),
    Flag("metric_for_best", HALVES, CORPUS_PAIR_TRAINING, text, ACCURACY,
         "measure on dev that selects the best snapshot: accuracy = recall, or the lowest cross-entropy",
         choices=(ACCURACY, CROSS_ENTROPY)),
    Flag("max_predictions_per_seq", HALVES, CORPUS_PAIR_TRAINING, positive_int, 80, "no token is masked", has_effect=False),
)
# fmt: on
