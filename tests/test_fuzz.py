"""benchmarks/fuzz.py: some inputs of each kind, the same for the same number, and a reader with a fault is seen."""

import os
import random

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_damage import Originals, damage, replace
from benchmarks.fuzz_files import write_all
from benchmarks.fuzz_targets import TARGETS
from benchmarks.progress import Progress
from modeling.cli.interruption import Interrupted
from ofrecord_util.errors import UserError


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("fuzz"))
    write_all(folder)
    return folder


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a file that a reader leaves open
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.folder)
def test_readers(work, target):
    folder = os.path.join(work, target.folder)
    files = Originals(folder)
    fuzz.signal.signal(fuzz.signal.SIGALRM, fuzz._time_out)
    assert fuzz.outcome_of(target.read, folder, 60) == ("result", "")
    files.restore()
    for number in range(30):
        draw = random.Random(f"{target.folder} {number}")
        path = draw.choice(files.paths)
        replace(os.path.join(folder, path), draw, files.data[path], [b"other"])
        if target.sign and os.path.isfile(os.path.join(folder, path)):
            target.sign(folder, os.path.join(folder, path))
        outcome, text = fuzz.outcome_of(target.read, folder, 60)
        assert outcome in ("result", "one line"), f"{path}: {text}"
        files.restore()
    assert Originals(folder).data == files.data


def test_damage_depends_on_the_number_only():
    data = b'{"a": 1, "b": "c"}' * 9
    for number in range(50):
        assert damage(data, random.Random(number), [b"x"]) == damage(data, random.Random(number), [b"x"])
    assert len({damage(data, random.Random(number), [b"x"]) for number in range(50)}) > 30


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


def test_a_stopped_run_continues(tmp_path):
    """Blocks of another mode or after a gap do not count, and neither does a line that was not ended."""
    mine = {"mode": "readers", "only": None}
    path = tmp_path / "readers.jsonl"
    progress = Progress(str(path))
    for first, count, more in ((0, 10, {}), (10, 5, {}), (20, 5, {}), (15, 5, {"only": "data"})):
        progress.add({**mine, "first": first, "count": count, **more})
    path.write_text(path.read_text() + '{"mode": "rea')
    results = Progress(str(path)).results
    assert results == progress.results
    assert path.read_text().count("\n") == 4
    assert path.read_text().endswith("}\n")
    assert [fuzz._next_number(results, mine, first) for first in (0, 10, 20, 25)] == [15, 15, 25, 25]
    assert fuzz._next_number(results, dict(mine, only="data"), 15) == 20


def test_a_signal_stops_the_tool():
    def read(_folder):
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        fuzz.outcome_of(read, "", 60)
