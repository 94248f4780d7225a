"""The flag table: every flag of every script, in the order of --help."""

from modeling.cli.choices import ACCURACY, AUTO, CORRUPTIONS, DEVICES, DISK, MEAN, METRICS, NEWEST_RUN, POOLINGS, SAMPLED, TEACHER_OUTPUTS
from modeling.cli.flag_kinds import (
    Flag,
    Group,
    at_least,
    batch_size,
    boolean,
    class_weights,
    comma_list,
    fraction,
    int_list,
    non_negative_float,
    non_negative_int,
    part_count,
    port,
    positive_float,
    positive_int,
    text,
)
from modeling.cli.scripts import (
    ALL,
    CORRUPTION,
    DEV_EVALUATION,
    DEV_SPLIT,
    DISTILLATION,
    DOMAIN_LOSS,
    EVAL_TEST_SPLIT,
    META_DISTILL,
    META_FINETUNING,
    META_KD,
    META_TEACHER,
    META_TEACHER_EVAL,
    ONE_PASS,
    PACKING,
    PREPROCESS,
    TRAINING,
)
from ofrecord_util.text_kinds import FORMATS

DATA = Group("data")
MODEL = Group("model", "A size that contradicts the snapshot is an error.")
SCORES = Group("prototypical scores")
DISTILL = Group("distillation", "meta_teacher_eval.py does not write outputs whose weight is 0; meta_distill.py does not need them.")
AUTO_RULE = (
    "--auto_settings chooses what is not given. Batch: 4 samples per step below 200 training rows, 8 below 1,000, 16 below 5,000, else 32. "
    "Epochs: as many as make 300 steps, from 3 to 10. Learning rate: 1e-4 x (384 / hidden size)^1.5 in one digit, from 1e-5 to 3e-4; 1e-3 "
    "with --freeze_encoder. Warm-up: 0.1 of the steps. Evaluations on dev: 10. Length: that of existing records, else the smallest of 32, "
    "64, 128 and 256 tokens that cuts at most 5 % of the training texts. All but the length are for training scripts."
)
OPTIMISATION = Group("optimisation", AUTO_RULE)
OUTPUT = Group("output and machine")

# The rows' default is None, so that a script can tell whether a size was set.
MODEL_SIZE_DEFAULTS = {
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_size_per_head": 64,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
_SIZE = {name: f"that of the snapshot, {default} without one" for name, default in MODEL_SIZE_DEFAULTS.items()}
_DROPOUT = "that of the snapshot, 0.1 without one"

_PREFIX = "first part of the names of the record files of the {} split"
_PARTS = "number of record files of the {} split"
_ROWS = "rows of the {} split to use, from its beginning; all rows if the split has fewer"
_CPU_BATCH = "rows per batch of the {} split on a GPU; on a CPU, the size of the model determines it"

_COLUMN = "column of the {}: a name of the header, a number from 1, or a key of JSON lines"
_BY_NAME = "told from the header, such as {}"

# fmt: off
FLAGS = (
    Flag("task_name", DATA, ALL, text, None, "g1, g2, g3, sst-2, mr, cr, senti, mnli, or the name of a custom task", required=True),
    Flag("data_dir", DATA, ALL, text, None, "folder with train.csv, dev.csv, test.csv and ofrecord/", required=True),
    Flag("vocab_file", DATA, ALL, text, None, "WordPiece vocabulary, one token per line", unset="vocab.txt of the snapshot"),
    Flag("do_lower_case", DATA, ALL, boolean, True,
         "lower-case the text and strip accents; set to false for a cased vocabulary. A snapshot that has its own casing sets the default"),
    Flag("seq_length", DATA, ALL, at_least(int, 3), 512, "tokens per record, with [CLS] and [SEP]; longer texts are truncated",
         aliases=("--max_seq_length",), metavar="TOKENS"),
    Flag("resave_ofrecord", DATA, ALL, boolean, False,
         "write the OFRecord files from the text again, after a change of text, length or vocabulary; the scores of preprocess.py are "
         "kept. Files that do not exist are written without this flag"),
    Flag("domains", DATA, ALL, comma_list, None, "domains of a custom task, comma-separated", unset="read from the training text"),
    Flag("label_list", DATA, ALL, comma_list, None, "labels of a custom task, comma-separated", unset="read from the training text"),
    Flag("text_format", DATA, ALL, text, None,
         "kind of the text files: tsv = separated by tabs, without quotes; csv = separated by commas, with double quotes (RFC 4180); "
         "jsonl = one JSON object per line; auto = told from each file", unset="auto", choices=FORMATS),
    Flag("text_column", DATA, ALL, text, None, _COLUMN.format("text, or of the first text of a pair"),
         unset=_BY_NAME.format("text or review")),
    Flag("pair_column", DATA, ALL, text, None, _COLUMN.format("second text of a pair"), unset=_BY_NAME.format("sentence2")),
    Flag("domain_column", DATA, ALL, text, None,
         _COLUMN.format("domain") + "; text without such a column has one domain, that of --domains or of the task, else the task's name",
         unset=_BY_NAME.format("domain")),
    Flag("label_column", DATA, ALL, text, None, _COLUMN.format("label"), unset=_BY_NAME.format("label or sentiment")),
    Flag("data_url", DATA, ALL, text, "", "--data_dir names the data", has_effect=False),
    Flag("train_data_prefix", DATA, ALL, text, "train.of_record-", _PREFIX.format("training")),
    Flag("train_data_part_num", DATA, ALL, part_count, 1, _PARTS.format("training")),
    Flag("train_example_num", DATA, ALL, non_negative_int, None, _ROWS.format("training"), unset="all rows"),
    Flag("batch_size_per_device", DATA, TRAINING, batch_size, 32, "rows per batch of the training split"),
    Flag("preprocess_batch_size_per_device", DATA, (PREPROCESS,), batch_size, 32,
         "rows per batch when the training split is embedded on a GPU; on a CPU, the size of the model determines it"),
    Flag("dev_data_prefix", DATA, DEV_SPLIT, text, "dev.of_record-", _PREFIX.format("dev")),
    Flag("dev_data_part_num", DATA, DEV_SPLIT, part_count, 1, _PARTS.format("dev")),
    Flag("dev_example_num", DATA, DEV_SPLIT, non_negative_int, None, _ROWS.format("dev"), unset="all rows"),
    Flag("dev_batch_size_per_device", DATA, DEV_EVALUATION, batch_size, 64, _CPU_BATCH.format("dev")),
    Flag("eval_data_prefix", DATA, EVAL_TEST_SPLIT, text, "test.of_record-", _PREFIX.format("test")),
    Flag("eval_data_part_num", DATA, EVAL_TEST_SPLIT, part_count, 1, _PARTS.format("test")),
    Flag("eval_example_num", DATA, EVAL_TEST_SPLIT, non_negative_int, None, _ROWS.format("test"), unset="all rows"),
    Flag("eval_batch_size_per_device", DATA, DEV_EVALUATION, batch_size, 64, _CPU_BATCH.format("test")),
    Flag("eval_data_prefix", DATA, META_KD, text, "dev.of_record-", _PREFIX.format("dev")),
    Flag("eval_data_part_num", DATA, META_KD, part_count, 1, _PARTS.format("dev")),
    Flag("eval_example_num", DATA, META_KD, non_negative_int, 720, _ROWS.format("dev")),
    Flag("eval_batch_size_per_device", DATA, META_KD, batch_size, 64, _CPU_BATCH.format("dev")),
    Flag("test_data_prefix", DATA, META_KD, text, "test.of_record-", _PREFIX.format("test")),
    Flag("test_data_part_num", DATA, META_KD, part_count, 1, _PARTS.format("test")),
    Flag("test_example_num", DATA, META_KD, non_negative_int, None, _ROWS.format("test"), unset="all rows"),
    Flag("pad_to_max_length", DATA, (*TRAINING, META_TEACHER_EVAL), boolean, False,
         "pad batches to --seq_length, not to the longest text of the split; slower, with the same results"),
    Flag("texts_per_row", DATA, PACKING, non_negative_int, 0,
         "texts of a training batch that are packed into one row, to save padding; 0 = chosen by estimated time on a CPU, 1 = no packing"),
    Flag("data_portion", DATA, META_KD, fraction, 1.0, "fraction of the training split to use"),

    Flag("teacher_model", MODEL, (META_DISTILL,), text, None, "snapshot of meta_teacher.py", required=True),
    Flag("student_model", MODEL, (META_DISTILL,), text, None, "snapshot that initialises the student, of any size", required=True),
    Flag("model_load_dir", MODEL, (META_DISTILL,), text, None, "--teacher_model and --student_model name the snapshots", has_effect=False),
    Flag("model_load_dir", MODEL, tuple(script for script in ALL if script != META_DISTILL), text, None,
         "snapshot that initialises the model"),
    Flag("student_num_hidden_layers", MODEL, (META_TEACHER_EVAL,), positive_int, None, "number of encoder layers of the student",
         unset="6, or that of the teacher if it has fewer"),
    Flag("student_num_hidden_layers", MODEL, (META_DISTILL,), positive_int, None, "number of encoder layers of the student",
         unset="6, or that of the student snapshot if it has fewer"),
    Flag("num_hidden_layers", MODEL, ALL, positive_int, None, "number of encoder layers", unset=_SIZE["num_hidden_layers"]),
    Flag("num_attention_heads", MODEL, ALL, positive_int, None, "attention heads per layer", unset=_SIZE["num_attention_heads"]),
    Flag("hidden_size_per_head", MODEL, ALL, positive_int, None, "hidden size divided by the number of attention heads",
         unset=_SIZE["hidden_size_per_head"]),
    Flag("max_position_embeddings", MODEL, ALL, positive_int, None, "number of position embeddings, the longest possible sequence",
         unset=_SIZE["max_position_embeddings"]),
    Flag("type_vocab_size", MODEL, ALL, positive_int, None, "number of segment embeddings", unset=_SIZE["type_vocab_size"]),
    Flag("vocab_size", MODEL, ALL, positive_int, None, "number of word embeddings", unset=_SIZE["vocab_size"]),
    Flag("attention_probs_dropout_prob", MODEL, ALL, fraction, None, "dropout probability of attention probabilities", unset=_DROPOUT),
    Flag("hidden_dropout_prob", MODEL, ALL, fraction, None, "dropout probability of hidden states", unset=_DROPOUT),
    Flag("pooling", MODEL, TRAINING, text, None,
         "sentence representation that the classifier reads: cls = tanh(W h[CLS] + b); mean or max = over the real tokens of the last "
         "layer, without that dense layer", unset="that of the snapshot, cls if the snapshot has no classifier", choices=POOLINGS),
    Flag("max_predictions_per_seq", MODEL, ALL, int, 80, "used in pre-training only", has_effect=False),
    Flag("model", MODEL, ALL, text, None, "used in pre-training only", has_effect=False),

    Flag("prototype_alpha", SCORES, (PREPROCESS,), fraction, 0.5, "weight of the sample's own domain in its prototypical score"),
    Flag("pooling", SCORES, (PREPROCESS,), text, MEAN,
         "representation of a sample: cls = last layer at [CLS]; mean or max = over the real tokens of the last layer", choices=POOLINGS),

    Flag("teacher_output_dir", DISTILL, DISTILLATION, text, None, "folder of the teacher's outputs", unset="DATA_DIR/ofrecord/teacher"),
    Flag("teacher_layers", DISTILL, (META_TEACHER_EVAL,), int_list, None, "encoder layers to write, comma-separated, counted from 0",
         unset="the layers that a student of --student_num_hidden_layers needs"),
    Flag("teacher_outputs", DISTILL, (META_DISTILL,), text, DISK,
         "source of the teacher's outputs: disk = files of meta_teacher_eval.py; online = frozen teacher in the training graph",
         choices=TEACHER_OUTPUTS),
    Flag("hidden_loss_weight", DISTILL, DISTILLATION, non_negative_float, 1.0, "weight of the mean squared error of the hidden states"),
    Flag("attention_loss_weight", DISTILL, DISTILLATION, non_negative_float, 1.0,
         "weight of the mean squared error of the attention scores"),
    Flag("prediction_loss_weight", DISTILL, (META_DISTILL,), non_negative_float, 1.0,
         "weight of the soft cross-entropy with the teacher's logits"),
    Flag("label_loss_weight", DISTILL, (META_DISTILL,), non_negative_float, 1.0, "weight of the cross-entropy with the true labels"),
    Flag("pred_distill", DISTILL, (META_TEACHER_EVAL,), boolean, False,
         "write only the outputs that meta_distill.py --pred_distill needs, the logits"),
    Flag("pred_distill", DISTILL, (META_DISTILL,), boolean, False,
         "train with the soft cross-entropy only, without the hidden, attention, label and transferable-knowledge terms; sample weights "
         "still apply"),
    Flag("temperature", DISTILL, (META_TEACHER_EVAL,), positive_float, 1.0, "meta_distill.py applies it", has_effect=False),
    Flag("temperature", DISTILL, (META_DISTILL,), positive_float, 1.0, "temperature of the soft cross-entropy"),
    Flag("use_domain_loss", DISTILL, (META_TEACHER_EVAL,), boolean, True,
         "write the domain representation for the transferable-knowledge term"),
    Flag("domain_loss_weight", DISTILL, (META_TEACHER_EVAL,), non_negative_float, 0.2, "weight of the transferable-knowledge term, gamma"),
    Flag("use_sample_weights", DISTILL, (META_TEACHER_EVAL,), boolean, True, "meta_distill.py applies it", has_effect=False),

    Flag("auto_settings", OPTIMISATION, TRAINING, boolean, False, "choose the settings that are not given by the rule above"),
    Flag("auto_settings", OPTIMISATION, ONE_PASS, boolean, False, "choose --seq_length by the rule above if it is not given"),
    Flag("do_train", OPTIMISATION, TRAINING, boolean, None, "train", unset="true, but false with --do_eval"),
    Flag("do_train", OPTIMISATION, ONE_PASS, boolean, None, "this script does not train", has_effect=False),
    Flag("do_eval", OPTIMISATION, TRAINING, boolean, None, "evaluate", unset="true"),
    Flag("do_eval", OPTIMISATION, (META_TEACHER_EVAL,), boolean, None, "evaluate the teacher on dev and test too", unset="false"),
    Flag("do_eval", OPTIMISATION, (PREPROCESS,), boolean, None, "this script does not evaluate", has_effect=False),
    Flag("num_epochs", OPTIMISATION, TRAINING, positive_int, 3, "passes over the training split"),
    Flag("num_epochs", OPTIMISATION, ONE_PASS, positive_int, 3, "this script reads the data once", has_effect=False),
    Flag("seed", OPTIMISATION, ALL, non_negative_int, 42, "random seed of initial values, sample order, dropout and corrupted domains"),
    Flag("learning_rate", OPTIMISATION, ALL, non_negative_float, 1e-5, "peak learning rate"),
    Flag("weight_decay_rate", OPTIMISATION, ALL, non_negative_float, 0.01,
         "weight decay of AdamW; biases and LayerNorm parameters do not decay"),
    Flag("warmup_proportion", OPTIMISATION, ALL, fraction, 0.1, "fraction of the steps with a rising learning rate"),
    Flag("adam_bias_correction", OPTIMISATION, ALL, boolean, True, "bias correction of Adam; Google's BERT trains without it"),
    Flag("dev_every_step_num", OPTIMISATION, DEV_EVALUATION, positive_int, 10, "steps between evaluations on dev"),
    Flag("eval_every_step_num", OPTIMISATION, META_KD, positive_int, 100, "steps between evaluations on dev"),
    Flag("use_domain_loss", OPTIMISATION, CORRUPTION, boolean, True, "add the corrupted-domain loss"),
    Flag("use_domain_loss", OPTIMISATION, (META_DISTILL,), boolean, True, "add the transferable-knowledge term"),
    Flag("use_sample_weights", OPTIMISATION, CORRUPTION, boolean, True, "weight samples by their prototypical scores"),
    Flag("use_sample_weights", OPTIMISATION, (META_DISTILL,), boolean, True, "weight samples by domain expertise"),
    Flag("normalize_sample_weights", OPTIMISATION, DOMAIN_LOSS, boolean, False,
         "scale the prototypical scores to mean 1 over the training split"),
    Flag("domain_loss_weight", OPTIMISATION, (META_FINETUNING,), non_negative_float, 0.1, "weight of the corrupted-domain loss, lambda"),
    Flag("domain_loss_weight", OPTIMISATION, (META_TEACHER,), non_negative_float, 0.2, "weight of the corrupted-domain loss, lambda"),
    Flag("domain_loss_weight", OPTIMISATION, (META_DISTILL,), non_negative_float, 0.2, "weight of the transferable-knowledge term, gamma"),
    Flag("corruption", OPTIMISATION, CORRUPTION, text, SAMPLED,
         "target of the corrupted-domain loss: sampled = one random other domain per sample and step; all = mean over all other domains",
         choices=CORRUPTIONS),
    Flag("domain_layers", OPTIMISATION, CORRUPTION, int_list, None,
         "encoder layers that the domain loss reads, comma-separated, counted from 0", unset="layers at one third, two thirds and the end"),
    Flag("pred_distill", OPTIMISATION, (META_TEACHER,), boolean, False, "meta_distill.py applies it", has_effect=False),
    Flag("temperature", OPTIMISATION, (META_TEACHER,), positive_float, 1.0, "meta_distill.py applies it", has_effect=False),
    Flag("gradient_accumulation_steps", OPTIMISATION, TRAINING, positive_int, 1,
         "batches per step; the step uses their mean gradient"),
    Flag("freeze_encoder", OPTIMISATION, TRAINING, boolean, False, "train the heads only; freeze embeddings, encoder layers and pooler"),
    Flag("freeze_layers", OPTIMISATION, TRAINING, non_negative_int, None,
         "freeze the embeddings and the first N encoder layers; 0 = embeddings only", unset="nothing is frozen", metavar="N"),
    Flag("max_steps", OPTIMISATION, TRAINING, positive_int, None,
         "stop after this number of steps; the learning rate schedule does not change, and --resume continues the run",
         unset="all steps of --num_epochs"),
    Flag("early_stop_patience", OPTIMISATION, TRAINING, positive_int, None,
         "stop after this number of evaluations on dev without improvement of --metric_for_best", unset="no early stop"),
    Flag("metric_for_best", OPTIMISATION, TRAINING, text, ACCURACY,
         "measure on dev that selects the best snapshot: the highest value, or the lowest cross-entropy. The name of the snapshot contains "
         "the accuracy in any case", choices=METRICS),
    Flag("class_weights", OPTIMISATION, TRAINING, class_weights, None,
         "factors of the label loss by true label: balanced = N / (K n) for a label with n of the N training rows, K labels with rows; or "
         "one number per label, comma-separated, in the order of --label_list", unset="1 for each label", metavar="WEIGHTS"),
    Flag("label_smoothing", OPTIMISATION, TRAINING, fraction, 0.0,
         "share of the target of the label loss that is spread evenly over all labels"),

    Flag("device", OUTPUT, ALL, text, AUTO, "device that computes; auto = cuda if available, else cpu", choices=DEVICES),
    Flag("model_save_dir", OUTPUT, ALL, text, "./output/model_save-%Y-%m-%d-%H:%M:%S",
         "run folder: snapshots, metrics, log, curves; time fields are filled in"),
    Flag("model_save_every_n_iter", OUTPUT, ALL, positive_int, 10000, "steps between periodic snapshots"),
    Flag("resume", OUTPUT, TRAINING, text, None,
         "continue the interrupted run in this folder, with the other flags unchanged; without a value: the newest interrupted run in the "
         "parent folder of --model_save_dir", metavar="RUN", bare=NEWEST_RUN),
    Flag("state_save_every_n_iter", OUTPUT, TRAINING, positive_int, 500,
         "steps between training states for --resume; the newest two are kept"),
    Flag("save_last_snapshot", OUTPUT, ALL, boolean, False, "save a snapshot of the last step too"),
    Flag("keep_all_best", OUTPUT, ALL, boolean, False, "keep every best snapshot, not only the newest"),
    Flag("log_dir", OUTPUT, ALL, text, "./output", "folder of the logs of scripts without a run folder"),
    Flag("loss_print_every_n_iter", OUTPUT, ALL, positive_int, 10, "steps between lines of the log"),
    Flag("gpu_num_per_node", OUTPUT, TRAINING, at_least(int, 1, 256), 1,
         "devices per machine, with one process each; with --device cpu, processes that share the cores"),
    Flag("gpu_num_per_node", OUTPUT, ONE_PASS, positive_int, 1, "this script runs on one device", has_effect=False),
    Flag("memory_limit", OUTPUT, TRAINING, positive_float, None,
         "GB of memory that a run on a CPU may use; a training step is computed in as many parts as fit",
         unset="nine tenths of the free memory", metavar="GB"),
    Flag("memory_limit", OUTPUT, ONE_PASS, positive_float, None, "GB of memory that the script may use on a CPU; it stops if it needs more",
         unset="nine tenths of the free memory", metavar="GB"),
    Flag("cpu_lanes", OUTPUT, ALL, non_negative_int, 0, "parts of a batch that the CPU computes in parallel; 0 = automatic, up to 4"),
    Flag("num_nodes", OUTPUT, TRAINING, positive_int, 1, "number of machines"),
    Flag("num_nodes", OUTPUT, ONE_PASS, positive_int, 1, "this script runs on one device", has_effect=False),
    Flag("node_ips", OUTPUT, ALL, comma_list, None, "addresses of the machines, comma-separated; needed with --num_nodes above 1"),
    Flag("ctrl_port", OUTPUT, ALL, port, 50051, "port of the first machine; on one machine, a free port is used unless this is set"),
    Flag("rank_timeout", OUTPUT, TRAINING, positive_float, 1800.0,
         "seconds without a sign of life from a rank after which all ranks are ended; with several processes only", metavar="SECONDS"),
    Flag("use_fp16", OUTPUT, ALL, boolean, False, "mixed precision, on CUDA only"),
    Flag("use_xla", OUTPUT, ALL, boolean, None, "OneFlow no longer has an XLA engine", has_effect=False),
)
# fmt: on
