"""Outputs that cannot be written, or would replace something, are found before the work."""

import os

import pytest

from modeling.cli.flags_file import RUN_FLAGS_FILE
from modeling.report.curves_png import CURVES_FILE
from modeling.report.page import REPORT_FILE
from modeling.run.flags_json import FLAGS_FILE
from modeling.run.generations import generations_path
from modeling.run.log import LOG_FILE
from modeling.run.metrics import METRICS_FILE
from modeling.run.predictions import predictions_path
from modeling.run.split_files import answers_path, nbest_path, tagged_path
from ofrecord_util import output_checks
from ofrecord_util.errors import UserError


def test_places_that_cannot_be_written_are_found_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    os.mkfifo(str(tmp_path / "fifo"))
    for check, path, said in (
        (output_checks.check_output, "folder", "is a folder"),
        (output_checks.check_output, "missing/file", "No such file"),
        (output_checks.check_output, "file/file", "Not a directory"),
        (output_checks.check_output_folder, "file", "is not a folder"),
        (output_checks.check_output_folder, "file/a/b", "Not a directory"),
    ):
        with pytest.raises(UserError, match=f"{path}: .*{said}.*; give another --output"):
            check(str(tmp_path / path), "--output")
    output_checks.check_output(str(tmp_path / "file"), "--output")
    output_checks.check_output(str(tmp_path / "fifo"), "--output")
    output_checks.check_output(str(tmp_path / "new"), "--output")
    output_checks.check_output_folder(str(tmp_path / "a" / "b"), "--output")

    def read_only(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(output_checks.tempfile, "TemporaryFile", read_only)
    for check in (output_checks.check_output, output_checks.check_output_folder):
        with pytest.raises(UserError, match=r"new: cannot be written \(Read-only file system\)"):
            check(str(tmp_path / "new"), "--output")
    assert sorted(os.listdir(str(tmp_path))) == ["fifo", "file", "folder"]


def test_a_file_that_the_command_reads_is_not_overwritten(tmp_path):
    (tmp_path / "input").write_text("x")
    os.symlink("input", str(tmp_path / "link"))
    for name in ("input", "link"):
        with pytest.raises(UserError, match=rf"{name}: is a file of this command or of the run, .* give another --output"):
            output_checks.check_output(str(tmp_path / name), "--output", others=[str(tmp_path / "other"), str(tmp_path / "input")])
    output_checks.check_output(str(tmp_path / "new"), "--output", others=[str(tmp_path / "input")])
    with pytest.raises(UserError, match="new: is a file of this command"):
        output_checks.check_output(str(tmp_path / "new"), "--output", others=[str(tmp_path / "new")])
    output_checks.check_output(os.devnull, "--output", others=[os.devnull])


def test_nothing_is_written_into_a_folder_that_the_command_uses(tmp_path):
    (tmp_path / "run" / "snapshot").mkdir(parents=True)
    (tmp_path / "run" / "snapshot" / "meta").write_text("x")
    os.symlink("run", str(tmp_path / "link"))
    with pytest.raises(UserError, match="meta: is a file of this command or of the run, and would be overwritten; give another --output"):
        output_checks.check_output(str(tmp_path / "link" / "snapshot" / "meta"), "--output", others=[str(tmp_path / "run")])
    with pytest.raises(UserError, match=r"new: is in .*run, a folder whose files this command uses; give another --output"):
        output_checks.check_output(str(tmp_path / "run" / "new"), "--output", others=[str(tmp_path / "run")])
    output_checks.check_output(str(tmp_path / "run-2"), "--output", others=[str(tmp_path / "run")])


def test_no_folder_is_created_in_a_snapshot(tmp_path):
    """Each folder in a snapshot is a variable."""
    snapshot = tmp_path / "run" / "snapshot_best"
    (snapshot / "bert-pooler-dense-bias").mkdir(parents=True)
    (snapshot / output_checks.SNAPSHOT_DONE).write_text("")
    os.symlink("run", str(tmp_path / "link"))
    for path in (
        snapshot / "new",
        snapshot / "bert-pooler-dense-bias" / "new",
        snapshot / "a" / "b",
        tmp_path / "link" / "snapshot_best" / "c",
    ):
        for whole in (True, False):
            with pytest.raises(UserError, match=r"is in .*snapshot_best, a snapshot, .*; give another --output_dir"):
                output_checks.check_output_folder(str(path), "--output_dir", whole=whole)
        with pytest.raises(UserError, match=r"a snapshot, .*give another --output"):
            output_checks.check_output(str(path / "file"), "--output", makes_folder=True)
    (snapshot / "vocab.txt").write_text("[PAD]\n")  # a file of another snapshot than that of the command
    with pytest.raises(UserError, match=r"vocab.txt: is in .*snapshot_best, a snapshot, whose files are not changed; give another"):
        output_checks.check_output(str(snapshot / "vocab.txt"), "--output")
    output_checks.check_output(str(snapshot / "file.onnx"), "--output", makes_folder=True)
    output_checks.check_output_folder(str(snapshot), "--output_dir")  # replaces it as a whole
    with pytest.raises(UserError, match="a snapshot"):
        output_checks.check_output_folder(str(snapshot), "--output_dir", whole=False)
    output_checks.check_output_folder(str(tmp_path / "run" / "other"), "--output_dir")
    assert sorted(os.listdir(str(snapshot))) == ["bert-pooler-dense-bias", output_checks.SNAPSHOT_DONE, "vocab.txt"]


def test_the_files_of_a_run_are_those_that_its_modules_write():
    assert output_checks.RUN_MARKS == (RUN_FLAGS_FILE, FLAGS_FILE)
    of_splits = [path_of("", "*") for path_of in (predictions_path, generations_path, tagged_path, answers_path, nbest_path)]
    files = (*output_checks.RUN_MARKS, LOG_FILE, METRICS_FILE, CURVES_FILE, REPORT_FILE)
    assert list(output_checks.RUN_FILES) == [*files, *of_splits]


@pytest.mark.parametrize("mark", output_checks.RUN_MARKS)
def test_no_file_of_any_run_is_replaced(tmp_path, mark):
    """Other files in the folder of a run, and files with these names in other folders, may be replaced."""
    written = (mark, "run.log", "metrics.jsonl", "curves.png", "report.html", "predictions_dev.tsv", "predictions_teacher_test.tsv")
    for folder, names in (("run", (*written, "page.html", "mine.tsv")), ("plain", written[1:])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text("kept")
    os.symlink("run", str(tmp_path / "link"))
    for name in written:
        with pytest.raises(UserError, match=rf"link/{name}: is a file that the run in .*/run wrote, .*; give another --output$"):
            output_checks.check_output(str(tmp_path / "link" / name), "--output")
    (tmp_path / "run" / "run.log").rename(tmp_path / "stored")  # as tools for large files do
    os.symlink("../stored", str(tmp_path / "run" / "run.log"))
    with pytest.raises(UserError, match=r"run/run\.log: is a file that the run in"):
        output_checks.check_output(str(tmp_path / "run" / "run.log"), "--output")
    for name in ("run/page.html", "run/mine.tsv", "run/predictions_new.tsv", *(f"plain/{name}" for name in written[1:])):
        output_checks.check_output(str(tmp_path / name), "--output")


def test_a_name_that_has_no_room_for_a_temporary_one(tmp_path):
    for name in ("a" * 250, "a" * 300):
        with pytest.raises(UserError, match=r"File name too long\); give another --output"):
            output_checks.check_output(str(tmp_path / name), "--output")
        with pytest.raises(UserError, match=r"File name too long\); give another --output_dir"):
            output_checks.check_output_folder(str(tmp_path / name), "--output_dir")
    output_checks.check_output(str(tmp_path / ("a" * 240)), "--output")
    output_checks.check_output_folder(str(tmp_path / ("a" * 250)), "--output_dir", whole=False)
