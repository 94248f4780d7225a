"""generations_SPLIT.tsv: what is written is read, and damaged files are refused with their line."""

import pytest

from modeling.run.generations import Generation, generations_path, read_generations, write_generations, written_generations
from ofrecord_util.errors import UserError


def test_there_and_back(tmp_path):
    path = generations_path(str(tmp_path), "dev")
    write_generations(path, ["a\tb", "c"], ["d", "e\nf"], [("g", -0.25), ("", -1e-7)])
    assert read_generations(path) == [Generation(0, -0.25, "a b", "d", "g"), Generation(1, -1e-7, "c", "e f", "")]
    assert len(read_generations(path, most=1)) == 1
    assert written_generations(str(tmp_path)) == {"dev": path}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row\tscore\n", "line 1: has other columns than a run writes"),
        ("row\tscore\tsource\ttarget\tgenerated\n0\t1\ta\tb\n", "line 2: has other columns"),
        ("row\tscore\tsource\ttarget\tgenerated\nx\t1\ta\tb\tc\n", "line 2: invalid literal"),
    ],
)
def test_damaged_files(tmp_path, text, message):
    path = generations_path(str(tmp_path), "dev")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    with pytest.raises(UserError, match=message):
        read_generations(path)
