"""Reads arrays that a user or another program hands over: .npy, .npz and safetensors, and raw values in parts. Limits and faults are those
of ofrecord_util/reading.py; nothing is unpickled."""

import ast
import functools
import operator
import os
import re
import zipfile
from typing import Any, BinaryIO, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import parse_json
from ofrecord_util.reading import ARRAY_LIMIT, JSON_LIMIT, open_file, read_bytes, size_text

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
    """A file that is read in parts, each into an array of the caller. A `with` or `close` closes it; at the latest, it is closed when
    nothing uses the object any more.

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

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # not if it could not be opened
            self.close()

    def __enter__(self) -> "PartFile":
        return self

    def __exit__(self, *raised: Optional[object]) -> None:
        self.close()
