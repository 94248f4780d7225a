"""Files that are there whole or not at all: write beside, flush to the disk, rename."""

import contextlib
import json
import os

from modeling.errors import UserError


def sync_folder(folder):
    """Makes the renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder):
    """Creates a folder and its parents; a UserError where a file is in the way or rights are missing."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made a folder ({error.strerror}); check --data_dir") from error


@contextlib.contextmanager
def replacing(path):
    """Opens a temporary file in the folder of `path`; it takes the name `path` when the block ends, and is removed when
    the block raises.

    Yields:
        The file, open for writing bytes.
    """
    temporary = f"{path}.tmp-{os.getpid()}"
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


def write_json(path, value):
    """Writes a JSON file of UTF-8 text in one step (see `replacing`)."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8"))
    sync_folder(os.path.dirname(path) or ".")


def read_json(path, remedy):
    """A JSON file that holds an object.

    Args:
        path: the file.
        remedy: what the user can do about a bad one; ends the message of the UserError.
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
