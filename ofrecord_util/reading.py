"""Readers for every file that a user or another program hands over: bytes, text, JSON, and arrays (.npy, .npz).

Kind and size of a file are looked at before its content: only regular files are opened, and only up to a limit that is far above what
this project or its models need. A file is never mapped into memory, because a mapped file that another process cuts short ends the
process with SIGBUS. Every fault is a `UserError` of one line that names the file. `tests/test_one_reader.py` checks that no other module
reads such files by itself.
"""

import ast
import errno
import functools
import itertools
import json
import math
import operator
import os
import re
import stat
import zipfile
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

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

_DEEPEST = 64  # levels of a JSON file; more break recursive functions that get the value
_INTEGERS = 1 << 63
_NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER = 1 << 12  # bytes; a header of plain numbers has 118
_MOST_AXES = 32  # NumPy's limit
_MOST_MEMBERS = 100_000  # arrays in one archive
_EXPANSION = 50  # how often larger than its file an archive of more than _SMALL bytes may be
_SMALL = 64 << 20
_OBJECTS = "it holds Python objects, which are not read because they may run code"
_TENSOR_TYPES = {  # of safetensors: bytes of a value
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1},
    **{"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1},
}
_PLAIN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6})\Z")  # values that are their bytes; objects are pickles


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


# JSON


def _whole_number(text: str) -> int:
    if len(text) > 20 or not -_INTEGERS <= int(text) < _INTEGERS:
        raise ValueError(f"the number {text:.20}… has more than 64 bits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text:.20} is too large")
    return value


def _object(pairs: List[Tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r:.60} is there twice")
    return found


def _json_text(data: bytes) -> str:
    """The text of JSON. ValueError where it is not UTF-8."""
    encoding = json.detect_encoding(data)
    if not encoding.startswith("utf-8"):
        raise ValueError(f"it looks like {encoding.upper():.6}, and JSON is UTF-8: convert it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = first_byte(data, error)
        raise ValueError(f"byte {start} of it (0x{data[start]:02x}) is not UTF-8, as JSON is: convert it") from error


def parse_json(data: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not UTF-8 or not JSON, is nested more than 64 levels deep, has a key twice in one object, or holds a number of
            more than 64 bits or half of a surrogate pair, which no other file or terminal could take. NaN and Infinity are read, because
            a run that diverges reports them.
    """
    try:
        value = json.loads(_json_text(data), parse_int=_whole_number, parse_float=_number, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
        inside: List[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside += item.keys()
                inside += item.values()
            elif isinstance(item, list):
                inside += item
            elif isinstance(item, str) and not item.isascii():
                try:
                    item.encode("utf-8")
                except UnicodeEncodeError as error:
                    raise ValueError(f"{item!r:.40} has half of a surrogate pair") from error
        level = inside
    return value


def any_json(text: str) -> Any:
    """The value of a text that is JSON, also where `parse_json` would refuse it; None for any other text. It tells what a text is, and is
    not for use."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_json(path: str, remedy: str, limit: int = JSON_LIMIT) -> dict:
    """A JSON file that holds an object. Arguments and errors as in `open_file`; a UserError, too, where it holds anything else."""
    try:
        value = parse_json(read_bytes(path, remedy, limit))
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {type(value).__name__}, not a JSON object; {remedy}")
    return value


def read_json_lines(path: str, remedy: str, limit: int = TEXT_LIMIT) -> Iterator[Tuple[int, dict]]:
    """Yields (number from 1, object) of each complete line of a file of JSON objects. A last line without an end is incomplete: the
    process that wrote it was killed.

    Arguments and errors as in `open_file`; a UserError, too, for a line that holds anything but an object. It names the line.
    """
    try:
        with open_file(path, remedy, limit) as file:
            for number, line in enumerate(lines_of(file, path, remedy), 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    value = parse_json(line)
                except ValueError as error:
                    raise UserError(f"{path}: line {number}: is not JSON ({error}); {remedy}") from error
                if not isinstance(value, dict):
                    raise UserError(f"{path}: line {number}: holds {type(value).__name__}, not a JSON object; {remedy}")
                yield number, value
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error


# Arrays


class _Header(NamedTuple):
    """What the header of a .npy file says."""

    shape: Tuple[int, ...]
    dtype: np.dtype
    order: str  # "C" or "F"
    start: int  # first byte of the values

    @property
    def end(self) -> int:
        return self.start + functools.reduce(operator.mul, self.shape, 1) * self.dtype.itemsize  # Python integers do not overflow


class _ObjectsError(ValueError):
    """An array holds Python objects."""


def _npy_header(data: bytes) -> _Header:
    """The header at the beginning of a .npy file. ValueError where it is not that of an array of plain values."""
    if not data.startswith(_NPY_MAGIC) or len(data) < 10:
        raise ValueError("it does not begin as a .npy file does")
    if data[6] not in (1, 2, 3):
        raise ValueError(f"version {data[6]} of the format is not known")
    begin = 10 if data[6] == 1 else 12
    length = int.from_bytes(data[8:begin], "little")
    if length > _NPY_HEADER or begin + length > len(data):
        raise ValueError(f"its header of {length} bytes does not end")
    text = data[begin : begin + length].decode("utf-8" if data[6] == 3 else "latin-1")
    try:
        values = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("its header is not that of an array") from error
    if not isinstance(values, dict) or set(values) != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header is not that of an array")
    kind, shape, fortran = values["descr"], values["shape"], values["fortran_order"]
    if not isinstance(kind, str) or not _PLAIN.match(kind):
        raise _ObjectsError(_OBJECTS) if "O" in str(kind) else ValueError(f"it holds {kind!r:.40}, not plain values")
    whole = isinstance(shape, tuple) and len(shape) <= _MOST_AXES and all(type(size) is int and 0 <= size < 1 << 48 for size in shape)
    if not whole or not isinstance(fortran, bool):
        raise ValueError("its header has an invalid shape")
    return _Header(shape, np.dtype(kind), "F" if fortran else "C", begin + length)


def parse_npy(data: bytes) -> np.ndarray:
    """The array of a .npy file. ValueError where it is not a whole array of plain values (bool, integer, floating point)."""
    header = _npy_header(data)
    if header.end != len(data):
        raise ValueError(f"it has {len(data)} bytes, but its header says {list(header.shape)} of {header.dtype} = {header.end} bytes")
    flat = np.frombuffer(data, header.dtype, offset=header.start)
    return flat.reshape(header.shape, order=header.order)  # type: ignore[call-overload]


def parse_npz(data: BinaryIO, size: int, limit: int) -> Dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Args:
        data: the file, open for reading bytes.
        size: its size.
        limit: largest size of all arrays together.

    Raises:
        ValueError: the archive is damaged, is encrypted, holds something that is not an array of plain values or a name twice, or
            unpacks to more than `limit` or to a multiple of its own size.
    """
    arrays: Dict[str, np.ndarray] = {}
    objects: List[str] = []
    try:
        with zipfile.ZipFile(data) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if len(members) > _MOST_MEMBERS:
                raise ValueError(f"it has {len(members)} members")
            if total > limit or total > max(_SMALL, _EXPANSION * size):
                raise ValueError(f"its {size_text(size)} unpack to {size_text(total)}")
            odd = [member.filename for member in members if not member.filename.endswith(".npy")]
            if odd:
                raise ValueError(f"it holds values that are not arrays: {', '.join(odd):.200}")
            for member in members:
                name = member.filename[: -len(".npy")]
                if name in arrays:
                    raise ValueError(f"the name {name!r:.80} is stored twice")
                if member.flag_bits & 1:
                    raise ValueError(f"{name!r:.80} is encrypted")
                with archive.open(member) as file:
                    content = file.read(member.file_size + 1)
                if len(content) != member.file_size:
                    raise ValueError(f"{name!r:.80} has another size than the archive says")
                try:
                    arrays[name] = parse_npy(content)
                except _ObjectsError:
                    objects.append(name)
                except ValueError as error:
                    raise ValueError(f"{name!r:.80}: {error}") from error
    except ValueError:
        raise
    except MemoryError as error:
        raise ValueError("it does not fit the memory") from error
    except Exception as error:  # zipfile and zlib do not document the types of their errors
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if objects:
        raise ValueError(f"{_OBJECTS}: {', '.join(sorted(objects))}")
    return arrays


def read_npy(path: str, remedy: str, limit: int = ARRAY_LIMIT) -> np.ndarray:
    """The array of a .npy file, read-only. Arguments and errors as in `open_file`; a UserError, too, for a damaged file."""
    try:
        return parse_npy(read_bytes(path, remedy, limit))
    except ValueError as error:
        raise UserError(f"{path}: is not an array of numbers ({error}); {remedy}") from error


def read_npz(path: str, remedy: str, limit: int = ARRAY_LIMIT) -> Dict[str, np.ndarray]:
    """The arrays of an .npz file by name, read-only. Nothing in it is unpickled.

    Arguments and errors as in `open_file`; `limit` holds for the unpacked arrays, too. A UserError, too, for a damaged file.
    """
    try:
        with open_file(path, remedy, limit) as file:
            return parse_npz(file, os.fstat(file.fileno()).st_size, limit)
    except ValueError as error:
        raise UserError(f"{path}: is not a complete NPZ file ({error}); {remedy}") from error


def npz_names(path: str, limit: int) -> List[str]:
    """Names of the arrays of an .npz file; an empty list for any other file, and for one that cannot be read."""
    try:
        with open_file(path, "", limit) as file, zipfile.ZipFile(file) as archive:
            return [name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")]
    except UserError:
        return []
    except Exception:  # zipfile does not document the types of its errors
        return []


class _Tensor(NamedTuple):
    """What the header of a safetensors file says of a tensor."""

    shape: Tuple[int, ...]
    dtype: str  # in the notation of the format, such as "BF16"
    start: int  # first byte in the file
    size: int  # bytes


def _tensor(name: str, about: Any, start: int) -> _Tensor:
    """The `_Tensor` of an entry of a safetensors header; `start` is where the values of the file start. ValueError where it is wrong."""
    about = about if isinstance(about, dict) else {}
    dtype, shape, offsets = (about.get(key) for key in ("dtype", "shape", "data_offsets"))
    numbers = isinstance(shape, list) and isinstance(offsets, list) and all(type(value) is int and value >= 0 for value in shape + offsets)
    if not numbers or len(offsets) != 2 or len(shape) > _MOST_AXES or not isinstance(dtype, str) or dtype not in _TENSOR_TYPES:
        raise ValueError(f"the entry of {name!r:.80} is invalid")
    begin, end = offsets
    size = functools.reduce(operator.mul, shape, _TENSOR_TYPES[dtype])
    if end - begin != size:
        raise ValueError(f"{name!r:.80} has {end - begin} bytes, but its shape needs {size}")
    return _Tensor(tuple(shape), dtype, start + begin, size)


class PartFile:
    """A file that is read in parts, each into an array of the caller.

    Args:
        path, remedy, limit, links: as in `open_file`, and so are the errors.

    Attributes:
        path: str.
        size: bytes when it was opened.
    """

    def __init__(self, path: str, remedy: str, limit: int, links: bool = True) -> None:
        self.path, self._remedy = path, remedy
        self._file = open_file(path, remedy, limit, links)
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, array: np.ndarray, start: int = 0) -> np.ndarray:
        """Fills a contiguous array with the bytes from `start`; returns it. UserError where the file has fewer."""
        view = array.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._file.fileno(), [view[done:]], start + done)
            except OSError as error:
                raise UserError(f"{self.path}: cannot be read ({error.strerror}); {self._remedy}") from error
            if not count:
                raise UserError(f"{self.path}: was cut before byte {start + done}, it had {self.size} bytes when opened; {self._remedy}")
            done += count
        return array

    def npy_header(self) -> _Header:
        """Shape, dtype, order and first byte of the .npy file. ValueError where it is not a whole array of plain values."""
        header = _npy_header(self.read(np.empty(min(self.size, _NPY_HEADER + 12), np.uint8)).tobytes())
        if header.end != self.size:
            raise ValueError(f"its header says {list(header.shape)} of {header.dtype} = {header.end} bytes, it has {self.size}")
        return header

    def safetensors(self) -> Dict[str, _Tensor]:
        """What the header of a safetensors file says of each tensor. ValueError where the file is not a whole one."""
        if self.size < 8:
            raise ValueError(f"it has {self.size} bytes")
        length = int(self.read(np.empty(1, "<u8"))[0])
        if length > min(JSON_LIMIT, self.size - 8):
            raise ValueError(f"its header of {length} bytes does not end")
        header = parse_json(self.read(np.empty(length, np.uint8), 8).tobytes())
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")
        header.pop("__metadata__", None)
        tensors = {name: _tensor(name, about, 8 + length) for name, about in header.items()}
        end = 8 + length
        for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)):
            if tensor.start != end:
                raise ValueError(f"the values of {name!r:.80} begin at byte {tensor.start}, not at {end}")
            end += tensor.size
        if end != self.size:
            raise ValueError(f"its header says {end} bytes, it has {self.size}")
        return tensors

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> "PartFile":
        return self

    def __exit__(self, *raised: Optional[object]) -> None:
        self.close()
