"""The folder of a training run: creates or finds it, and writes its files."""

import json
import os

from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, TASK_LENGTHS, write_variables
from modeling.checkpoints.snapshot_tokenizer import TOKENIZER_FILE, settings_text
from modeling.cli.errors import on_failure
from modeling.cli.flags import run_folder_name
from modeling.cli.flags_file import resume_command
from modeling.engine import parallel
from modeling.engine.pulse import tell_log
from modeling.run.held_out import split_of
from modeling.run.log import LOG_FILE, Log
from modeling.run.metrics import Metrics
from modeling.run.predictions import predictions_path, write_predictions
from modeling.run.resume import check_start, find_run, list_states, newest_state
from ofrecord_util.errors import UserError
from ofrecord_util.output_checks import check_is_in_no_snapshot


def unique_folder(path, log):
    """Creates a folder and returns its path. If the name is taken, a number is appended and logged, so that two runs never share a
    folder."""
    for number in range(1000):
        candidate = path if number == 0 else f"{path}-{number}"
        try:
            os.makedirs(candidate)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"--model_save_dir {path}: cannot be created ({error.strerror})") from error
        if number:
            log(f"{path} exists already: this run writes to {candidate}")
        return candidate
    raise UserError(f"--model_save_dir {path}: a thousand folders with this name exist already")


def check_can_be_created(path):
    """Raises a UserError if a folder cannot be created, before a run does any work. Nothing is created."""
    place = os.path.abspath(path)
    check_is_in_no_snapshot(os.path.dirname(place), "--model_save_dir", path)
    if os.path.exists(place) and not os.path.isdir(place) and not os.path.isfile(place):
        raise UserError(f"--model_save_dir {path}: is not a folder")
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        # an existing file with the folder's own name is no obstacle: the run takes the next name
        if place == os.path.abspath(path) and not os.path.islink(place):
            return
        raise UserError(f"--model_save_dir {path}: cannot be created ({place} is not a folder)")
    if place != os.path.abspath(path) and not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"--model_save_dir {path}: cannot be created ({place} cannot be written)")


class RunFolder:
    """A run's folder. Only rank 0 writes files.

    The folder of a new run does not exist before `create` is called. A run that is refused leaves nothing.

    Attributes:
        path: its path; None before it is created.
        log: `Log`. The file gets all lines when the folder is created.
        metrics: `Metrics`; None before the folder is created.
        state: `State` from which --resume continues, or None.
        trained: whether all steps are trained. The states of the run are then needed until its results are written.

    Args:
        context: `RunContext`, of which everything but the records is known: the flags of a run to resume are compared first.
    Raises:
        UserError: there is no run to resume, another process writes to it, it had other flags, or the folder cannot be created.
    """

    def __init__(self, context):
        self._context, flags = context, context.flags
        self.path = self.metrics = self.state = None
        self.trained = False
        self.log = Log(silent=not parallel.is_main())
        on_failure(self._note_end)
        if flags.resume is not None:
            self._open(find_run(flags) if parallel.is_main() else None)
            self.state = newest_state(self.path, self.log)
            check_start(self.state, context)
        elif parallel.is_main():
            check_can_be_created(run_folder_name(flags.model_save_dir))

    def create(self):
        """Creates the folder, if it does not exist yet. All ranks must call it, before they write to the folder."""
        if self.path is None:
            name = run_folder_name(self._context.flags.model_save_dir)
            self._open(unique_folder(name, self.log) if parallel.is_main() else None)

    def _open(self, path):
        if parallel.is_main():
            self.log.continue_in(Log(os.path.join(path, LOG_FILE), exclusive=True))
            tell_log(os.path.join(path, LOG_FILE))
        self.path = parallel.broadcast(path)
        self.metrics = Metrics(self.path, writes=parallel.is_main())

    def _note_end(self, text):
        """Adds the error that ends the run to its log."""
        self.log.note(text)
        if self.trained and parallel.is_main() and list_states(self.path):
            self.log(f"all steps are trained: write the results with {resume_command(self._context.flags.script, self.path)}")

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
        flags = context.flags
        task = dict(context.task.to_dict(), script=flags.script, seq_length=flags.seq_length, do_lower_case=context.tokenizer.do_lower_case)
        task.update({name: getattr(flags, name) for name in TASK_LENGTHS if hasattr(flags, name)})
        files = {
            CONFIG_FILE: (config or context.config).to_json(),
            context.tokenizer.file_name: context.tokenizer.vocabulary,  # as it was read, in case the file has changed
            TOKENIZER_FILE: settings_text(context.tokenizer.settings),
            TASK_FILE: json.dumps(task, indent=2, sort_keys=True) + "\n",
        }
        write_variables(path, variables.arrays(decay), files)
        return path

    def write_predictions(self, name, predictions):
        """Writes `predictions_NAME.tsv`.

        Args:
            name: of a split or of its held-out rows, with "teacher_" before it for the teacher's.
            predictions: `Predictions`.
        """
        if not parallel.is_main():
            return
        split = split_of(name).split("_")[-1]
        # the teacher's file needs no text: the report shows it next to the student's file, which has the text
        texts = self._context.splits.dataset.text(split, predictions.text_digest) if split_of(name) == split else None
        write_predictions(predictions_path(self.path, name), self._context.task, predictions, texts)
