"""modeling/run/run_folder.py: where a run may create its folder."""

import os

import pytest

from modeling.run.run_folder import check_can_be_created
from ofrecord_util.errors import UserError
from ofrecord_util.output_checks import SNAPSHOT_DONE


@pytest.mark.parametrize("name", ["run", "deep/run"])
def test_no_run_in_a_snapshot(name, tmp_path):
    """A further folder in a snapshot would make it unreadable, so such a run could not be resumed."""
    (tmp_path / SNAPSHOT_DONE).write_text("")
    path = str(tmp_path / name)
    with pytest.raises(
        UserError, match=f"{path}: is in {tmp_path}, a snapshot, whose files are not changed; give another --model_save_dir"
    ):
        check_can_be_created(path)
    assert os.listdir(str(tmp_path)) == [SNAPSHOT_DONE]


def test_a_run_beside_a_snapshot(tmp_path):
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / SNAPSHOT_DONE).write_text("")
    check_can_be_created(str(tmp_path / "run"))
    check_can_be_created(str(tmp_path / "snapshot"))  # the run gets the name snapshot-1
