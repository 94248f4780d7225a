"""The flags of the scripts that tag words or find answers, as rows of the flag table (modeling/cli/flag_table.py)."""

from modeling.cli.choices import ANSWER_F1, ANSWER_METRICS, ENTITY_F1, TAG_METRICS, WINDOW_TOKENS
from modeling.cli.flag_kinds import Flag, Group, at_least, batch_size, boolean, count, fraction, non_negative_float, positive_int, text
from modeling.cli.scripts import SEQUENCE_LABELING, SPAN_ANSWERING, TOKEN_TRAINING

TOKENS = Group(
    "tags and answers",
    "The OFRecord files depend on --label_all_tokens, or on --doc_stride and --max_query_length, too: after a change, --resave_ofrecord "
    "writes them again.",
)
TAGS, ANSWERS = (SEQUENCE_LABELING,), (SPAN_ANSWERING,)
_BEST = "measure on dev that selects the best snapshot: the highest value, or the lowest cross-entropy; its name contains the F1"

# fmt: off
TOKEN_FLAGS = (
    Flag("seq_length", TOKENS, TAGS, at_least(int, 3), 128, "tokens of a sentence, with special tokens; words after them are not tagged",
         aliases=("--max_seq_length",), metavar="TOKENS"),
    Flag("seq_length", TOKENS, ANSWERS, at_least(int, 8), 384,
         "tokens of a window, with question and special tokens; a longer context has several windows",
         aliases=("--max_seq_length",), metavar="TOKENS"),
    Flag("label_all_tokens", TOKENS, TAGS, boolean, True,
         "the later tokens of a word learn a tag too, I- after a B-; otherwise the first one alone. Only the first one is measured"),
    Flag("doc_stride", TOKENS, ANSWERS, count, WINDOW_TOKENS, "tokens of the context between the starts of two windows"),
    Flag("max_query_length", TOKENS, ANSWERS, count, WINDOW_TOKENS, "tokens of a question; longer ones are cut"),
    Flag("n_best_size", TOKENS, ANSWERS, count, 20, "answers of a question in the file of best answers"),
    Flag("max_answer_length", TOKENS, ANSWERS, count, 30, "tokens of an answer at most"),
    Flag("no_answer", TOKENS, ANSWERS, boolean, False, "a question may have no answer in its context (SQuAD 2.0)"),
    Flag("batch_size_per_device", TOKENS, TAGS, batch_size, 32, "sentences per batch of the training split"),
    Flag("batch_size_per_device", TOKENS, ANSWERS, batch_size, 16, "windows per batch of the training split"),
    Flag("num_epochs", TOKENS, TAGS, positive_int, 3, "passes over the training split"),
    Flag("num_epochs", TOKENS, ANSWERS, positive_int, 2, "passes over the training split"),
    Flag("learning_rate", TOKENS, TOKEN_TRAINING, non_negative_float, 2e-5, "peak learning rate"),
    Flag("warmup_proportion", TOKENS, TOKEN_TRAINING, fraction, 0.1, "fraction of the steps with a rising learning rate"),
    Flag("dev_every_step_num", TOKENS, TAGS, positive_int, 100, "steps between evaluations on dev"),
    Flag("dev_every_step_num", TOKENS, ANSWERS, positive_int, 500, "steps between evaluations on dev"),
    Flag("metric_for_best", TOKENS, TAGS, text, ENTITY_F1, _BEST, choices=TAG_METRICS),
    Flag("metric_for_best", TOKENS, ANSWERS, text, ANSWER_F1, _BEST, choices=ANSWER_METRICS),
)
# fmt: on
