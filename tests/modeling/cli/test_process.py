"""modeling/cli/process.py: what a script needs of its process, in tools that do not load OneFlow."""

import os
import re
import signal
import subprocess
import sys

import pytest
from tiny_model import ROOT

from modeling.cli import process
from modeling.cli.flags_page import flags_page

TOOL = os.path.join("tools", "write_flags_page.py")


def shell(line, *arguments, **environment):
    """Runs a line of sh in the root, in which "$@" is the Python interpreter and the arguments."""
    command = ["sh", "-c", line, "sh", sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=dict(os.environ, **environment))


def test_tests_are_no_script():
    assert not process.runs_script()
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path, closed):
    """Without a stream the number of the stream would go to the next file that is opened."""
    path = tmp_path / "flags.md"
    done = shell('"$@" ' + closed, TOOL, "--output", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text(encoding="utf-8") == flags_page()
    assert os.listdir(tmp_path) == ["flags.md"]


def test_closed_streams_and_an_error(tmp_path):
    done = shell('"$@" >&- 2>&-', TOOL, "--output", tmp_path / "missing" / "flags.md")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_the_output_does_not_know(tmp_path, encoding):
    done = shell('"$@"', TOOL, "--output", tmp_path / "mod\N{GREEK SMALL LETTER EPSILON}l.md", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("mod\\u03b5l.md\n")


def test_names_and_arguments_that_are_not_utf_8(tmp_path):
    path = os.fsencode(tmp_path) + b"/fl\xe4gs.md"
    done = shell('"$@"', TOOL, "--output", os.fsdecode(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert os.path.exists(path)
    done = shell('"$@"', TOOL, os.fsdecode(b"--h\xe4lp"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown flag --h\\udce4lp")


def test_a_full_disk_behind_standard_output():
    done = shell('"$@" > /dev/full', os.path.join("tools", "list_imports.py"))
    assert (done.returncode, done.stderr) == (2, "error: the output: No space left on device\n")


def test_limited_file_size(tmp_path):
    done = shell('ulimit -f 1; "$@"', TOOL, "--output", tmp_path / "flags.md")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [["-O"], ["-OO"]])
def test_optimised_and_linked(tmp_path, options):
    """A link in another folder finds the modules of the project."""
    os.symlink(os.path.join(ROOT, TOOL), tmp_path / "flags page")
    done = shell('"$@"', *options, tmp_path / "flags page", "--output", tmp_path / "flags.md")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "flags.md").read_text(encoding="utf-8") == flags_page()


def test_an_interrupt_during_the_imports_is_silent():
    program = "import os, signal, sys; sys.modules['__main__'].__file__ = sys.argv[1]; import modeling; os.kill(os.getpid(), signal.SIGINT)"
    done = shell('exec "$@"', "-c", program, os.path.join(ROOT, TOOL))
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("tool", ["predict.py", "inspect.py", "make_kshot.py", "convert_checkpoint.py", "report.py"])
def test_a_python_without_the_packages(tool):
    """As the system's Python: one line that says what to do, and no traceback."""
    done = shell('"$@" text', "-S", os.path.join("tools", tool))
    assert done.returncode == 2
    assert re.match(r"error: the package \w+ is not installed for .*: install requirements.txt in a CPython 3.7 to 3.10", done.stderr)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_module_that_is_not_a_package_keeps_its_traceback():
    program = "import sys; sys.modules['__main__'].__file__ = sys.argv[1]; import modeling; import modeling.nowhere"
    done = shell('"$@"', "-c", program, os.path.join(ROOT, TOOL))
    assert done.returncode == 1
    assert done.stderr.endswith("No module named 'modeling.nowhere'\n")
    assert "Traceback" in done.stderr
