"""The flags of all six scripts, defined once, in groups: names, types and defaults are those of the documented command lines."""

import argparse
import sys
import time

from modeling.bert.config import MEAN, POOLINGS
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError
from modeling.cli.flags_file import RUN_FLAGS_FILE, expand

PREPROCESS, META_FINETUNING, FINETUNING = "preprocess", "meta_finetuning", "finetuning"
META_TEACHER, META_TEACHER_EVAL, META_DISTILL = "meta_teacher", "meta_teacher_eval", "meta_distill"
SCRIPTS = (PREPROCESS, META_FINETUNING, FINETUNING, META_TEACHER, META_TEACHER_EVAL, META_DISTILL)

NEWEST_RUN = "newest"  # --resume without a value

# A snapshot's own sizes win where these are not given; these hold where no snapshot says anything.
MODEL_SIZE_DEFAULTS = {
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_size_per_head": 64,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


# Flags that the documents' scripts accepted everywhere and that mean nothing to these
_IDLE = {
    META_TEACHER: ("pred_distill", "temperature"),
    META_TEACHER_EVAL: ("temperature", "use_sample_weights"),
    META_DISTILL: ("model_load_dir",),
}


def _boolean(text):
    if text.lower() in ("true", "yes", "1", "t", "y"):
        return True
    if text.lower() in ("false", "no", "0", "f", "n"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _list(text):
    return [part.strip() for part in text.split(",") if part.strip()]


def _int_list(text):
    try:
        return [int(part) for part in _list(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no comma-separated list of whole numbers") from None


def _at_least(kind, lowest):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError("{!r} is no {}".format(text, "whole number" if kind is int else "number")) from None
        if not lowest <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not {lowest} or more")
        return value

    return parse


def _fraction(text):
    value = _at_least(float, 0.0)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return value


def _above_zero(text):
    value = _at_least(float, 0.0)(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


_positive, _count, _rate = _at_least(int, 1), _at_least(int, 0), _at_least(float, 0.0)


class _Group:
    def __init__(self, parser, title):
        self._group = parser.add_argument_group(title)

    def add(self, name, kind, default, text, **more):
        if kind is bool:
            more.update(type=_boolean, nargs="?", const=True, metavar="BOOL")
        else:
            more.update(type=kind)
        self._group.add_argument("--" + name, *more.pop("aliases", ()), default=default, help=text, **more)


def _split(group, name, split, example_num=None, batch_size=None):
    """The flags of one split of the data, in the documents' spelling."""
    group.add(name + "_data_prefix", str, split + ".of_record-", f"how the names of the {split} split's record files begin")
    group.add(name + "_data_part_num", _positive, 1, f"number of record files of the {split} split")
    group.add(
        name + "_example_num",
        _count,
        example_num,
        f"samples that the {split} split is believed to hold: fewer uses the first ones, more all there are",
    )
    if batch_size:
        # the documents call the training batch's flag plainly --batch_size_per_device
        flag = "batch_size_per_device" if name == "train" else name + "_batch_size_per_device"
        more = "" if name == "train" else " (a CPU takes short texts together)"
        group.add(flag, _positive, batch_size, f"samples of the {split} split in a batch{more}")


def build_parser(script, description=None):
    """The parser of one of SCRIPTS."""
    trains = script in (META_FINETUNING, FINETUNING, META_TEACHER, META_DISTILL)
    meta_kd = script in (META_TEACHER, META_TEACHER_EVAL, META_DISTILL)
    parser = Parser(
        prog=script + ".py",
        description=description,
        usage="%(prog)s [@FILE] [--FLAG VALUE ...]",  # all sixty follow in groups
        epilog=f"@FILE among the flags stands for those in FILE, a flag a line; flags behind it override them. The {RUN_FLAGS_FILE} "
        "in a run's folder holds what that run was given.",
    )

    data = _Group(parser, "data")
    data.add("task_name", str, None, "g1, g2, g3, sst-2, mr, cr, senti, mnli or a name of your own", required=True)
    data.add("data_dir", str, None, "folder of train.csv, dev.csv, test.csv and of ofrecord/", required=True)
    data.add("vocab_file", str, None, "WordPiece vocabulary, vocab.txt (default: the one in the snapshot)")
    data.add("do_lower_case", bool, True, "lower-case the text and strip accents; false for a cased vocabulary")
    data.add(
        "seq_length",
        _at_least(int, 3),
        512,
        "tokens of a record, [CLS] and [SEP] included; longer texts are truncated",
        aliases=("--max_seq_length",),
        metavar="TOKENS",
    )
    data.add("resave_ofrecord", bool, False, "write the OFRecord files again from the text; scores of preprocess.py are kept")
    data.add("domains", _list, None, "domains of a task of your own, comma-separated (default: read from the training text)")
    data.add(
        "label_list",
        _list,
        None,
        "labels of a task of your own, comma-separated (default: read from the training text)",
    )
    data.add("data_url", str, "", "accepted, no effect: data comes from --data_dir")
    _split(data, "train", "train", batch_size=32 if trains else None)
    if script == PREPROCESS:
        data.add("preprocess_batch_size_per_device", _positive, 32, "samples of the training split embedded at once")
    if not meta_kd:
        _split(data, "dev", "dev", batch_size=64 if trains else None)
    # The documents' eval_* flags speak of the test split in Meta Fine-tuning and of the dev split in Meta-KD
    if script in (PREPROCESS, FINETUNING):
        _split(data, "eval", "test", batch_size=64 if script == FINETUNING else None)
    elif meta_kd:
        _split(data, "eval", "dev", example_num=720, batch_size=64)
        _split(data, "test", "test")
    if trains or script == META_TEACHER_EVAL:
        data.add(
            "pad_to_max_length",
            bool,
            False,
            "pad batches to --seq_length instead of the split's longest text (same results, slower)",
        )
    if trains and script != META_DISTILL:
        data.add(
            "texts_per_row",
            _count,
            0,
            "texts of a training batch that share a row, for less padding (0: as many as pay on a CPU, 1: none)",
        )
    if meta_kd:
        data.add("data_portion", _fraction, 1.0, "share of the training split that is used")

    model = _Group(parser, "model (a snapshot's own sizes hold where a size is not given)")
    if script == META_DISTILL:
        model.add("teacher_model", str, None, "snapshot of meta_teacher.py", required=True)
        model.add("student_model", str, None, "snapshot of any size that the student starts from", required=True)
        model.add("model_load_dir", str, None, "accepted, no effect: --teacher_model and --student_model name the snapshots")
    else:
        model.add("model_load_dir", str, None, "snapshot to start from")
    if script in (META_TEACHER_EVAL, META_DISTILL):
        model.add(
            "student_num_hidden_layers",
            _positive,
            None,
            "encoder layers of the student (default: 6, or the {}'s own if fewer)".format(
                "student snapshot" if script == META_DISTILL else "teacher"
            ),
        )
    for name, default in MODEL_SIZE_DEFAULTS.items():
        model.add(name, _positive, None, f"as its name says; without a snapshot {default}")
    model.add("attention_probs_dropout_prob", _fraction, None, "dropout of attention probabilities; without a snapshot 0.1")
    model.add("hidden_dropout_prob", _fraction, None, "dropout of hidden states; without a snapshot 0.1")
    if trains:
        model.add(
            "pooling",
            str,
            None,
            "what the classifier stands on: cls, tanh(W h[CLS] + b); mean or max of the last layer over real tokens, without that dense "
            "layer (default: as in the snapshot, cls where it has no classifier)",
            choices=POOLINGS,
        )
    model.add("max_predictions_per_seq", int, 80, "accepted, no effect (pre-training)")
    model.add("model", str, None, "accepted, no effect (pre-training)")

    if script == PREPROCESS:
        scores = _Group(parser, "prototypical scores")
        scores.add("prototype_alpha", _fraction, 0.5, "share of the sample's own domain in its score")
        scores.add(
            "pooling",
            str,
            MEAN,
            "a sample's representation: the last layer at [CLS], or its mean or max over real tokens",
            choices=POOLINGS,
        )

    if script in (META_TEACHER_EVAL, META_DISTILL):
        _distillation(parser, script)

    optimisation = _Group(parser, "optimisation")
    optimisation.add("do_train", bool, None, "unset: the step's normal work; false with --do_eval: only evaluate")
    optimisation.add("do_eval", bool, None, "evaluate; unset: the step's normal work")
    optimisation.add(
        "num_epochs",
        _at_least(int, 1),
        3,
        "passes over the training split" if trains else "accepted, no effect: one pass is enough here",
    )
    optimisation.add("seed", _count, 42, "of initial values, order, dropout and corrupted domains")
    optimisation.add("learning_rate", _rate, 1e-5, "peak learning rate")
    optimisation.add("weight_decay_rate", _rate, 0.01, "AdamW's decay, off for biases and LayerNorm")
    optimisation.add("warmup_proportion", _fraction, 0.1, "share of the steps that warm up")
    optimisation.add("adam_bias_correction", bool, True, "Adam's bias correction (Google's BERT had none)")
    if script in (META_FINETUNING, FINETUNING):
        optimisation.add("dev_every_step_num", _positive, 10, "steps between evaluations on dev")
    elif meta_kd:
        optimisation.add("eval_every_step_num", _positive, 100, "steps between evaluations on dev")
    if script in (META_FINETUNING, META_TEACHER, META_DISTILL):
        optimisation.add(
            "use_domain_loss",
            bool,
            True,
            "add the corrupted-domain loss (meta_distill: the transferable-knowledge term)",
        )
        optimisation.add("use_sample_weights", bool, True, "weight samples by prototypical scores (meta_distill: domain expertise)")
        optimisation.add("normalize_sample_weights", bool, False, "scale the samples' weights to mean 1 over the training split")
        optimisation.add("domain_loss_weight", _rate, 0.1 if script == META_FINETUNING else 0.2, "lambda (meta_distill: gamma)")
    if script in (META_FINETUNING, META_TEACHER):
        optimisation.add(
            "corruption",
            str,
            "sampled",
            "what the domain loss asks for: sampled, one other domain drawn anew each step; all, the mean over all others",
            choices=("sampled", "all"),
        )
        optimisation.add(
            "domain_layers",
            _int_list,
            None,
            "encoder layers of the domain loss, from 0 (default: at a third, two thirds and the end)",
        )
    if script == META_TEACHER:
        optimisation.add("pred_distill", bool, False, "accepted, no effect here: meta_distill.py distils")
        optimisation.add("temperature", _above_zero, 1.0, "accepted, no effect here: meta_distill.py distils")

    if trains:
        optimisation.add(
            "gradient_accumulation_steps",
            _positive,
            1,
            "batches whose mean gradient makes one step: the memory of one, the effect of a batch that many times larger",
        )
        optimisation.add("freeze_encoder", bool, False, "train the heads only: embeddings, encoder layers and pooler stay as they are")
        optimisation.add(
            "freeze_layers",
            _count,
            None,
            "embeddings and the first N encoder layers stay as they are (0: the embeddings alone; default: all are trained)",
            metavar="N",
        )
        optimisation.add("max_steps", _positive, None, "stop after that many steps, of the same schedule (for dry runs); --resume goes on")
        optimisation.add("early_stop_patience", _positive, None, "stop after that many evaluations on dev without a better one")

    output = _Group(parser, "output and machine")
    output.add("device", str, "auto", "auto, cuda or cpu", choices=("auto", "cuda", "cpu"))
    output.add(
        "model_save_dir",
        str,
        "./output/model_save-%Y-%m-%d-%H:%M:%S",
        "folder of the run: snapshots, metrics, log, curves",
    )
    output.add("model_save_every_n_iter", _positive, 10000, "steps between periodic snapshots")
    if trains:
        output.add(
            "resume",
            str,
            None,
            "continue this run folder (without a value: the newest one beside --model_save_dir that was cut off); same flags otherwise",
            nargs="?",
            const=NEWEST_RUN,
            metavar="RUN",
        )
        output.add("state_save_every_n_iter", _positive, 500, "steps between states that --resume continues from; two are kept")
    output.add("save_last_snapshot", bool, False, "keep a snapshot of the last step too")
    output.add("keep_all_best", bool, False, "keep every best snapshot and not only the newest")
    output.add("log_dir", str, "./output", "folder of the logs of steps that have no run folder")
    output.add("loss_print_every_n_iter", _positive, 10, "steps between lines of the log")
    output.add("gpu_num_per_node", _positive, 1, "devices of a machine, a process for each; with --device cpu processes on its cores")
    output.add("cpu_lanes", _count, 0, "parts of a batch that the CPU's cores compute beside each other (0: up to four)")
    output.add("num_nodes", _positive, 1, "machines")
    output.add("node_ips", _list, None, "addresses of the machines, comma-separated")
    output.add("ctrl_port", _positive, 50051, "port of the first machine")
    output.add("use_fp16", bool, False, "mixed precision (CUDA only)")
    output.add("use_xla", bool, None, "accepted, no effect: OneFlow has no such engine any more")
    return parser


def _distillation(parser, script):
    """The flags of what the student learns from; meta_teacher_eval.py writes what the same flags of meta_distill.py need."""
    writes = script == META_TEACHER_EVAL
    group = _Group(parser, "distillation" + (" (a weight of 0: meta_distill.py will not need it, not written)" if writes else ""))
    group.add("teacher_output_dir", str, None, "folder of the teacher's outputs (default: DATA_DIR/ofrecord/teacher)")
    if writes:
        group.add(
            "teacher_layers",
            _int_list,
            None,
            "encoder layers to write, from 0 (default: those that a student of --student_num_hidden_layers learns from)",
        )
    else:
        group.add(
            "teacher_outputs",
            str,
            "disk",
            "disk: the files of meta_teacher_eval.py; online: the frozen teacher in the same graph",
            choices=("disk", "online"),
        )
    group.add("hidden_loss_weight", _rate, 1.0, "weight of the hidden states' mean squared error")
    group.add("attention_loss_weight", _rate, 1.0, "weight of the attention scores' mean squared error")
    if not writes:
        group.add("prediction_loss_weight", _rate, 1.0, "weight of the soft cross-entropy with the teacher's logits")
        group.add("label_loss_weight", _rate, 1.0, "weight of the cross-entropy with the true labels")
    group.add(
        "pred_distill",
        bool,
        False,
        "the soft cross-entropy alone (sample weights stay): no hidden, attention, label and transferable-knowledge term",
    )
    group.add("temperature", _above_zero, 1.0, "accepted, no effect here" if writes else "T of the soft cross-entropy")
    if writes:
        group.add("use_domain_loss", bool, True, "false: the domain representation is not written")
        group.add("domain_loss_weight", _rate, 0.2, "gamma of meta_distill.py")
        group.add("use_sample_weights", bool, True, "accepted, no effect here")


def parse_flags(script, description=None, argv=None):
    """Parses a script's command line, files of flags (@FILE) included.

    Returns:
        argparse.Namespace with every flag of the script, `script` and `given` (the names that stand on the command
        line or in its files).
    Raises:
        UserError: a file of flags at fault.
    """
    parser = build_parser(script, description)
    argv = expand(sys.argv[1:] if argv is None else argv, script, parser)
    flags = parser.parse_args(argv)
    names = {option: action.dest for action in parser._actions for option in action.option_strings}
    flags.given = sorted({names[arg.split("=")[0]] for arg in argv if arg.split("=")[0] in names})
    flags.script = script
    return flags


def evaluation_period(flags):
    """Steps between evaluations on dev: a flag of one name in Meta Fine-tuning and of another in Meta-KD."""
    return flags.dev_every_step_num if hasattr(flags, "dev_every_step_num") else flags.eval_every_step_num


def warn_without_effect(flags, log):
    """Says in one line each which given flags have no effect."""
    if flags.use_xla:
        log("--use_xla has no effect: OneFlow has no XLA engine any more")
    idle = ("max_predictions_per_seq", "model", "data_url")
    for name in (*idle, *_IDLE.get(flags.script, ())):
        if name in flags.given:
            log(f"--{name} has no effect here")
    if flags.script in (PREPROCESS, META_TEACHER_EVAL) and "num_epochs" in flags.given:
        log("--num_epochs has no effect here: one pass over the data is enough")
    if flags.script in (PREPROCESS, META_TEACHER_EVAL) and flags.gpu_num_per_node * flags.num_nodes > 1:
        log("--gpu_num_per_node and --num_nodes have no effect here: this step runs on one device")


def run_folder_name(pattern, now=None):
    """`--model_save_dir` with its time fields filled in."""
    return time.strftime(pattern, now or time.localtime())


def check_modes(flags):
    """(do_train, do_eval) with unset flags resolved.

    Raises:
        UserError: nothing is left to do.
    """
    train = flags.do_train if flags.do_train is not None else not (flags.do_eval and "do_eval" in flags.given)
    evaluate = flags.do_eval if flags.do_eval is not None else True
    if not train and getattr(flags, "resume", None) is not None:
        raise UserError("--resume continues a training, and --do_train false leaves none")
    if not train and not evaluate:
        raise UserError("--do_train false and --do_eval false leave nothing to do")
    return train, evaluate
