"""Only ofrecord_util/reading.py and its modules for JSON and arrays read files of users: they look at kind and size first, and map nothing
into memory."""

import ast
import os

import pytest
import tiny

READERS = ("ofrecord_util/reading.py", "ofrecord_util/json_reading.py", "ofrecord_util/array_reading.py")
CALLS = {  # dotted names that read or map a file, or parse what another program wrote
    *("json.load", "json.loads", "np.load", "np.fromfile", "np.memmap", "np.loadtxt", "np.genfromtxt", "np.lib.format.open_memmap"),
    *("mmap.mmap", "zipfile.ZipFile", "pickle.load", "pickle.loads"),
}
METHODS = {"read_text", "read_bytes"}  # of pathlib
ALLOWED = {  # (file, call): reason
    ("modeling/cli/flags_file.py", "json.loads"): "a string in quotes of a flags file that has been read",
    ("modeling/engine/parallel.py", "json.loads"): "a value that another rank has sent",
    ("modeling/cli/process.py", "open"): "a stream of this process that was closed",
    ("modeling/run/resources.py", "open"): "what the system says of its memory",
    ("tools/checkpoint_tokenizer.py", "json.loads"): "what the tokenizers library has made",
    ("tools/checkpoint_onnx.py", "json.loads"): "what the tokenizers library has made",
    ("modeling/run/resume.py", "json.loads"): "a copy of the run's own flags",
    ("modeling/report/page.py", "open"): "the style sheet of this project",
    ("tools/demo_prototypes.py", "np.load"): "files that the demo has just made",
    ("tools/demo_prototypes.py", "open"): "the vocabulary of the demo's encoder",
    ("tools/demo_steps.py", "open"): "files that the demo has just made",
    ("tools/fetch_demo_model.py", "zipfile.ZipFile"): "a wheel of a known digest",
    ("tools/list_imports.py", "open"): "the sources of this project",
    ("tools/texts.py", "open"): "a stream of lines, which may be a FIFO",
}


def sources():
    for place, folders, names in os.walk(tiny.ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in ("tests", "benchmarks", "models", "output")]
        for name in names:
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(place, name), tiny.ROOT)


def dotted(node):
    """The name of a called function as it stands in the source, or "" for the result of another call."""
    if isinstance(node, ast.Attribute):
        start = dotted(node.value)
        return f"{start}.{node.attr}" if start else node.attr
    return node.id if isinstance(node, ast.Name) else ""


def reads(source):
    """Names of the calls in a source that read files."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in CALLS or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS and dotted(node.func.value) != "reading"):
            yield name
        elif name in ("open", "io.open"):
            mode = node.args[1] if len(node.args) > 1 else next((word.value for word in node.keywords if word.arg == "mode"), None)
            writes = isinstance(mode, ast.Constant) and set(mode.value) & set("wax")
            path = node.args[0]
            start = path.values[0] if isinstance(path, ast.JoinedStr) else path
            system = isinstance(start, ast.Constant) and str(start.value).startswith(("/proc/", "/sys/"))
            if not writes and not system:
                yield "open"


def found():
    for path in sorted(sources()):
        with open(os.path.join(tiny.ROOT, path), encoding="utf-8") as file:
            for name in reads(file.read()):
                yield path, name


def test_files_are_read_in_one_place():
    assert sorted({(path, name) for path, name in found() if path not in READERS and (path, name) not in ALLOWED}) == []


def test_each_exception_is_still_needed():
    assert set(ALLOWED) - set(found()) == set()


def test_archives_are_written_in_one_place():
    """`write_npz` prints no traceback on a full disk."""
    paths = {path for path in sources() if b"np.savez" in tiny.read_bytes(os.path.join(tiny.ROOT, path))}
    assert paths == {"ofrecord_util/files.py"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import json\njson.load(file)", ["json.load"]),
        ("np.load(path, mmap_mode='r')", ["np.load"]),
        ("with open(path) as f: f.read()", ["open"]),
        ("open(path, mode='rb')", ["open"]),
        ("open(path, 'rb+')", ["open"]),
        ("pathlib.Path(p).read_text()", ["read_text"]),
        ("open(path, 'wb')", []),
        ("open(f'/proc/{pid}/stat')", []),
        ("read_json(path, 'x')", []),
    ],
)
def test_a_reader_elsewhere_is_seen(source, expected):
    assert list(reads(source)) == expected
