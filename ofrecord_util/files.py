"""Files and folders that exist whole or not at all: they are written under a temporary name, flushed to the disk and renamed."""

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
from typing import BinaryIO, Iterator

from ofrecord_util.errors import UserError

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
def replacing(path: str) -> Iterator[BinaryIO]:
    """Opens a temporary file in the folder of `path`; it takes the name `path` when the block ends, and is removed when
    the block raises.

    Yields:
        The file, open for writing bytes.
    """
    temporary = f"{path}.tmp-{os.getpid()}"
    _remove_leftovers(path + ".tmp-")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


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
        with contextlib.suppress(OSError):  # a path that cannot be removed stays
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)


def write_json(path: str, value: dict) -> None:
    """Writes a JSON file of UTF-8 text in one step (see `replacing`)."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8"))
    sync_folder(os.path.dirname(path) or ".")


def read_json(path: str, remedy: str) -> dict:
    """A JSON file that holds an object.

    Args:
        path: the file.
        remedy: what the user can do about a bad file; the end of the message of the UserError.
    """
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read().decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {type(value).__name__}, not a JSON object; {remedy}")
    return value


def size_text(size: float) -> str:
    """A number of bytes for people."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} bytes"


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
