"""modeling/checkpoints/snapshot.py: the documented format, what is refused, what the earlier converter left."""

import os
import pickle

import numpy as np
import pytest
from google.protobuf import text_format
from tiny_model import CONFIG, documented

from modeling.bert.variables import encoder_shapes, load_values
from modeling.checkpoints.snapshot import CONFIG_FILE, DONE, Snapshot, write_variables
from modeling.cli.flags import parse_flags
from modeling.engine.runtime import flow
from modeling.run.model_size import resolve_config
from ofrecord_util.errors import UserError

SMALL = {"b": np.array([1.5, -2.0, 3.25], np.float32), "a-w": np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5}


def written(tmp_path, variables=None, files=None, name="snapshot"):
    folder = str(tmp_path / name)
    write_variables(folder, SMALL if variables is None else variables, files)
    return folder


def test_round_trip(tmp_path):
    snapshot = Snapshot(written(tmp_path, files={"note.txt": "häh", CONFIG_FILE: CONFIG.to_json()}))
    assert snapshot.shapes == {"b": (3,), "a-w": (2, 3)}
    for name, value in SMALL.items():
        np.testing.assert_array_equal(snapshot.read(name, value.shape), value)
    assert snapshot.config() == CONFIG
    assert snapshot.task() is None
    assert snapshot.vocab_file() is None
    with open(os.path.join(snapshot.path, "note.txt"), "rb") as f:
        assert f.read() == "häh".encode()


@pytest.mark.filterwarnings("ignore:.*does not have valid tensor data")
def test_oneflow_reads_it(tmp_path):
    loaded = flow.load(written(tmp_path, files={"vocab.txt": "[PAD]\n"}))
    assert set(loaded) == set(SMALL)
    for name, value in SMALL.items():
        np.testing.assert_array_equal(loaded[name].numpy(), value)


def test_layout_on_disk(tmp_path):
    from oneflow.core.framework import variable_meta_info_pb2

    folder = written(tmp_path)
    assert sorted(os.listdir(folder)) == ["a-w", "b", DONE]
    assert os.path.getsize(os.path.join(folder, DONE)) == 0
    with open(os.path.join(folder, "a-w", "out"), "rb") as f:
        assert f.read() == SMALL["a-w"].astype("<f4").tobytes()
    with open(os.path.join(folder, "a-w", "meta")) as f:
        meta = text_format.Parse(f.read(), variable_meta_info_pb2.VariableMetaInfo())
    assert list(meta.shape.dim) == [2, 3]
    assert meta.data_type == 2


def test_replacing_leaves_nothing_of_the_old_one(tmp_path):
    folder = written(tmp_path)
    write_variables(folder, {"c": np.zeros(2, np.float32)})
    assert sorted(os.listdir(folder)) == ["c", DONE]
    assert os.listdir(str(tmp_path)) == ["snapshot"]


def test_a_failed_save_keeps_the_old_one(tmp_path, monkeypatch):
    folder = written(tmp_path)

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match="cannot be written: No space left"):
        write_variables(folder, {"c": np.zeros(2, np.float32)})
    monkeypatch.undo()
    assert os.listdir(str(tmp_path)) == ["snapshot"]
    np.testing.assert_array_equal(Snapshot(folder).read("b", (3,)), SMALL["b"])


def test_a_link_is_not_replaced(tmp_path):
    kept = written(tmp_path, name="kept")
    os.symlink(kept, str(tmp_path / "snapshot"))
    with pytest.raises(UserError, match="snapshot cannot be written: not a folder"):
        written(tmp_path)
    np.testing.assert_array_equal(Snapshot(kept).read("b", (3,)), SMALL["b"])
    np.testing.assert_array_equal(Snapshot(str(tmp_path / "snapshot")).read("b", (3,)), SMALL["b"])  # the user's own link


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"snapshot .*file/s cannot be written: File exists"):
        write_variables(str(tmp_path / "file" / "s"), SMALL)
    assert os.listdir(str(tmp_path)) == ["file"]


@pytest.mark.parametrize("name", ["../outside", "a/b", "..", ".hidden", ""])
def test_names_that_leave_the_folder(tmp_path, name):
    with pytest.raises(UserError, match="name for a snapshot's variable"):
        write_variables(str(tmp_path / "s"), {name: np.zeros(1, np.float32)})
    assert os.listdir(str(tmp_path)) == []


def test_other_types_are_refused(tmp_path):
    with pytest.raises(UserError, match="float64"):
        write_variables(str(tmp_path / "s"), {"a": np.zeros(1)})
    folder = written(tmp_path)
    with open(os.path.join(folder, "b", "meta"), "w") as f:
        f.write("shape {\n  dim: 3\n}\ndata_type: kDouble\n")
    with pytest.raises(UserError, match=r"b.*kFloat"):
        Snapshot(folder)


def test_a_meta_that_is_no_text(tmp_path):
    folder = written(tmp_path)
    with open(os.path.join(folder, "b", "meta"), "wb") as f:
        f.write(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"b.meta: only data_type kFloat"):
        Snapshot(folder)


def test_interrupted_save_is_no_snapshot(tmp_path):
    folder = written(tmp_path)
    os.remove(os.path.join(folder, DONE))
    with pytest.raises(UserError, match=DONE):
        Snapshot(folder)


@pytest.mark.parametrize("size", [8, 16, 11])
def test_bytes_missing_or_too_many(tmp_path, size):
    folder = written(tmp_path)
    with open(os.path.join(folder, "b", "out"), "wb") as f:
        f.write(bytes(size))
    with pytest.raises(UserError, match=rf"b has {size} bytes"):
        Snapshot(folder)


def test_all_damage_is_listed(tmp_path):
    folder = written(tmp_path)
    os.remove(os.path.join(folder, "b", "out"))
    os.truncate(os.path.join(folder, "a-w", "out"), 20)
    with pytest.raises(UserError, match=r"a-w has 20 bytes.*b has no file 'out'"):
        Snapshot(folder)


def test_wrong_shape_names_both(tmp_path):
    snapshot = Snapshot(written(tmp_path))
    with pytest.raises(UserError, match=r"a-w holds 6 values of shape \[2, 3\], but the model needs 6 of shape \[3, 2\]"):
        snapshot.read("a-w", (3, 2))
    with pytest.raises(UserError, match="b holds 3 values"):
        snapshot.read("b", (4,))


def test_digest_follows_names_and_bytes(tmp_path):
    first = Snapshot(written(tmp_path)).digest()
    assert Snapshot(written(tmp_path, name="same")).digest() == first
    changed = dict(SMALL, b=SMALL["b"] + np.float32(1e-6))
    assert Snapshot(written(tmp_path, changed, name="changed")).digest() != first
    renamed = {"a-w": SMALL["a-w"], "c": SMALL["b"]}
    assert Snapshot(written(tmp_path, renamed, name="renamed")).digest() != first


class _Payload:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_planted_pickle_is_refused_and_never_runs(tmp_path):
    """oneflow.load would run it, so a folder that holds one is better not left lying about either."""
    folder = written(tmp_path)
    trace = str(tmp_path / "ran")
    with open(os.path.join(folder, "pickled_data"), "wb") as f:
        pickle.dump(_Payload(trace), f)
    with pytest.raises(UserError, match=r"pickled_data.*remove it"):
        Snapshot(folder)
    assert not os.path.exists(trace)


def test_planted_temporary_folders_are_no_variables(tmp_path):
    folder = written(tmp_path)
    for name in (".snapshot.writing-1", ".b"):
        os.mkdir(os.path.join(folder, name))
    assert set(Snapshot(folder).sizes) == set(SMALL)


@pytest.mark.parametrize("link", ["a-w", "a-w/out", "a-w/meta", "vocab.txt", "snapshot_done", "other"])
def test_symbolic_links_are_refused(tmp_path, link):
    folder, outside = written(tmp_path), str(tmp_path / "outside")
    path = os.path.join(folder, *link.split("/"))
    if os.path.lexists(path):
        os.rename(path, outside)
    else:
        os.mkdir(outside)
    os.symlink(outside, path)
    with pytest.raises(UserError, match=f"{link} is a symbolic link"):
        Snapshot(folder)


def test_all_faults_are_listed(tmp_path):
    variables = {name: np.zeros(3, np.float32) for name in ("a", "b", "c", "d", "e", "f")}
    folder = written(tmp_path, variables)
    os.remove(os.path.join(folder, "a", "out"))
    os.truncate(os.path.join(folder, "b", "out"), 8)
    os.truncate(os.path.join(folder, "c", "out"), 16)
    os.truncate(os.path.join(folder, "d", "out"), 11)
    os.symlink(os.path.join(folder, "f"), os.path.join(folder, "link"))
    with open(os.path.join(folder, "e", "meta"), "w") as f:
        f.write("data_type: kDouble")
    with open(os.path.join(folder, "pickled_data"), "w") as f:
        f.write("")
    os.remove(os.path.join(folder, DONE))
    with pytest.raises(UserError) as error:
        Snapshot(folder)
    for part in ("a has no file 'out'", "b has 8 bytes", "c has 16 bytes", "d has 11 bytes", "e/meta: only data_type kFloat",
                 "link is a symbolic link", "pickled_data", "no snapshot_done"):  # fmt: skip
        assert part in str(error.value), part
    assert "f has" not in str(error.value)


def test_a_shape_beyond_all_numbers(tmp_path):
    """2^40 x 2^40 values wrap around to 0 in 64 bits, the size of an empty file."""
    folder = written(tmp_path)
    os.truncate(os.path.join(folder, "b", "out"), 0)
    with open(os.path.join(folder, "b", "meta"), "w") as f:
        f.write("shape {" + f"\n  dim: {2**40}" * 2 + "\n}\ndata_type: kFloat\n")
    with pytest.raises(UserError, match="b has 0 bytes"):
        Snapshot(folder)


def older(tmp_path, change=None):
    """A folder as the earlier converter left it: no meta, no snapshot_done, no config, positions as [1, P, H]."""
    arrays = {name: value for name, value in documented("weight").items() if name.startswith("bert-")}
    arrays.update(change or {})
    for name, value in arrays.items():
        os.makedirs(str(tmp_path / "older" / name))
        np.ascontiguousarray(value, "<f4").tofile(str(tmp_path / "older" / name / "out"))
    return str(tmp_path / "older"), arrays


def test_folder_of_the_earlier_converter(tmp_path):
    folder, arrays = older(tmp_path)
    snapshot = Snapshot(folder)
    config = snapshot.config(head_size=5)
    for field in (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    ):
        assert getattr(config, field) == getattr(CONFIG, field), field
    values = load_values(encoder_shapes(config), snapshot, seed=1, log=lambda line: None)
    for name, value in arrays.items():
        np.testing.assert_array_equal(values[name], value)
    with pytest.raises(UserError, match=r"hidden size 20 is not a multiple of 64.*--hidden_size_per_head"):
        snapshot.config()
    assert snapshot.config(num_heads=10).num_attention_heads == 10  # no file of the folder says otherwise
    for flag, value in (("--num_attention_heads", "4"), ("--hidden_size_per_head", "5")):
        flags = parse_flags("preprocess", argv=["--task_name", "g1", "--data_dir", "d", flag, value])
        assert resolve_config(flags, snapshot).num_attention_heads == 4


def test_positions_with_a_leading_axis(tmp_path):
    name = "bert-embeddings-position_embeddings"
    value = documented("weight")[name]
    snapshot = Snapshot(written(tmp_path, {name: value[None]}))
    assert snapshot.shapes[name] == (1, 17, 20)
    np.testing.assert_array_equal(snapshot.read(name, (17, 20)), value)


def test_what_is_no_snapshot(tmp_path):
    with pytest.raises(UserError, match="no such snapshot folder"):
        Snapshot(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="convert_checkpoint"):
        Snapshot(str(tmp_path))
    folder = written(tmp_path, files={CONFIG_FILE: "{"})
    with pytest.raises(UserError, match="is not JSON"):
        Snapshot(folder).config()


def test_a_variable_that_is_cut_while_the_snapshot_is_open(tmp_path):
    folder = written(tmp_path)
    snapshot = Snapshot(folder)
    os.truncate(os.path.join(folder, "b", "out"), 4)
    with pytest.raises(UserError, match=r"b/out: had 12 bytes and now has 4: another process is writing it"):
        snapshot.read("b", (3,))
    with pytest.raises(UserError, match=r"b/out: had 12 bytes and now has 4"):
        snapshot.digest()


def test_rights_that_are_missing(tmp_path, monkeypatch):
    folder = written(tmp_path)

    def no_rights(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", no_rights)
    with pytest.raises(UserError, match=r"snapshot: cannot be read \(Permission denied\); check the rights"):
        Snapshot(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"seq_length": "abc"}', "seq_length is 'abc', not a number of tokens"),
        ('{"doc_stride": 0}', "doc_stride is 0, not a number of tokens"),
        ('{"max_query_length": 65537}', "max_query_length is 65537, not a number of tokens"),
        ('{"seq_length": 0}', "seq_length is 0"),
        ('{"seq_length": 1e3}', "seq_length is 1000.0"),
        ('{"seq_length": 1000000}', "seq_length is 1000000"),
        ('{"do_lower_case": "yes"}', "do_lower_case is 'yes', not true or false"),
        ('{"script": []}', "script is"),
        ("[" * 5000, "is not JSON"),
    ],
)
def test_values_of_task_json(tmp_path, text, said):
    folder = written(tmp_path, files={"task.json": text})
    with pytest.raises(UserError, match=rf"task.json: {said}"):
        Snapshot(folder).task()


@pytest.mark.parametrize("size", [12 * 10**9, 1 << 20])
def test_a_large_meta_is_not_read(tmp_path, size):
    folder = written(tmp_path)
    os.truncate(os.path.join(folder, "b", "meta"), size)
    with pytest.raises(UserError, match=r"b/meta: has .* at most 65536 bytes are read"):
        Snapshot(folder)


def test_a_name_with_an_escape_sequence(tmp_path):
    folder = written(tmp_path)
    os.mkdir(os.path.join(folder, "c\x1b[31m"))
    with pytest.raises(UserError, match=r"'c\\x1b\[31m' is not the name of a variable"):
        Snapshot(folder)
