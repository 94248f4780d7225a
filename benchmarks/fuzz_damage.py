"""Damages files for `benchmarks/fuzz.py`: random bytes, cuts, edited values, other kinds of files; and puts the whole files back."""

import io
import os
import re
import shutil
import zipfile

_NUMBERS = ("0", "-1", "1", "2", "1e400", "NaN", "1" + "0" * 400, "9223372036854775808", "2147483648", "1e308", "0.5", "1099511627776")
_STRINGS = (
    *("", "abc", "../../victim", "/etc/passwd", "a\\nb", "a\\tb", "\\u001b[31m", "\\u0000", "\\ud800", "\\u202e", "x" * 225),
    *("-", "snapshot_best_"),
)
_VALUES = (
    *_NUMBERS,
    *(f'"{text}"' for text in _STRINGS),
    *("null", "true", "false", "[]", "{}", "[1]", '{"a": 1}', "[[]]"),
    *("[" * 80 + "]" * 80, "[" * 3000 + "]" * 3000, "[" + "0," * 500 + "0]"),
)
_BYTES = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b"\x1b[31m", b"\xe2\x80\xa8", b"\xed\xa0\x80"),
    *(b'"', b"{", b"[", b"PK", b"=", b"--", b"@"),
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null')


def damage(data, draw, others):
    """A damaged copy of a file's bytes.

    Args:
        data: bytes.
        draw: `random.Random`.
        others: list of the bytes of other files.
    """
    kind = draw.choice(("cut", "flip", "bytes", "slice", "value", "value", "value", "number", "other", "random"))
    if kind == "cut":
        return data[: draw.randrange(len(data) + 1)]
    if kind == "random":
        return bytes(draw.getrandbits(8) for _ in range(draw.choice((0, 1, 7, 100, 3000))))
    if kind == "other":
        return draw.choice(others)
    changed = bytearray(data)
    if kind == "flip" and changed:
        for _ in range(draw.choice((1, 1, 2, 8, 50))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    elif kind == "bytes":
        for _ in range(draw.choice((1, 1, 3))):
            place = draw.randrange(len(changed) + 1)
            changed[place : place + draw.randrange(3)] = draw.choice(_BYTES)
    elif kind == "slice":
        start, end, place = sorted(draw.randrange(len(changed) + 1) for _ in range(3))
        part = bytes(changed[start:end])
        if draw.random() < 0.5:
            del changed[start:end]
        changed[place:place] = part * draw.choice((0, 1, 2, 20))
    elif kind == "value":
        tokens = list(_TOKEN.finditer(data))
        for _ in range(draw.choice((1, 1, 2)) if tokens else 0):
            found = draw.choice(tokens)
            return data[: found.start()] + draw.choice(_VALUES).encode("utf-8") + data[found.end() :]
    elif kind == "number" and len(changed) >= 8:
        place, size = draw.randrange(len(changed) - 7), draw.choice((1, 2, 4, 8))
        changed[place : place + size] = draw.choice((0, 1, 127, 255, 2**31, 2**40, 2**63 - 1, 2**64 - 1)).to_bytes(8, "little")[:size]
    return bytes(changed)


def damage_archive(data, draw, others):
    """A copy of an .npz file with one damaged member, which is packed again so that its checksum fits."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w", draw.choice((0, 8))) as new:
        chosen = draw.choice(archive.namelist())
        for name in archive.namelist():
            content = archive.read(name)
            new.writestr(name, damage(content, draw, others) if name == chosen else content)
    return out.getvalue()


def replace(path, draw, data, others):
    """Puts something damaged in the place of a file."""
    os.remove(path)
    kind = draw.choice(("file",) * 40 + ("fifo", "folder", "loop", "gone", "device", "sparse"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "loop":
        os.symlink(os.path.basename(path), path)
    elif kind == "device":
        os.symlink("/dev/zero", path)
    elif kind != "gone":
        with open(path, "wb") as file:
            if kind == "sparse":
                file.truncate(12 * 10**9)
            elif data[:2] == b"PK" and draw.random() < 0.5:
                file.write(damage_archive(data, draw, others))
            else:
                file.write(damage(data, draw, others))
    return kind


class Originals:
    """The whole files of a folder, and their restoration.

    Attributes:
        paths: sorted list of relative paths.
        data: dict of path -> bytes.
    """

    def __init__(self, folder):
        self._folder = folder
        found = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
        self.paths = sorted(os.path.relpath(path, folder) for path in found)
        self.data = {}
        for path in self.paths:
            with open(os.path.join(folder, path), "rb") as file:
                self.data[path] = file.read()

    def restore(self):
        """Makes the folder what it was. Files that a reader has written go."""
        for place, folders, names in os.walk(self._folder, topdown=False):
            for name in names + [name for name in folders if os.path.islink(os.path.join(place, name))]:
                path = os.path.join(place, name)
                if os.path.relpath(path, self._folder) not in self.data or not os.path.isfile(path) or os.path.islink(path):
                    os.remove(path)
        for path, data in self.data.items():
            path = os.path.join(self._folder, path)
            if os.path.isdir(path):
                shutil.rmtree(path)
            if not os.path.exists(path) or os.path.getsize(path) != len(data) or _read(path) != data:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(data)


def _read(path):
    with open(path, "rb") as file:
        return file.read()
