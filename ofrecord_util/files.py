"""Files and folders that exist whole or not at all: they are written under a temporary name, flushed to the disk and renamed."""

import contextlib
import ctypes
import errno
import io
import json
import os
import re
import shutil
import stat
import tempfile
from typing import BinaryIO, Iterator, Mapping, Optional, Sequence, TextIO

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.reading import size_text

SNAPSHOT_DONE = "snapshot_done"  # the file that each snapshot has
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_LARGEST_PID = 1 << 22  # of Linux; a temporary name has a process id
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of <fcntl.h> and <linux/fs.h>


def sync_folder(path: str) -> None:
    """Makes the renames in a folder durable (and, of a file, its bytes)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: str) -> None:
    """Creates a folder and its parents; a UserError where a file is in the way or rights are missing."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be created ({error.strerror}); check --data_dir") from error


@contextlib.contextmanager
def filling(folder: str) -> Iterator[None]:
    """Creates a folder and its parents for the files that the block writes. If the block raises, those that it has created are removed
    again as far as they are empty: what is refused leaves nothing.

    Raises:
        UserError: as `make_folder`.
    """
    created, path = [], os.path.abspath(folder)
    while not os.path.lexists(path):
        created.append(path)
        path = os.path.dirname(path)
    try:
        make_folder(folder)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # one that is not empty, or was not created
            for path in created:
                os.rmdir(path)
        raise


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Opens a temporary file next to the file `path`; it takes the name `path` when the block ends, and is removed when the block raises.

    A symbolic link is followed, and the file at its end is replaced. The new file has the mode of the old one. What is no regular file (a
    device, a FIFO, /dev/stdout) has no old content that could be lost, and is written into.

    Yields:
        The file, open for writing bytes.
    Raises:
        OSError: the file cannot be written, or `path` is a folder.
    """
    found = _stat(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", path)
    descriptor = _own_descriptor(path)
    if descriptor is not None or (found is not None and not stat.S_ISREG(found.st_mode)):
        # through its own descriptor: another opening of /dev/stdout would write over what the process has written before
        with open(path if descriptor is None else os.dup(descriptor), "wb") as file:
            yield file
        return
    path = os.path.realpath(path)
    temporary = f"{path}.tmp-{os.getpid()}"
    _remove_leftovers(path + ".tmp-")
    try:
        with open(temporary, "xb") as file:
            if found is not None:
                _take_owner_and_mode(file.fileno(), found)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            error.filename = path  # a write does not know the name of its file
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def _stat(path: str) -> Optional[os.stat_result]:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _own_descriptor(path: str) -> Optional[int]:
    """The descriptor of this process that a path such as /dev/stdout or /dev/fd/3 names, else None."""
    for _ in range(40):  # as many links as Linux follows
        folder, name = os.path.split(os.path.abspath(path))
        if name.isdecimal() and os.path.realpath(folder) == f"/proc/{os.getpid()}/fd":
            return int(name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def _take_owner_and_mode(file: int, old: os.stat_result) -> None:
    """Gives a new file the owner, as far as the process may, and the mode of the file that it replaces."""
    with contextlib.suppress(OSError):
        os.fchown(file, old.st_uid, old.st_gid)
    os.fchmod(file, stat.S_IMODE(old.st_mode))


def check_output(path: str, flag: str, makes_folder: bool = False, others: Sequence[str] = ()) -> None:
    """Checks before the work that `replacing` will be able to write a file.

    Args:
        path: the file.
        flag: what the user can change, for the message.
        makes_folder: whether the folder of the file is made if it does not exist.
        others: the files that the command reads, and those that it writes too, or folders of such files. None of them may be overwritten,
            and nothing may be written into one of the folders.
    Raises:
        UserError: the path is a folder, its folder does not exist or cannot be written, or it is one of the others or in one of them.
    """
    try:
        found = _stat(path)
        if found is None or stat.S_ISREG(found.st_mode):
            _check_is_none_of(path, found is not None, flag, others)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise UserError(f"{path}: is a folder, and a file is to be written; give another {flag}")
        if (found is not None and not stat.S_ISREG(found.st_mode)) or _own_descriptor(path) is not None:
            return
        _stat(f"{os.path.realpath(path)}.tmp-{_LARGEST_PID}")  # a name that is too long is an OSError
        folder = os.path.dirname(os.path.realpath(path))
        if makes_folder and not os.path.isdir(folder):
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
            raise UserError(f"{path}: is also read or written by this command, and would be overwritten; give another {flag}")
        if place.startswith(known + os.sep):
            raise UserError(f"{path}: is in {other}, a folder whose files this command uses; give another {flag}")


def check_output_folder(path: str, flag: str, whole: bool = True) -> None:
    """Checks before the work that `replacing_folder` will be able to write a folder: the nearest folder above it that exists can be
    written, and it is in no snapshot. Arguments and errors as in `check_output`. With `whole` false, files are to be written into the
    folder instead.
    """
    try:
        path = os.path.abspath(path)
        if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
            raise UserError(f"{path}: is not a folder, and a folder is to be written; give another {flag}")
        if whole:
            _stat(f"{_temporary_prefix(path)}{_LARGEST_PID}.old")
        check_is_in_no_snapshot(os.path.dirname(path) if whole else path, flag, path)
        _try_to_write(_nearest(os.path.dirname(path) if whole else path))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another {flag}") from error


def check_is_in_no_snapshot(folder: str, flag: str, path: Optional[str] = None) -> None:
    """Checks that a folder, which may not exist yet, is no snapshot and is in none. Each folder in a snapshot is a variable, so another one
    makes it unreadable.

    Args:
        folder: a new folder is to be created in it, or as it.
        flag: what the user can change, for the message.
        path: what the message names; None for the folder.
    Raises:
        UserError: the folder is a snapshot or is in one.
    """
    place = os.path.realpath(folder)
    while True:
        if os.path.isfile(os.path.join(place, SNAPSHOT_DONE)):
            raise UserError(f"{path or folder}: is in {place}, a snapshot, which must have no other folders; give another {flag}")
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


def open_to_append(path: str) -> TextIO:
    """Opens a file of a run for lines of text that follow its content; a new one if there is none. Each line is written at once.

    Raises:
        UserError: the file cannot be written, or the name is taken by a link, a FIFO or a device, which a run does not make. A link, also a
            hard one, would lead the lines into another file, and a FIFO would stop the run until somebody reads it.
    """
    taken = "a run appends to a file of its own; remove it, or give another folder"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        planted = os.path.lexists(path) and (os.path.islink(path) or not os.path.isfile(path))
        problem = f"is not a regular file, but {taken}" if planted else f"cannot be written ({error.strerror})"
        raise UserError(f"{path}: {problem}") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        problem = f"has {found.st_nlink} names (hard links)" if stat.S_ISREG(found.st_mode) else "is not a regular file"
        raise UserError(f"{path}: {problem}, but {taken}")
    return open(handle, "a", encoding="utf-8", errors="backslashreplace", buffering=1)


def check_append(path: str, flag: str) -> None:
    """Checks before the work that `open_to_append` will be able to open a file. Nothing is created. Arguments as in `check_output`.

    Raises:
        UserError: the file or its folder cannot be written, or the name is taken by something else.
    """
    if os.path.lexists(path):
        open_to_append(path).close()
    else:
        check_output(path, flag, makes_folder=True)


@contextlib.contextmanager
def replacing_folder(path: str) -> Iterator[str]:
    """Makes a temporary folder next to `path`. It gets the name `path` when the block ends, and is removed when the block raises.

    All files of the block are flushed to the disk first. An existing folder at `path` is unchanged until then, whenever the process
    dies. Temporary folders of killed processes are removed.

    Yields:
        Path of the new folder, empty.

    Raises:
        OSError: the disk cannot be written, or `path` is not a folder (a symbolic link is not followed).
    """
    path = os.path.abspath(path)
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
        raise NotADirectoryError(errno.ENOTDIR, "not a folder")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    recover_folder(path)
    _remove_leftovers(_temporary_prefix(path))
    new = f"{_temporary_prefix(path)}{os.getpid()}"
    try:
        os.mkdir(new)
        yield new
        for place, _, names in os.walk(new, topdown=False):
            for name in names:
                sync_folder(os.path.join(place, name))
            sync_folder(place)
        if os.path.isdir(path):
            _exchange(new, path)
        else:
            os.rename(new, path)
        sync_folder(os.path.dirname(path))
    finally:
        shutil.rmtree(new, ignore_errors=True)  # the failed save, or the replaced folder


def remove_folder(path: str) -> None:
    """Removes a folder. If the process dies meanwhile, nothing is left under the name of the folder."""
    path = os.path.abspath(path)
    gone = f"{_temporary_prefix(path)}{os.getpid()}"
    os.rename(path, gone)
    shutil.rmtree(gone)


def recover_folder(path: str) -> None:
    """Gives a folder its name back where a save was killed while it replaced it, on a file system without exchange."""
    path = os.path.abspath(path)
    if not os.path.lexists(path):
        for old in _leftovers(_temporary_prefix(path)):
            if old.endswith(".old"):
                with contextlib.suppress(OSError):  # the reader then reports that the folder is missing
                    os.rename(old, path)
                return


def clear_leftovers(folder: str) -> None:
    """Removes what killed processes have left of the files and folders in `folder` when they wrote or removed them.

    The process ids in the names are not looked at, because another process may have got the id meanwhile: the caller must be the only
    process that writes in the folder.
    """
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        left = re.match(r"\.(.+)\.writing-\d+(\.old)?\Z", name)
        if left and left.group(2) and not os.path.lexists(os.path.join(folder, left.group(1))):
            with contextlib.suppress(OSError):  # see `recover_folder`
                os.rename(path, os.path.join(folder, left.group(1)))
        elif left or re.match(r".+\.tmp-\d+\Z", name):
            _remove(path)


def _temporary_prefix(path: str) -> str:
    """Prefix of the temporary names of a folder; the process id follows."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.writing-")


def _exchange(new: str, path: str) -> None:
    """Exchanges the names of two folders, atomically where C library, kernel and file system support it."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 and renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE) == 0:
        return
    old = new + ".old"
    os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(old, path)  # the old folder is better than none
        raise
    os.rename(old, new)


def _leftovers(prefix: str) -> Iterator[str]:
    """Paths with this prefix whose process has ended (or is this one, which writes one file or folder at a time)."""
    folder, start = os.path.split(prefix)
    names = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(folder or "."))
    for name in names:
        process = re.match(r"(\d+)(\.old)?\Z", name[len(start) :]) if name.startswith(start) else None
        if process and (int(process.group(1)) == os.getpid() or not os.path.exists("/proc/" + process.group(1))):
            yield os.path.join(folder, name)


def _remove_leftovers(prefix: str) -> None:
    for path in _leftovers(prefix):
        _remove(path)


def _remove(path: str) -> None:
    """Removes a file, a link or a folder with its content; a path that cannot be removed stays."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)


def write_json(path: str, value: dict) -> None:
    """Writes a JSON file of UTF-8 text in one step (see `replacing`)."""
    with replacing(path) as file:
        # "?" for what UTF-8 does not have: a byte in the name of a file that is not UTF-8
        file.write((json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
    sync_folder(os.path.dirname(path) or ".")


def write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as an .npz file. The archive is made in memory: on a full disk, an open one prints a traceback when it is freed.

    Raises:
        OSError: the file cannot be written.
    """
    content = io.BytesIO()
    np.savez(content, **arrays)
    file.write(content.getbuffer())


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
