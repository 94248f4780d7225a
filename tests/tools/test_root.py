"""tools/_root.py: scripts of tools/, benchmarks/ and recipes/ run as files, from any folder and through a symbolic link."""

import glob
import os
import re
import subprocess
import sys

import pytest
import tiny

FOLDERS = ("tools", "benchmarks", "benchmarks/workers", "recipes")
NEED_ONEFLOW = (  # they import it at their start
    "tools/predict.py",
    "benchmarks/bench_corpus.py",
    "benchmarks/bench_data.py",
    "benchmarks/bench_growth.py",
    "benchmarks/bench_memory.py",
    "benchmarks/bench_predict.py",
    "benchmarks/bench_serve.py",
    "benchmarks/hugging_face_models.py",
    "benchmarks/hugging_face_parity.py",
    "recipes/domain_mixing.py",
    "recipes/generation.py",
    "recipes/meta_reptile.py",
    "recipes/metric_learning.py",
    "recipes/pretrain_discriminator.py",
    "recipes/pretrain_mlm.py",
    "recipes/pretrain_pairs.py",
    "recipes/sequence_labeling.py",
    "recipes/span_answering.py",
    "tools/answer_questions.py",
    "tools/embed.py",
    "tools/evaluate.py",
    "tools/generate.py",
    "tools/retrieve.py",
    "tools/serve.py",
    "tools/tag_words.py",
)
LINKED = ("tools/inspect.py", "benchmarks/compare_checkouts.py")


def read(name):
    with open(os.path.join(tiny.ROOT, name), encoding="utf-8") as file:
        return file.read()


FILES = [os.path.relpath(path, tiny.ROOT) for folder in FOLDERS for path in sorted(glob.glob(os.path.join(tiny.ROOT, folder, "*.py")))]
SCRIPTS = [name for name in FILES if '__name__ == "__main__"' in read(name)]
COMMANDS = [name for name in SCRIPTS if os.path.dirname(name) != "benchmarks/workers"]  # a worker reads a job and has no flags


@pytest.fixture
def no_oneflow(tmp_path):
    """Environment in which `import oneflow` fails."""
    (tmp_path / "oneflow.py").write_text("raise SystemExit('OneFlow was imported')")
    return dict(os.environ, PYTHONPATH=str(tmp_path))


def assert_helps(path, folder, environment):
    result = subprocess.run(
        [sys.executable, str(path), "--help"], cwd=str(folder), env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name.startswith("tools") else pytest.mark.slow) for name in COMMANDS if name not in NEED_ONEFLOW],
)
def test_help_from_another_folder(name, tmp_path, no_oneflow):
    assert_helps(os.path.join(tiny.ROOT, name), tmp_path, no_oneflow)


@pytest.mark.slow
@pytest.mark.parametrize("name", NEED_ONEFLOW)
def test_help_with_oneflow_from_another_folder(name, tmp_path):
    assert_helps(os.path.join(tiny.ROOT, name), tmp_path, None)


@pytest.mark.parametrize("name", LINKED)
def test_help_through_a_symbolic_link(name, tmp_path, no_oneflow):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "tool.py"
    link.symlink_to(os.path.join(tiny.ROOT, name))
    assert_helps(link, tmp_path, no_oneflow)


def test_scripts_import_the_root_first():
    """No script has a preamble of its own, and nothing that may import `inspect` comes before the one that all have."""
    assert len(SCRIPTS) > 15
    for name in SCRIPTS:
        text = read(name)
        first = re.sub(r'\A[rR]?"""(?s:.*?)"""\n\n', "", text)
        if os.path.basename(name).startswith("torch_"):  # runs in a Python without this project
            continue
        assert first.startswith("if not __package__:\n    import _root  # noqa: F401\n\n"), name
        assert "sys.path" not in text, name


def test_each_folder_has_the_same_file():
    for folder in FOLDERS:
        path = os.path.join(tiny.ROOT, folder, "_root.py")
        assert os.path.realpath(path) == os.path.realpath(os.path.join(tiny.ROOT, "tools", "_root.py"))
