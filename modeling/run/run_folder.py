"""The folder of a training run: creates or finds it, and writes its files."""

import json
import os

from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, write_variables
from modeling.checkpoints.snapshot_tokenizer import TOKENIZER_FILE, settings_text
from modeling.cli.flags import run_folder_name
from modeling.engine import parallel
from modeling.run.log import LOG_FILE, Log
from modeling.run.metrics import Metrics
from modeling.run.predictions import predictions_path, write_predictions
from modeling.run.resume import find_run, newest_state
from ofrecord_util.errors import UserError


def unique_folder(path):
    """Creates a folder and returns its path. If the name exists, a number is appended, so that two runs never share a folder."""
    for number in range(1000):
        candidate = path if number == 0 else f"{path}-{number}"
        try:
            os.makedirs(candidate)
            return candidate
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"--model_save_dir {path}: cannot be created ({error.strerror})") from error
    raise UserError(f"--model_save_dir {path}: a thousand folders with this name exist already")


class RunFolder:
    """A run's folder. Only rank 0 writes files.

    Attributes:
        path: its path.
        log: `Log`.
        metrics: `Metrics`.
        state: `State` from which --resume continues, or None.

    Args:
        context: `RunContext`.
    """

    def __init__(self, context):
        self._context, flags = context, context.flags
        resumes, path = flags.resume is not None, None
        if parallel.is_main():
            path = find_run(flags) if resumes else unique_folder(run_folder_name(flags.model_save_dir))
            self.log = Log(os.path.join(path, LOG_FILE), exclusive=True)
        else:
            self.log = Log(silent=True)
        self.path = parallel.broadcast(path)
        self.metrics = Metrics(self.path, writes=parallel.is_main())
        self.state = newest_state(self.path, self.log) if resumes else None

    def write_snapshot(self, name, variables, config=None, decay=1.0):
        """Writes the variables as a snapshot with sizes, vocabulary and task. Returns its path.

        Args:
            name: name of the snapshot's folder.
            variables: `Variables`.
            config: `BertConfig`; None for that of the run.
            decay: see `Variables.arrays`.
        """
        path, context = os.path.join(self.path, name), self._context
        if not parallel.is_main():
            return path
        with open(context.tokenizer.vocab_file, "rb") as file:
            vocabulary = file.read()
        flags = context.flags
        task = dict(context.task.to_dict(), script=flags.script, seq_length=flags.seq_length, do_lower_case=context.tokenizer.do_lower_case)
        files = {
            CONFIG_FILE: (config or context.config).to_json(),
            VOCAB_FILE: vocabulary,
            TOKENIZER_FILE: settings_text(context.tokenizer.settings),
            TASK_FILE: json.dumps(task, indent=2, sort_keys=True) + "\n",
        }
        write_variables(path, variables.arrays(decay), files)
        return path

    def write_predictions(self, name, predictions):
        """Writes `predictions_NAME.tsv`.

        Args:
            name: a split, or "teacher_" and a split.
            predictions: `Predictions`.
        """
        if not parallel.is_main():
            return
        split = name.split("_")[-1]
        # the teacher's file needs no text: the report shows it next to the student's file, which has the text
        texts = self._context.splits.dataset.text(split, predictions.text_digest) if name == split else None
        write_predictions(predictions_path(self.path, name), self._context.task, predictions, texts)
