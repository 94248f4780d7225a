"""Readers for every file that a user or another program hands over, as bytes or text; JSON is read by json_reading.py, and arrays by
array_reading.py.

Kind and size of a file are looked at before its content: only regular files are opened, and only up to a limit that is far above what
this project or its models need. A file is never mapped into memory, because a mapped file that another process cuts short ends the
process with SIGBUS. Every fault is a `UserError` of one line that names the file. `tests/test_one_reader.py` checks that no other module
reads such files by itself.
"""

import errno
import itertools
import os
import stat
from typing import BinaryIO, Iterator

from ofrecord_util.errors import UserError

# Largest sizes of files in bytes
JSON_LIMIT = 64 << 20
TEXT_LIMIT = 1 << 30
VOCABULARY_LIMIT = 64 << 20
CORPUS_LIMIT = 1 << 40  # of text that is read line by line
LINE_LIMIT = 16 << 20
FLAGS_LIMIT = 1 << 20
META_LIMIT = 1 << 16
RECORDS_LIMIT = 4 << 30  # of one part
ARRAY_LIMIT = 1 << 30
VARIABLE_LIMIT = 16 << 30


def size_text(size: float) -> str:
    """A number of bytes for people."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} bytes"


def _kind(mode: int) -> str:
    """Why a file that is no regular one is not read."""
    if stat.S_ISDIR(mode):
        return os.strerror(errno.EISDIR)
    kinds = ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"))
    return f"it is {next((name for test, name in kinds if test(mode)), 'something else')}, not a file"


def open_file(path: str, remedy: str, limit: int, links: bool = True) -> BinaryIO:
    """Opens a regular file for reading bytes.

    Args:
        path: the file.
        remedy: what the user can do about a bad file; the end of the message.
        limit: largest size in bytes.
        links: whether `path` itself may be a symbolic link.

    Raises:
        UserError: the file does not exist, cannot be read, is no regular file, is larger, or is a link.
    """

    def opener(name: str, flags: int) -> int:
        # without O_NONBLOCK, the opening of a FIFO waits for a writer
        return os.open(name, flags | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW))

    try:
        if not links and os.path.islink(path):
            raise UserError(f"{path}: is a symbolic link, but must be a file of its own; {remedy}")
        mode = os.stat(path).st_mode  # first, because opening a device can have effects
        if not stat.S_ISREG(mode):
            raise UserError(f"{path}: cannot be read ({_kind(mode)}); {remedy}")
        file = open(path, "rb", opener=opener)  # noqa: SIM115  the caller closes it
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:  # a NUL in the path
        raise UserError(f"{path!r}: is not a path ({error}); {remedy}") from error
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size <= limit:
        return file
    file.close()
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: cannot be read ({_kind(found.st_mode)}); {remedy}")
    raise UserError(f"{path}: has {size_text(found.st_size)}, at most {size_text(limit)} are read; {remedy}")


def read_bytes(path: str, remedy: str, limit: int, links: bool = True) -> bytes:
    """The content of a file. Arguments and errors as in `open_file`."""
    try:
        with open_file(path, remedy, limit, links) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    if len(data) != size:
        raise UserError(f"{path}: {len(data)} of {size} bytes could be read; another process may be writing it: {remedy}")
    return data


def read_text(path: str, remedy: str, limit: int = TEXT_LIMIT) -> str:
    """The content of a UTF-8 file as str, without a byte-order mark. Line ends stay as they are.

    Arguments and errors as in `open_file`; a byte that is not UTF-8 is a UserError, too, which names line and byte.
    """
    data = read_bytes(path, remedy, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = first_byte(data, error)
        line = data.count(b"\n", 0, start) + 1
        raise UserError(f"{path}: line {line}: byte {start} of the file (0x{data[start]:02x}) is not UTF-8; {remedy}") from error


def first_byte(data: bytes, error: UnicodeDecodeError) -> int:
    """The first byte that "utf-8-sig" could not decode. The decoder counts from the end of a byte-order mark."""
    return error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)


def has_utf8(data: bytes) -> bool:
    """Whether bytes have a character of UTF-8 outside of ASCII."""
    return any(ord(char) > 127 for char in data.decode("utf-8", "ignore"))


def utf8_remedy(data: bytes) -> str:
    """What helps against a byte that is not UTF-8. A conversion would spoil other characters that are."""
    if has_utf8(data):
        return "other characters of it are UTF-8, so mend this row (iconv -c -f utf-8 -t utf-8 leaves such bytes out)"
    return "convert the file to UTF-8"


def lines_of(stream: BinaryIO, name: str, remedy: str, longest: int = LINE_LIMIT) -> Iterator[bytes]:
    """Yields the lines of a stream of any length, such as standard input, with their ends.

    Args:
        stream: open for reading bytes.
        name: of the stream, for the message.
        remedy: as in `open_file`.
        longest: bytes of a line.

    Raises:
        UserError: a line is longer, or the stream cannot be read. The message names it.
    """
    for number in itertools.count(1):
        try:
            line = stream.readline(longest + 1)
        except OSError as error:
            raise UserError(f"{name}: cannot be read ({error.strerror})") from error
        if len(line) > longest:
            raise UserError(f"{name}: line {number} has more than {size_text(longest)}; {remedy}")
        if not line:
            return
        yield line
