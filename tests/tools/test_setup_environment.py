"""tools/setup_environment.sh: installs once, again when the requirements change, and never trusts a half-made environment."""

import os
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Stands in for Python: knows its version, makes an "environment" out of itself, and notes what pip is asked to do.
PYTHON = """#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip") echo "$@" >>"$PIP_LOG"; exit "${PIP_RESULT:-0}" ;;
  -c*print*) echo 3.10.99 ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    """A project of its own with the two scripts, requirement files and a stand-in for Python."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("find_python.sh", "setup_environment.sh"):
        shutil.copy(os.path.join(ROOT, "tools", name), str(tmp_path / "tools" / name))
    for name in ("requirements-common.txt", "requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "bin" / "python3.10").write_text(PYTHON)
    (tmp_path / "bin" / "python3.10").chmod(0o755)
    return tmp_path


def set_up(project, *arguments, **variables):
    """(exit code, error output, calls of pip so far)"""
    log = project / "pip.log"
    env = {"PATH": f"{project}/bin:{os.defpath}", "HOME": str(project), "PIP_LOG": str(log)}
    env.update(variables)
    arguments = arguments or (".venv", "requirements.txt", "requirements-dev.txt")
    command = [shutil.which("bash"), str(project / "tools" / "setup_environment.sh"), *list(arguments)]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    return result.returncode, result.stderr, log.read_text().splitlines() if log.exists() else []


def test_installs_once(project):
    code, errors, calls = set_up(project)
    assert code == 0
    assert "Python 3.10.99" in errors
    assert calls == ["-m pip install -q -r requirements.txt -r requirements-dev.txt"]
    assert set_up(project) == (0, "", calls)


@pytest.mark.parametrize("name", ["requirements-common.txt", "requirements.txt", "requirements-dev.txt"])
def test_changed_requirements_make_a_new_environment(project, name):
    set_up(project)
    (project / ".venv" / "left over").write_text("")
    (project / name).write_text("something else")
    code, _, calls = set_up(project)
    assert code == 0
    assert len(calls) == 2
    assert not (project / ".venv" / "left over").exists()
    assert len(set_up(project)[2]) == 2


def test_failed_installation_is_never_taken_for_an_environment(project):
    code, errors, _calls = set_up(project, PIP_RESULT="1")
    assert code == 1
    assert "error: pip could not install requirements.txt requirements-dev.txt into .venv" in errors
    assert set_up(project)[0] == 0
    assert len(set_up(project)[2]) == 2


def test_environment_whose_python_is_gone(project):
    set_up(project)
    (project / ".venv" / "bin" / "python").unlink()
    code, _, calls = set_up(project)
    assert code == 0
    assert len(calls) == 2


def test_another_python_by_hand(project):
    set_up(project)
    other = project / "other"
    other.write_text(PYTHON.replace("3.10.99", "3.9.5"))
    other.chmod(0o755)
    code, errors, calls = set_up(project, PYTHON=str(other))
    assert code == 0
    assert "Python 3.9.5" in errors
    assert len(calls) == 2
    assert set_up(project, PYTHON=str(other))[2] == calls
    assert set_up(project, PYTHON=str(project / "nowhere"))[0] == 2


def test_two_environments_beside_each_other(project):
    (project / "requirements-0.8.0.txt").write_text("")
    assert set_up(project)[0] == 0
    assert set_up(project, ".venv-0.8.0", "requirements-0.8.0.txt")[0] == 0
    assert (project / ".venv" / ".ready").exists()
    assert (project / ".venv-0.8.0" / ".ready").exists()


def contents(folder):
    """dict of relative path -> bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["thesis", "thesis/", "."])
def test_a_folder_of_the_user_stays(project, name):
    """Also one that holds an environment of the user, or a file .ready."""
    (project / "thesis").mkdir()
    for file in ("chapter 1", ".ready", "pyvenv.cfg"):
        (project / "thesis" / file).write_text("mine")
        before = contents(project)
        code, errors, calls = set_up(project, name, "requirements.txt")
        assert (code, calls) == (2, [])
        assert "was not made by this script" in errors
        assert contents(project) == before


def test_a_file_or_a_link_of_the_user_stays(project):
    (project / "notes").write_text("mine")
    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "notes").write_text("mine")
    (project / "link").symlink_to("elsewhere")
    for name in ("notes", "link", "link/"):
        code, errors, calls = set_up(project, name, "requirements.txt")
        assert (code, calls) == (2, []), name
        assert len(errors.splitlines()) == 1
    assert (project / "link").is_symlink()
    assert (project / "notes").read_text() == (project / "elsewhere" / "notes").read_text() == "mine"
    assert set_up(project, "none/there", "requirements.txt")[0] == 2


def test_an_empty_folder_and_an_environment_of_an_earlier_version_are_used(project):
    (project / "empty").mkdir()
    assert set_up(project, "empty", "requirements.txt")[0] == 0
    set_up(project)
    (project / ".venv" / ".made_by_setup_environment").unlink()
    (project / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin")
    (project / "requirements.txt").write_text("something else")
    assert set_up(project)[0] == 0
    (project / "linked").symlink_to(".venv")
    assert set_up(project, "linked", "requirements.txt", "requirements-dev.txt")[0] == 0


def test_unknown_oneflow_version(project):
    code, errors, calls = set_up(project, ".venv-0.7.0", "requirements-0.7.0.txt")
    assert code == 2
    assert "0.9.0, 0.8.0" in errors
    assert calls == []
    assert not list(project.glob(".venv*"))


def test_makefile_and_ci_run_the_same_commands():
    with open(os.path.join(ROOT, ".ci", "run"), encoding="utf-8") as f:
        lines = f.read().splitlines()
    assert lines[-2:] == ["make lint", "make test"]
    assert "set -euo pipefail" in lines
    assert os.access(os.path.join(ROOT, ".ci", "run"), os.X_OK)
    dry = subprocess.run(
        ["make", "--dry-run", "test", "ONEFLOW=0.8.0", "PYTEST_ARGS=tests/x -k y"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert dry.returncode == 0, dry.stdout
    assert '".venv-0.8.0" "requirements-0.8.0.txt" requirements-dev.txt' in dry.stdout
    assert ".venv-0.8.0/bin/python -m pytest tests/x -k y" in dry.stdout
