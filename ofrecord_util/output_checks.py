"""Checks before the work that its output can be written, and would replace nothing that is needed. `files.py` writes it."""

import fnmatch
import os
import shutil
import stat
import tempfile
from typing import Optional, Sequence

from ofrecord_util import files
from ofrecord_util.errors import UserError
from ofrecord_util.reading import size_text

SNAPSHOT_DONE = "snapshot_done"  # the file that each snapshot has
# The files of a run's folder: those that mark it as one, and all that the run writes (modeling/run, modeling/report)
RUN_MARKS = ("run.flags", "flags.json")
RUN_FILES = (
    *(*RUN_MARKS, "run.log", "metrics.jsonl", "curves.png", "report.html"),
    *("predictions_*.tsv", "generations_*.tsv", "tagged_*.tsv", "answers_*.json", "nbest_*.json"),
)
_LARGEST_PID = 1 << 22  # of Linux; a temporary name has a process id


def check_output(path: str, flag: str, makes_folder: bool = False, others: Sequence[str] = ()) -> None:
    """Checks before the work that `files.replacing` will be able to write a file.

    Args:
        path: the file.
        flag: what the user can change, for the message.
        makes_folder: whether the folder of the file is made if it does not exist.
        others: the files that the command reads, and those that it writes too, or folders of such files. None of them may be overwritten,
            and nothing may be written into one of the folders.
    Raises:
        UserError: the path is a folder, its folder does not exist or cannot be written, it is a file of a snapshot or one that
            a run wrote, or it is one of the others or in one of them.
    """
    try:
        found = files.stat_of(path)
        if found is None or stat.S_ISREG(found.st_mode):
            _check_is_none_of(path, found is not None, flag, others)
        if found is not None and stat.S_ISREG(found.st_mode):
            _check_is_of_no_run(path, flag)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise UserError(f"{path}: is a folder, and a file is to be written; give another {flag}")
        if (found is not None and not stat.S_ISREG(found.st_mode)) or files.own_descriptor(path) is not None:
            return
        files.stat_of(f"{os.path.realpath(path)}.tmp-{_LARGEST_PID}")  # a name that is too long is an OSError
        folder = os.path.dirname(os.path.realpath(path))
        if found is not None or (makes_folder and not os.path.isdir(folder)):  # a further file does no harm
            check_is_in_no_snapshot(folder, flag, path)
        _try_to_write(_nearest(folder) if makes_folder else folder)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another {flag}") from error


def _check_is_none_of(path: str, exists: bool, flag: str, others: Sequence[str]) -> None:
    """Raises a UserError if a path is one of some files or folders, or in one of the folders."""
    place = os.path.realpath(path)
    for other in others:
        known = os.path.realpath(other)
        if place == known or (exists and place.startswith(known + os.sep)):
            raise UserError(f"{path}: is a file of this command or of the run, and would be overwritten; give another {flag}")
        if place.startswith(known + os.sep):
            raise UserError(f"{path}: is in {other}, a folder whose files this command uses; give another {flag}")


def _check_is_of_no_run(path: str, flag: str) -> None:
    """Raises a UserError if a file that exists is one that a run, finished or not, wrote into its folder: nothing writes it again. Other
    files there, such as those of earlier calls of a tool, may be replaced."""
    for place in (os.path.realpath(path), os.path.abspath(path)):  # a file of a run may be a link to where large files are stored
        folder, name = os.path.split(place)
        is_of_run = any(os.path.isfile(os.path.join(folder, mark)) for mark in RUN_MARKS)
        if is_of_run and any(fnmatch.fnmatchcase(name, pattern) for pattern in RUN_FILES):
            raise UserError(f"{path}: is a file that the run in {folder} wrote, and would be overwritten; give another {flag}")


def check_output_folder(path: str, flag: str, whole: bool = True) -> None:
    """Checks before the work that `files.replacing_folder` will be able to write a folder: the nearest folder above it that exists can be
    written, and it is in no snapshot. Arguments and errors as in `check_output`. With `whole` false, files are to be written into the
    folder instead.
    """
    try:
        path = os.path.abspath(path)
        if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
            raise UserError(f"{path}: is not a folder, and a folder is to be written; give another {flag}")
        if whole:
            files.stat_of(f"{files.temporary_prefix(path)}{_LARGEST_PID}.old")
        check_is_in_no_snapshot(os.path.dirname(path) if whole else path, flag, path)
        _try_to_write(_nearest(os.path.dirname(path) if whole else path))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another {flag}") from error


def check_is_in_no_snapshot(folder: str, flag: str, path: Optional[str] = None) -> None:
    """Checks that a folder, which may not exist yet, is no snapshot and is in none. Each folder in a snapshot is a variable, so another one
    makes it unreadable, and so does a file that replaces one of its own.

    Args:
        folder: a file or a new folder is to be created in it, or it is to be created.
        flag: what the user can change, for the message.
        path: what the message names; None for the folder.
    Raises:
        UserError: the folder is a snapshot or is in one.
    """
    place = os.path.realpath(folder)
    while True:
        if os.path.isfile(os.path.join(place, SNAPSHOT_DONE)):
            raise UserError(f"{path or folder}: is in {place}, a snapshot, whose files are not changed; give another {flag}")
        if place == os.path.dirname(place):
            return
        place = os.path.dirname(place)


def _nearest(folder: str) -> str:
    """The folder, or the nearest one above it that exists."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return folder


def _try_to_write(folder: str) -> None:
    """Creates a file in a folder and removes it. A mode alone does not show a file system that is read-only."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def check_append(path: str, flag: str) -> None:
    """Checks before the work that `files.open_to_append` will be able to open a file. Nothing is created. Arguments as in `check_output`.

    Raises:
        UserError: the file or its folder cannot be written, or the name is taken by something else.
    """
    if os.path.lexists(path):
        files.open_to_append(path).close()
    else:
        check_output(path, flag, makes_folder=True)


def check_space(folder: str, needed: float, what: str, remedy: str) -> None:
    """Compares what a folder will need with the free space of its disk.

    Args:
        folder: it, or what is to be made.
        needed: bytes.
        what: the subject of the message ("the teacher's outputs need").
        remedy: its end, what the user can do.
    Raises:
        UserError: fewer bytes are free.
    """
    parent = os.path.dirname(os.path.abspath(folder))
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UserError(
            f"{folder}: {what} {size_text(needed)} ({needed} bytes), {parent} has {size_text(free)} ({free} bytes) free: {remedy}"
        )
