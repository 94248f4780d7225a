"""benchmarks/fuzz.py: some inputs of each kind, the same for the same number, and a reader with a fault is seen."""

import os
import random

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_targets import TARGETS, write_all
from ofrecord_util.errors import UserError


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("fuzz"))
    write_all(folder)
    return folder


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.folder)
def test_readers(work, target):
    folder = os.path.join(work, target.folder)
    files = fuzz.Originals(folder)
    fuzz.signal.signal(fuzz.signal.SIGALRM, fuzz._time_out)
    assert fuzz.outcome_of(target.read, folder, 60) == ("result", "")
    files.restore()
    for number in range(30):
        draw = random.Random(f"{target.folder} {number}")
        path = draw.choice(files.paths)
        fuzz.replace(os.path.join(folder, path), draw, files.data[path], [b"other"])
        if target.sign and os.path.isfile(os.path.join(folder, path)):
            target.sign(folder, os.path.join(folder, path))
        outcome, text = fuzz.outcome_of(target.read, folder, 60)
        assert outcome in ("result", "one line"), f"{path}: {text}"
        files.restore()
    assert fuzz.Originals(folder).data == files.data


def test_damage_depends_on_the_number_only():
    data = b'{"a": 1, "b": "c"}' * 9
    for number in range(50):
        assert fuzz.damage(data, random.Random(number), [b"x"]) == fuzz.damage(data, random.Random(number), [b"x"])
    assert len({fuzz.damage(data, random.Random(number), [b"x"]) for number in range(50)}) > 30


def test_faults_of_a_reader_are_seen(tmp_path):
    def fails(error):
        def read(_folder):
            raise error

        return fuzz.outcome_of(read, str(tmp_path), 60)[0]

    assert fails(UserError("one")) == "one line"
    assert fails(UserError("one\ntwo")) == "several lines"
    assert fails(ValueError("x")) == "ValueError"
    assert fails(SystemExit(1)) == "exit"
    fuzz.signal.signal(fuzz.signal.SIGALRM, fuzz._time_out)
    assert fuzz.outcome_of(lambda _: fuzz.time.sleep(5), str(tmp_path), 0.05)[0] == "hang"
    assert fuzz.outcome_of_command(["-c", "raise SystemExit(0)"], 60)[0] == "result"
    assert fuzz.outcome_of_command(["-c", "import sys; print('error: x', file=sys.stderr); sys.exit(2)"], 60) == ("one line", "error: x")
    assert fuzz.outcome_of_command(["-c", "1 / 0"], 60)[0] == "exit code 1"
    assert fuzz.outcome_of_command(["-c", "import os; os.abort()"], 60)[0] == "exit code -6"
