"""Parser of the scripts' command lines, made from the flag table, and values that follow from several flags."""

import argparse
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from modeling.cli.choices import NEWEST_RUN, TASK_DRIVEN
from modeling.cli.command_line import Parser
from modeling.cli.flag_kinds import Flag, boolean
from modeling.cli.flag_table import FLAGS, MODEL_SIZE_DEFAULTS
from modeling.cli.flags_file import RUN_FLAGS_FILE, expand
from modeling.cli.scripts import (
    DOCUMENTED_SCRIPTS,
    DOMAIN_MIXING,
    FINETUNING,
    GENERATION,
    META_DISTILL,
    META_FINETUNING,
    META_REPTILE,
    META_TEACHER,
    META_TEACHER_EVAL,
    METRIC_LEARNING,
    PREPROCESS,
    PRETRAIN_DISCRIMINATOR,
    PRETRAIN_MLM,
    PRETRAIN_PAIRS,
    SCRIPTS,
    SEQUENCE_LABELING,
    SPAN_ANSWERING,
    TRAINING,
    script_path,
)
from modeling.cli.training_flags import training_flags
from ofrecord_util.errors import UserError
from ofrecord_util.text_files import UNLABELLED

__all__ = [
    "DOCUMENTED_SCRIPTS",
    "DOMAIN_MIXING",
    "FINETUNING",
    "GENERATION",
    "META_DISTILL",
    "META_FINETUNING",
    "META_REPTILE",
    "META_TEACHER",
    "META_TEACHER_EVAL",
    "METRIC_LEARNING",
    "MODEL_SIZE_DEFAULTS",
    "NEWEST_RUN",
    "PREPROCESS",
    "PRETRAIN_DISCRIMINATOR",
    "PRETRAIN_MLM",
    "PRETRAIN_PAIRS",
    "SCRIPTS",
    "SEQUENCE_LABELING",
    "SPAN_ANSWERING",
    "TEXT_FLAGS",
    "add_text_flags",
    "build_parser",
    "check_modes",
    "evaluation_flag",
    "evaluation_period",
    "flags_of",
    "learning_rates",
    "parse_flags",
    "run_folder_name",
    "script_path",
    "training_split",
    "warn_without_effect",
]


def flags_of(script: str) -> List[Flag]:
    """Rows of the flag table that belong to a script, in the order of --help."""
    return [flag for flag in FLAGS if script in flag.scripts]


def _add_flag(group: Any, flag: Flag) -> None:
    # The parser appends the other defaults
    help_text = f"{flag.meaning} (default: {flag.unset})" if flag.unset else flag.meaning
    options: Dict[str, Any] = {"type": flag.kind, "default": flag.default, "help": help_text, "required": flag.required}
    metavar, bare = ("BOOL", True) if flag.kind is boolean else (flag.metavar, flag.bare)
    if bare is not None:
        options.update(nargs="?", const=bare)
    group.add_argument(*flag.option_strings, choices=flag.choices, metavar=metavar, **options)


def build_parser(script: str, description: Optional[str] = None) -> Parser:
    """Builds the parser of a script from the flag table.

    Args:
        script: a key of `SCRIPTS`.
        description: first part of --help.
    Returns:
        the parser, with one group per `Group` of the table.
    """
    parser = Parser(
        prog=script_path(script),
        may_be_empty=[flag.name for flag in flags_of(script) if not flag.has_effect],
        description=description,
        usage="%(prog)s [@FILE] [--FLAG VALUE ...]",  # argparse would list some sixty flags
        epilog="@FILE inserts the flags in FILE, which has one flag per line; later flags on the command line override them. "
        f"{RUN_FLAGS_FILE} in a run folder has the flags of that run.",
    )
    groups: Dict[Any, Any] = {}
    for flag in flags_of(script):
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group.title, flag.group.note or None)
        _add_flag(groups[flag.group], flag)
    return parser


TEXT_FLAGS = ("text_format", "text_column", "pair_column", "domain_column", "label_column")


def add_text_flags(parser: Parser, names: Tuple[str, ...] = TEXT_FLAGS) -> None:
    """Adds the flags of the table that describe text files to the parser of a tool, as the scripts with labels have them."""
    for flag in FLAGS:
        if flag.name in names and FINETUNING in flag.scripts:
            _add_flag(parser, flag)


def parse_flags(script: str, description: Optional[str] = None, argv: Optional[List[str]] = None) -> argparse.Namespace:
    """Parses the command line of a script, including flags files (@FILE).

    Args:
        script: a key of `SCRIPTS`.
        description: first part of --help.
        argv: arguments; None means those of the process.
    Returns:
        argparse.Namespace with every flag of the script, `script`, and `given` (sorted names of the flags that the
        command line or its flags files set).
    Raises:
        UserError: a flags file cannot be read or has an error.
    """
    parser = build_parser(script, description)
    argv = expand(sys.argv[1:] if argv is None else argv, script, parser)
    flags = parser.parse_args(argv)
    names = {option: action.dest for action in parser._actions for option in action.option_strings}
    flags.given = sorted({names[arg.split("=")[0]] for arg in argv if arg.split("=")[0] in names})
    flags.script = script
    return flags


def evaluation_flag(flags: argparse.Namespace) -> str:
    """Name of the flag for steps between evaluations on dev; it differs between Meta Fine-tuning and Meta-KD."""
    return "dev_every_step_num" if hasattr(flags, "dev_every_step_num") else "eval_every_step_num"


def evaluation_period(flags: argparse.Namespace) -> int:
    """Steps between evaluations on dev."""
    return getattr(flags, evaluation_flag(flags))


def learning_rates(script: str) -> List[str]:
    """Names of the flags of a script's learning rates."""
    return [flag.name for flag in flags_of(script) if flag.has_effect and flag.name.endswith("learning_rate")]


def training_split(flags: argparse.Namespace) -> str:
    """Name of the split that a script trains on or writes teacher outputs for: "train", or `UNLABELLED` with --unlabelled."""
    return UNLABELLED if getattr(flags, "unlabelled", False) else "train"


# Flags that belong to another one: without effect while that one has its default, or another value than the given one
_BELONGS_TO = {
    "adversarial_sigma": "adversarial_factor",
    "adversarial_bound": "adversarial_factor",
    "reserve_p": "child_tuning",
    "fisher_batch_size": "child_tuning",
    "document_end": "structural",
}
_BELONGS_TO_VALUE = {"fisher_batch_size": TASK_DRIVEN}


def warn_without_effect(flags: argparse.Namespace, log: Callable[[str], Any]) -> None:
    """Logs one line per flag that is set and has no effect: because the script does not use it and its value is not the default, or because
    the flag that it belongs to is not set. Those that only a training uses, in a run that does not train, are together on one line.

    Args:
        flags: from `parse_flags`.
        log: function of one line of text.
    """
    own = {flag.name: flag for flag in flags_of(flags.script)}
    unused = [] if trains(flags) else [name for name in own if name in training_flags(flags.script) and name in flags.given]
    unused = [name for name in unused if own[name].has_effect]
    if unused:
        named, have = ", ".join("--" + name for name in unused), "have" if len(unused) > 1 else "has"
        why = "this run does not train (--do_train is false)" if flags.script in TRAINING else "this script does not train"
        log(f"{named} {have} no effect: {why}")
    for flag in own.values():
        if flag.name in unused:
            continue
        if not flag.has_effect and flag.name in flags.given and getattr(flags, flag.name) != flag.default:
            log(f"--{flag.name} has no effect: {flag.help}")
        if flag.has_effect and _BELONGS_TO.get(flag.name) in own and flag.name in flags.given:
            other = own[_BELONGS_TO[flag.name]]
            value, needed = getattr(flags, other.name), _BELONGS_TO_VALUE.get(flag.name)
            if value == other.default or (needed is not None and value != needed):
                log(f"--{flag.name} has no effect without --{other.name}" + (f" {needed}" if needed is not None else ""))


def run_folder_name(pattern: str, now: Optional[time.struct_time] = None) -> str:
    """Fills in the time fields of `--model_save_dir`."""
    return time.strftime(pattern, now or time.localtime())


def trains(flags: argparse.Namespace) -> bool:
    """Whether a run trains: as --do_train says, which is true by default, but false with --do_eval. The scripts that read the data once
    never do."""
    if flags.script not in TRAINING:
        return False
    return flags.do_train if flags.do_train is not None else not (flags.do_eval and "do_eval" in flags.given)


def check_modes(flags: argparse.Namespace) -> Tuple[bool, bool]:
    """Resolves `--do_train` and `--do_eval`.

    Args:
        flags: from `parse_flags`.
    Returns:
        (do_train, do_eval), both of them True or False.
    Raises:
        UserError: the flags exclude training and evaluation, or exclude training and ask for --resume.
    """
    train = trains(flags)
    evaluate = flags.do_eval if flags.do_eval is not None else True
    if not train and getattr(flags, "resume", None) is not None:
        raise UserError("--resume continues a training: remove --do_train false, and add --do_train true if --do_eval is set")
    if not train and not evaluate:
        raise UserError("--do_train false and --do_eval false leave nothing to do: set one of them to true")
    return train, evaluate
