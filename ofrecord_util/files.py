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
from typing import BinaryIO, Iterator, Mapping, Optional, TextIO

import numpy as np

from ofrecord_util.errors import UserError

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
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
    found = stat_of(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", path)
    descriptor = own_descriptor(path)
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


def stat_of(path: str) -> Optional[os.stat_result]:
    """What a path is, links followed; None if nothing is there."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def own_descriptor(path: str) -> Optional[int]:
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
    _remove_leftovers(temporary_prefix(path))
    new = f"{temporary_prefix(path)}{os.getpid()}"
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
    gone = f"{temporary_prefix(path)}{os.getpid()}"
    os.rename(path, gone)
    shutil.rmtree(gone)


def recover_folder(path: str) -> None:
    """Gives a folder its name back where a save was killed while it replaced it, on a file system without exchange."""
    path = os.path.abspath(path)
    if not os.path.lexists(path):
        for old in _leftovers(temporary_prefix(path)):
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


def temporary_prefix(path: str) -> str:
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
