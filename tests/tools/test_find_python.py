"""tools/find_python.sh: which interpreter is chosen, what is passed over, what is said when there is none."""

import os
import shutil
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(ROOT, "tools", "find_python.sh")
WORKS = "#!/bin/sh\nexit 0\n"
SHIM = "#!/bin/sh\necho \"pyenv: $(basename $0): command not found\" >&2\necho 'A long note' >&2\nexit 127\n"
NO_VENV = "#!/bin/sh\necho 'lacks the module ensurepip' >&2\nexit 1\n"


@pytest.fixture
def machine(tmp_path):
    """A machine without any Python: a PATH of two folders, the first with just the commands that the script calls."""
    commands = tmp_path / "commands"
    commands.mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "home").mkdir()
    for name in ("env", "timeout", "sort", "uname", "cat", "basename"):
        os.symlink(shutil.which(name), str(commands / name))
    return tmp_path


def add(machine, path, text=WORKS):
    path = machine / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def find(machine, **variables):
    env = {"PATH": f"{machine}/commands:{machine}/bin:{machine}/bin", "HOME": f"{machine}/home"}
    env.update(variables)
    return subprocess.run([shutil.which("bash"), SCRIPT], env=env, capture_output=True, text=True)


def found(machine, **variables):
    result = find(machine, **variables)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.rstrip("\n")


def test_newest_supported_version_wins(machine):
    add(machine, "bin/python3.11")
    add(machine, "bin/python3.7")
    nine = add(machine, "bin/python3.9")
    add(machine, "bin/python3.8")
    assert found(machine) == nine
    ten = add(machine, "bin/python3.10")
    assert found(machine) == ten


def test_a_shim_without_a_version_behind_it_is_passed_over(machine):
    add(machine, "bin/python3.10", SHIM)
    managed = add(machine, "home/.pyenv/versions/3.10.13/bin/python3.10")
    add(machine, "bin/python3.9")
    assert found(machine) == managed


def test_newest_patch_release_of_pyenv(machine):
    add(machine, "home/.pyenv/versions/3.10.2/bin/python3.10")
    newest = add(machine, "home/.pyenv/versions/3.10.13/bin/python3.10")
    add(machine, "home/.pyenv/versions/3.11.1/bin/python3.11")
    assert found(machine) == newest


def test_folders_of_pyenv_and_uv_can_lie_elsewhere(machine):
    eight = add(machine, "my pyenv/versions/3.8.18/bin/python3.8")
    assert found(machine, PYENV_ROOT=f"{machine}/my pyenv") == eight
    nine = add(machine, "home/.local/share/uv/python/cpython-3.9.20-linux-x86_64-gnu/bin/python3.9")
    assert found(machine, PYENV_ROOT=f"{machine}/my pyenv") == nine
    ten = add(machine, "my uv/cpython-3.10.15-linux-x86_64-gnu/bin/python3.10")
    assert found(machine, UV_PYTHON_INSTALL_DIR=f"{machine}/my uv") == ten


def test_none_at_all_says_what_to_install(machine):
    result = find(machine)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("error:") == 1
    assert "skipped:" not in result.stderr
    for advice in ("uv python install 3.10", "pyenv install 3.10", "deadsnakes", "PYTHON="):
        assert advice in result.stderr


def test_none_that_will_do_says_why(machine):
    shim = add(machine, "bin/python3.10", SHIM)
    plain = add(machine, "bin/python3.9", NO_VENV)
    result = find(machine)
    assert result.returncode == 2
    assert f"skipped: {shim} (pyenv: python3.10: command not found)" in result.stderr
    assert f"skipped: {plain} (lacks the module ensurepip)" in result.stderr
    assert result.stderr.count(shim) == 1  # the folder is on the PATH twice


def test_without_home(machine):
    env = {"PATH": f"{machine}/commands"}
    result = subprocess.run([shutil.which("bash"), SCRIPT], env=env, capture_output=True)
    assert result.returncode == 2


def test_this_very_python_is_suitable(machine):
    """The probe itself, on a real interpreter: the tests run on a Python that OneFlow has wheels for."""
    assert found(machine, PYTHON=sys.executable) == sys.executable
    version = "python{}.{}".format(*sys.version_info[:2])
    os.symlink(sys.executable, str(machine / "bin" / version))
    assert found(machine) == str(machine / "bin" / version)


def test_a_python_of_another_version_is_not_believed(machine):
    wrong = "python3.7" if sys.version_info[:2] != (3, 7) else "python3.8"
    os.symlink(sys.executable, str(machine / "bin" / wrong))
    result = find(machine)
    assert result.returncode == 2
    assert "(is Python {}.{})".format(*sys.version_info[:2]) in result.stderr


def test_a_given_python_that_will_not_do(machine):
    add(machine, "bin/python3.10")
    bad = add(machine, "bin/other", NO_VENV)
    result = find(machine, PYTHON=bad)
    assert result.returncode == 2
    assert "lacks the module ensurepip" in result.stderr
    result = find(machine, PYTHON=str(machine / "nowhere"))
    assert result.returncode == 2
    assert "nowhere" in result.stderr
