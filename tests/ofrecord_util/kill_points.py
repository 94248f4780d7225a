"""Ends a save at each of its points, once by SIGKILL and once by a full disk, and says what is there afterwards.

    python3 kill_points.py CASE FOLDER [--no-exchange]

A point is a write (half of the bytes get to the file), a flush to the disk, a new folder, a renaming, a removal. They are
counted, so each is reached whatever the machine is doing. Version 1 is saved, version 2 is ended at a point, version 3 is
saved after it. Prints a JSON list with an object a point: its kind, how the save ended, which version is there, which is
there after the next save, and what else is left beside it. A program of its own, since it forks.
"""

import argparse
import builtins
import ctypes
import errno
import json
import os
import shutil
import signal

import numpy as np
import ofrecord_samples as samples

from modeling.checkpoints.snapshot import Snapshot, write_variables
from ofrecord_util import files
from ofrecord_util.errors import UserError
from ofrecord_util.reader import read_split

ENDED = 3  # exit code of a save that has reported a fault


class Points:
    """Counts the points of a save and ends it at one: by SIGKILL, or by an OSError as of a full disk."""

    def __init__(self, last, kill):
        self.left, self.kill, self.kind = last, kill, None
        for name in ("fsync", "mkdir", "rename", "replace", "unlink", "remove", "rmdir"):
            setattr(os, name, self.wrap(name, getattr(os, name)))
        files._exchange = self.wrap("exchange", files._exchange)
        self.open = builtins.open
        builtins.open = self.opened

    def wrap(self, kind, call):
        def wrapped(*args, **kwargs):
            self.reach(kind)
            return call(*args, **kwargs)

        return wrapped

    def reach(self, kind, before=lambda: None):
        self.left -= 1
        if self.left == 0:
            before()
            os.write(KIND, kind.encode())
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(self, path, mode="r", *args, **kwargs):
        file = self.open(path, mode, *args, **kwargs)
        return Writes(file, self) if set(mode) & set("wx") else file


class Writes:
    """A file open for writing whose writes are points."""

    def __init__(self, file, points):
        self.file, self.points = file, points

    def write(self, data):
        def half():
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        self.points.reach("write", half)
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.file.close()


def save_snapshot(folder, version):
    arrays = {"b": np.full(3, version, np.float32), "a-w": np.full((2, 3), version, np.float32)}
    write_variables(os.path.join(folder, "snapshot"), arrays, {"task.json": json.dumps({"version": version})})


def snapshot_version(folder):
    snapshot = Snapshot(os.path.join(folder, "snapshot"))
    values = {*snapshot.read("b", (3,)), *snapshot.read("a-w", (2, 3)).flat, snapshot.task()["version"]}
    assert len(values) == 1
    assert set(os.listdir(snapshot.path)) == {"a-w", "b", "task.json", "snapshot_done"}
    return int(values.pop())


def save_records(folder, version):
    samples.write(folder, samples.arrays(5, 7, seed=version), part_num=2)


def records_version(folder):
    """The version, "refused" where the reader says that the records must be written again."""
    try:
        records = read_split(folder, "train", part_num=2)
    except UserError as error:
        assert "--resave_ofrecord" in str(error), error  # noqa: PT017  either outcome is right
        return "refused"
    (version,) = [version for version in (1, 2, 3) if samples.equal(records, samples.arrays(5, 7, seed=version))]
    return version


CASES = {  # name: (save, version that is there, folder beside whose entries nothing may be left)
    "snapshot": (save_snapshot, snapshot_version, ""),
    "records": (save_records, records_version, os.path.join("ofrecord", "train")),
}


def run_to(point, kill, save, folder):
    """Saves version 2 up to a point in a process of its own: (kind of the point or "", how the process ended)."""
    global KIND
    reading, KIND = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        Points(point, kill)
        try:
            save(folder, 2)
        except UserError:
            code = ENDED
        finally:
            os._exit(code)
    os.close(KIND)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(reading) as pipe:
        return pipe.read(), "killed" if os.WIFSIGNALED(status) else {0: "saved", ENDED: "reported"}[os.WEXITSTATUS(status)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("folder")
    parser.add_argument("--no-exchange", action="store_true")
    args = parser.parse_args()
    if args.no_exchange:
        ctypes.CDLL = lambda name: None
    save, version, place = CASES[args.case]
    found = []
    for kill in (True, False):
        for point in range(1, 1000):
            folder = os.path.join(args.folder, f"{kill}-{point}")
            os.mkdir(folder)
            save(folder, 1)
            clean = sorted(os.listdir(os.path.join(folder, place)))
            kind, end = run_to(point, kill, save, folder)
            if not kind:
                break
            left = sorted(set(os.listdir(os.path.join(folder, place))) - set(clean))
            row = {"kind": kind, "end": end, "version": version(folder), "left": left}
            save(folder, 3)
            found.append(dict(row, next=version(folder), left_after=sorted(set(os.listdir(os.path.join(folder, place))) - set(clean))))
            shutil.rmtree(folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
