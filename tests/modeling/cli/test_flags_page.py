"""modeling/cli/flags_page.py: docs/flags.md equals the page that the flag table gives, and has every flag."""

import os
import subprocess
import sys

from tiny_model import ROOT

from modeling.cli.flag_table import FLAGS
from modeling.cli.flags_page import PAGE, flags_page


def test_the_file_is_up_to_date():
    with open(os.path.join(ROOT, PAGE), encoding="utf-8") as file:
        assert file.read() == flags_page(), "run: python3 tools/write_flags_page.py"


def test_every_row_of_the_table_is_a_row_of_the_page():
    rows = [line for line in flags_page().splitlines() if line.startswith("| `--")]
    assert [row.split("`")[1] for row in rows] == ["--" + flag.name for flag in FLAGS]
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)


def test_the_tool_writes_the_page(tmp_path):
    path = tmp_path / "flags.md"
    command = [sys.executable, os.path.join("tools", "write_flags_page.py"), "--output"]
    done = subprocess.run([*command, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")
    assert path.read_text(encoding="utf-8") == flags_page()
    done = subprocess.run([*command, str(tmp_path / "absent" / "flags.md")], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"error: --output {tmp_path / 'absent' / 'flags.md'}: cannot be written (No such file or directory)\n"
