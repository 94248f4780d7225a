"""The flags of the scripts that train on text without labels, as rows of the flag table (modeling/cli/flag_table.py)."""

from modeling.cli.choices import CROSS_ENTROPY, LATEST
from modeling.cli.flag_kinds import (
    Flag,
    Group,
    batch_size,
    boolean,
    comma_list,
    part_count,
    positive_int,
    share,
    text,
    weight,
)
from modeling.cli.pair_flags import HALVES_FLAGS
from modeling.cli.scripts import CORPUS_TRAINING, LANGUAGE_TRAINING, PRETRAIN_DISCRIMINATOR, PRETRAIN_MLM
from ofrecord_util.corpus_kinds import DOCUMENT_ENDS, EVALUATION_TEXTS, LINE, LINE_END, PACKINGS, REFUSE

CORPUS = Group("corpus and masks", "The corpus is text without labels. Its records are in DATA_DIR/ofrecord/corpus/.")
_SPLIT = "the corpus has records of its own"

# fmt: off
CORPUS_FLAGS = (
    Flag("train_data_prefix", CORPUS, CORPUS_TRAINING, text, "train.of_record-", _SPLIT, has_effect=False),
    Flag("train_data_part_num", CORPUS, CORPUS_TRAINING, part_count, 1, _SPLIT, has_effect=False),
    Flag("train_example_num", CORPUS, CORPUS_TRAINING, positive_int, None, _SPLIT, has_effect=False),
    Flag("corpus_file", CORPUS, CORPUS_TRAINING, comma_list, None,
         "text files with one text per line, or folders of files that end in .txt, comma-separated", unset="none"),
    Flag("use_task_text", CORPUS, CORPUS_TRAINING, boolean, None, "the texts of the training split are a part of the corpus",
         unset="true without --corpus_file, else false"),
    Flag("evaluation_text", CORPUS, CORPUS_TRAINING, text, REFUSE,
         "texts of dev or test that stand in the corpus: refuse = stop and say how many; leave_out = train without them; keep = train on "
         "them, so that dev and test measure texts that the model has seen", choices=EVALUATION_TEXTS),
    Flag("packing", CORPUS, LANGUAGE_TRAINING, text, LINE,
         "line = one text per record, the rest of a longer one is left out; packed = texts one after the other, in full records",
         choices=PACKINGS),
    Flag("corpus_data_part_num", CORPUS, CORPUS_TRAINING, part_count, None, "number of record files of the corpus",
         unset="one per 100 MB of text, at most 256"),
    Flag("shuffle_window", CORPUS, CORPUS_TRAINING, positive_int, 65536,
         "records that are in memory together and are shuffled; the corpus is read in order, a window at a time"),
    Flag("batch_size_per_device", CORPUS, LANGUAGE_TRAINING, batch_size, 32, "records per batch"),
    Flag("mask_probability", CORPUS, LANGUAGE_TRAINING, share, 0.15, "share of the tokens of a record that are masked"),
    Flag("whole_word_masking", CORPUS, (PRETRAIN_MLM,), boolean, True, "mask words as a whole, with all of their pieces"),
    Flag("max_predictions_per_seq", CORPUS, LANGUAGE_TRAINING, positive_int, 80, "largest number of masked tokens of a record"),
    Flag("structural", CORPUS, (PRETRAIN_MLM,), boolean, False,
         "also predict the tokens of shuffled trigrams, and whether the second one of two sentences follows the first, precedes it or is "
         "of another text (StructBERT); a record has sentences of one text"),
    Flag("document_end", CORPUS, (PRETRAIN_MLM,), text, LINE_END,
         "what ends a text in files of --structural: line = each line is a text, whose sentences end at . ! ? and the like; blank_line = "
         "each line is a sentence, and a blank line ends a text", choices=DOCUMENT_ENDS),
    Flag("metric_for_best", CORPUS, (PRETRAIN_MLM,), text, CROSS_ENTROPY,
         "the lowest cross-entropy on dev, and so the lowest perplexity, selects the best snapshot", choices=(CROSS_ENTROPY,)),
    Flag("generator_size", CORPUS, (PRETRAIN_DISCRIMINATOR,), share, 0.25, "width of the generator as a share of that of the model"),
    Flag("discriminator_weight", CORPUS, (PRETRAIN_DISCRIMINATOR,), weight, 50.0,
         "weight of the discriminator's loss beside that of the generator"),
    Flag("metric_for_best", CORPUS, (PRETRAIN_DISCRIMINATOR,), text, LATEST,
         "the last evaluation on dev is the best one: replaced tokens come from a generator that changes, so that no measure of two "
         "steps compares", choices=(LATEST,)),
    *HALVES_FLAGS,
)
# fmt: on
