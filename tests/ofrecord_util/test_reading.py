"""Files that strangers hand over: each fault of kind, size, text, JSON or array is one line, and nothing large is allocated for it."""

import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from ofrecord_util import array_reading, json_reading, reading
from ofrecord_util.errors import UserError

REMEDY = "do this"


def refused(function, *arguments):
    """The message of the UserError, after a check that little memory was used."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            function(*arguments)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(REMEDY)
    return message


def sparse(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    return str(path)


READERS = (
    json_reading.read_json,
    array_reading.read_npy,
    array_reading.read_npz,
    reading.read_text,
    lambda *given: list(json_reading.read_json_lines(*given)),
)


@pytest.mark.parametrize("read", READERS)
def test_kinds_of_files(tmp_path, read):
    os.mkfifo(str(tmp_path / "fifo"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for path, said in (
        (str(tmp_path / "fifo"), "it is a FIFO, not a file"),
        (str(tmp_path / "folder"), "Is a directory"),
        (str(tmp_path / "loop"), "symbolic links"),
        (str(tmp_path / "missing"), "No such file"),
        ("/dev/zero", "it is a device, not a file"),
        ("a\0b", "not a path"),
    ):
        assert said in refused(read, path, REMEDY), path


@pytest.mark.parametrize("read", READERS)
def test_large_files_are_not_read(tmp_path, read):
    assert "12.0 GB, at most" in refused(read, sparse(tmp_path / "large", 12 * 10**9), REMEDY)


def test_a_link_is_followed_unless_the_folder_must_be_whole(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    assert reading.read_bytes(str(tmp_path / "link"), REMEDY, 10) == b"x"
    with pytest.raises(UserError, match="link: is a symbolic link"):
        reading.read_bytes(str(tmp_path / "link"), REMEDY, 10, links=False)


def test_rights_are_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")

    def no_rights(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reading.os, "open", no_rights)
    assert "cannot be read (Permission denied)" in refused(reading.read_bytes, str(tmp_path / "file"), REMEDY, 10)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is not JSON"),
        (b"[1]", "holds list"),
        (b'{"a": 1', "is not JSON"),
        (b'{"a": "\xff"}', "is not JSON (byte 7 of it (0xff) is not UTF-8, as JSON is: convert it)"),
        (b'\xef\xbb\xbf{"a": "\xff"}', "is not JSON (byte 10 of it (0xff) is not UTF-8"),
        *(
            ('{"a": "\u00e9"}'.encode(name), f"is not JSON (it looks like {name[:6].upper()}, and JSON is UTF-8: convert it)")
            for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")
        ),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": 1' + b"0" * 400 + b"}", "more than 64 bits"),
        (b'{"a": -1' + b"0" * 5000 + b"}", "more than 64 bits"),
        (b'{"a": 9223372036854775808}', "more than 64 bits"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', "the key 'b' is there twice"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "64 levels"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "64 levels"),
    ],
)
def test_json_that_no_program_could_use(tmp_path, text, said):
    (tmp_path / "f.json").write_bytes(text)
    assert said in refused(json_reading.read_json, str(tmp_path / "f.json"), REMEDY)


def test_json(tmp_path):
    value = {"a": [1, -2, 2**63 - 1, -(2**63), 1.5, 1e308, True, None, "\u00e9 \U0001f600"], "b": {}}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), "\ufeff" + json.dumps(value)):
        (tmp_path / "f.json").write_bytes(text.encode("utf-8"))
        assert json_reading.read_json(str(tmp_path / "f.json"), REMEDY) == value
    assert np.isnan(json_reading.parse_json(b"NaN"))


def test_json_lines(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": ')
    assert list(json_reading.read_json_lines(str(path), REMEDY)) == [(1, {"a": 1}), (2, {"a": 2})]
    for bad in (b"{}\n{\n{}\n", b"{}\n3\n{}\n", b"{}\n\n{}\n", b"{}\n\xff\n"):
        path.write_bytes(bad)
        assert "line 2: " in refused(lambda *given: list(json_reading.read_json_lines(*given)), str(path), REMEDY)


def npy(array, **settings):
    file = io.BytesIO()
    np.save(file, array, **settings)
    return file.getvalue()


def header(text, version=b"\x01\x00", values=b""):
    text = text.encode("latin-1")
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[:1] == b"\x01" else 4, "little") + text + values


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.float16(3),
        np.zeros((0, 4), np.uint8),
        np.array([True, False]),
        np.array(["a", "bc"]),
        np.arange(4, dtype=">i2"),
    ],
)
def test_arrays(tmp_path, array):
    np.save(str(tmp_path / "a.npy"), array)
    np.savez_compressed(str(tmp_path / "a.npz"), array)
    for found in (
        array_reading.read_npy(str(tmp_path / "a.npy"), REMEDY),
        array_reading.read_npz(str(tmp_path / "a.npz"), REMEDY)["arr_0"],
    ):
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


DAMAGED = {
    "empty": b"",
    "magic": b"\x93NUMPY",
    "version": header("{}", b"\x09\x00"),
    "unclosed header": header("{'descr': '<f4', 'fortran_order': False, 'shape': (3"),
    "header beyond the end": header("{}")[:-1],
    "huge header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100,
    "nested header": header("(" * 4000),
    "call in the header": header("{'descr': f(), 'fortran_order': False, 'shape': (3,)}"),
    "other keys": header("{'descr': '<f4', 'shape': (3,)}"),
    "structure": header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}", values=b"\0" * 12),
    "unknown type": header("{'descr': '<q9', 'fortran_order': False, 'shape': (3,)}"),
    "2^40": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}", values=b"\0" * 64),
    "2^40 x 2^40": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1099511627776)}"),
    "negative": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
    "many axes": header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 40 + ")}", values=b"\0" * 4),
    "float in the shape": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1.0,)}", values=b"\0" * 4),
    "width of nothing": header("{'descr': '<U0', 'fortran_order': False, 'shape': (3,)}"),
    "truncated": npy(np.zeros(9))[:-1],
    "longer": npy(np.zeros(9)) + b"\0",
    "objects": npy(np.array([{}], object), allow_pickle=True),
    "pickle": b"\x80\x04N.",
    "archive": b"PK\x03\x04" + b"\0" * 40,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_arrays(tmp_path, name):
    (tmp_path / "a.npy").write_bytes(DAMAGED[name])
    assert "a.npy: is not an array" in refused(array_reading.read_npy, str(tmp_path / "a.npy"), REMEDY)
    with zipfile.ZipFile(str(tmp_path / "a.npz"), "w") as archive:
        archive.writestr("a.npy", DAMAGED[name])
    assert "a.npz: is not a complete NPZ file" in refused(array_reading.read_npz, str(tmp_path / "a.npz"), REMEDY)


def test_damaged_archives(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(str(path), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(np.arange(1000.0)))
    whole = path.read_bytes()
    encrypted = bytearray(whole)
    for place in (whole.index(b"PK\x03\x04") + 6, whole.index(b"PK\x01\x02") + 8):
        encrypted[place] |= 1
    method = bytearray(whole)
    for place in (whole.index(b"PK\x03\x04") + 8, whole.index(b"PK\x01\x02") + 10):
        method[place] = 99
    deflate = bytearray(whole)
    deflate[80] ^= 0xFF
    for damaged in (whole[:-30], whole[: len(whole) // 2], encrypted, method, deflate, b"PK", b"junk"):
        path.write_bytes(bytes(damaged))
        refused(array_reading.read_npz, str(path), REMEDY)


def test_an_archive_that_unpacks_to_gigabytes(tmp_path):
    path = str(tmp_path / "a.npz")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w", force_zip64=True) as file:
        file.write(header("{'descr': '|u1', 'fortran_order': False, 'shape': (200000000,)}"))
        for _ in range(200):
            file.write(bytes(10**6))
    assert "unpack to 200.0 MB" in refused(array_reading.read_npz, path, REMEDY)


def test_parts_of_a_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    kept = array_reading.PartFile(str(path), REMEDY, 100)
    inner = kept._file
    del kept
    assert inner.closed  # an object that keeps it open need not close it
    with array_reading.PartFile(str(path), REMEDY, 100) as file:
        assert file.read(np.empty(3, np.uint8), 7).tolist() == [7, 8, 9]
        assert file.read(np.empty((2, 2), "<u2"), 10).tolist() == [[0x0B0A, 0x0D0C], [0x0F0E, 0x1110]]
        assert file.read(np.empty(0, np.float32), 200).tolist() == []
        os.truncate(str(path), 50)
        with pytest.raises(UserError, match="was cut before byte 50, it had 100 bytes"):
            file.read(np.empty(20, np.uint8), 40)
