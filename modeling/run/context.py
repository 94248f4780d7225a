"""`RunContext`: the set-up that all scripts share."""

import os
from typing import Optional

from modeling.bert.freezing import plan_freezing
from modeling.checkpoints.snapshot import Snapshot
from modeling.checkpoints.snapshot_tokenizer import open_tokenizer
from modeling.cli.errors import on_failure
from modeling.cli.flags import warn_without_effect
from modeling.engine import parallel
from modeling.engine.cpu_threads import cpu_threads
from modeling.engine.engine import Engine, plan_engine
from modeling.engine.launch import relaunch
from modeling.engine.runtime import select_device
from modeling.run.bucketing import Bucketing
from modeling.run.chosen_settings import apply_auto_settings
from modeling.run.log import Log
from modeling.run.model_size import resolve_config
from modeling.run.prediction_rows import tokens_at_once
from modeling.run.run_folder import RunFolder
from modeling.run.splits import Splits
from ofrecord_util.errors import UserError
from ofrecord_util.label_kinds import CLASSIFICATION
from ofrecord_util.output_checks import check_append
from ofrecord_util.tasks import numbers_for_words, only_domain, resolve_task
from ofrecord_util.text import TextFolder
from ofrecord_util.text_columns import TextOptions

# The first of these flags that a script has is its number of samples per step
_STEP_SIZES = ("inner_batch_size", "batch_size_per_device", "preprocess_batch_size_per_device", "eval_batch_size_per_device")


class RunContext:
    """The environment of one script's run.

    Attributes:
        flags: from `parse_flags`.
        engine: `Engine`.
        log: `Log`.
        task: `Task`.
        tokenizer: `Tokenizer`.
        snapshot: `Snapshot` with the initial weights, or None.
        config: `BertConfig` of the trained model.
        freezing: `Freezing`.
        bucketing: `Bucketing`.
        splits: `Splits`, the data.
        folder: `RunFolder` of a training script, else None.

    Args:
        flags: from `parse_flags`.
        load_dir: snapshot folder to load, None to start from initial values.
        trains: whether the script writes a run folder. The constructor starts such a script once per rank.
        folder_of_text: `TextFolder`, or a subclass that reads another kind of text.
        record_form: `RowForm` of the records; None for the one of texts with a domain and a label.
    Raises:
        UserError: a flag, the data folder, the vocabulary or the snapshot is invalid, or they do not fit each other.
    """

    def __init__(self, flags, load_dir: Optional[str], trains: bool = True, folder_of_text=TextFolder, record_form=None):
        self.flags = flags
        device = select_device(flags.device)
        if trains:
            relaunch(flags, device)
        if flags.use_fp16 and device == "cpu":
            raise UserError("--use_fp16: mixed precision needs CUDA, but this run uses the CPU: leave the flag out")
        self.engine = Engine(device)
        if not os.path.isdir(flags.data_dir):
            raise UserError(f"--data_dir {flags.data_dir}: no such folder")
        options = TextOptions.from_flags(vars(flags), only_domain(flags.task_name, flags.domains))
        text = folder_of_text(flags.data_dir, options)
        self.task = self._find_task(text)
        if os.path.basename(self.task.name) != self.task.name or self.task.name.startswith("."):
            raise UserError(
                f"--task_name {flags.task_name}: the name becomes part of folder names, so it must not contain / or start with a dot"
            )
        self.snapshot = Snapshot(load_dir) if load_dir else None
        self.config = self._find_config()
        self._notes = []  # lines of the log, found before there is one
        self.tokenizer = self._make_tokenizer()
        if flags.auto_settings:
            note = self._auto_settings(text)
            self._notes += [note] if note else []
        self.use_config(self.config)
        if self.freezing.embeddings and self.snapshot is None:
            raise UserError(
                "--freeze_encoder, --freeze_layers: no snapshot is loaded, so there are no weights to freeze: leave the flags out"
            )
        if self.task.pair:
            self.config.check_pairs(load_dir or "--type_vocab_size")
        if flags.seq_length > self.config.max_position_embeddings:
            raise UserError(f"--seq_length {flags.seq_length}: the model has {self.config.max_position_embeddings} positions")
        self.folder = RunFolder(self) if trains else None
        self._log_path = os.path.join(flags.log_dir, flags.script + ".log")
        self.log = self.folder.log if trains else _step_log(self._log_path)
        self.splits = Splits(self, text, record_form)
        self._say_what_runs()

    def _find_task(self, text):
        """The `Task`, from the flags or from the training text, a `TextFolder`."""
        flags = self.flags
        task_type = getattr(flags, "task_type", CLASSIFICATION)  # only finetuning.py has others
        return resolve_task(flags.task_name, flags.data_dir, flags.domains, flags.label_list, text, task_type)

    def _find_config(self):
        """The `BertConfig` of the trained model."""
        return resolve_config(self.flags, self.snapshot)

    def _auto_settings(self, text):
        """Applies --auto_settings. Returns a line for the log, or None."""
        return apply_auto_settings(self.flags, text, self.task, self.config, self.tokenizer, parallel.size())

    def use_config(self, config) -> None:
        """Sets the sizes of the trained model and everything that depends on them. Call it before samples or variables are loaded."""
        self.config, self.freezing, flags = config, plan_freezing(self.flags, config), vars(self.flags)
        batch_size = next(flags[name] for name in _STEP_SIZES if name in flags)
        if "batch_size_per_device" not in flags and self.engine.device == "cpu" and parallel.size() == 1:
            batch_size = max(batch_size, tokens_at_once(config) // self.flags.seq_length, cpu_threads())
        self.engine = plan_engine(self.engine.device, config.dense_weights, batch_size, self.flags.seq_length, self.flags.cpu_lanes)
        self.bucketing = Bucketing(self.flags, config, self.engine)

    def start_log(self) -> None:
        """Creates the log file of a script without a run folder, with all lines so far. Call it when all checks are done: a run that
        is refused leaves nothing."""
        try:
            os.makedirs(os.path.dirname(self._log_path) or ".", exist_ok=True)
        except OSError as error:
            raise UserError(f"{self._log_path}: cannot be written ({error.strerror}); give another --log_dir") from error
        self.log.continue_in(Log(self._log_path))

    def _make_tokenizer(self):
        flags = self.flags
        given = flags.do_lower_case if "do_lower_case" in flags.given else None
        tokenizer = open_tokenizer(self.snapshot, self.config, flags.vocab_file, given, self._notes.append)
        flags.do_lower_case = tokenizer.do_lower_case  # for flags.json, and for what the log says
        return tokenizer

    def _say_what_runs(self):
        flags, c = self.flags, self.config
        warn_without_effect(flags, self.log)
        for note in self._notes:
            self.log(note)
        if flags.cpu_lanes > self.engine.lanes.count == 1:
            self.log("--cpu_lanes has no effect here: runs on a GPU, with several processes or with one sample per step use one lane")
        if numbers_for_words(self.task):
            self.log(
                "the labels in the training text are numbers and are used as names: give --label_list NAME_OF_0,NAME_OF_1 to name them"
            )
        source = f" from {self.snapshot.path}" if self.snapshot else ", initial values"
        self.log(
            f"{flags.script} on {self.engine.device}, OneFlow {self.engine.version}, {c.description}, {c.num_attention_heads} heads, "
            f"{c.vocab_size} pieces{source}"
        )


def _step_log(path):
    """The `Log` of a script without a run folder, until `start_log` without a file."""
    check_append(path, "--log_dir")
    log = Log()
    on_failure(log.note)
    return log
