"""modeling/checkpoints/teacher_outputs.py: what is written is read again, and nothing incomplete, foreign or damaged is used."""

import json
import os
import pickle

import numpy as np
import pytest
from tiny_teacher import HEADS, IDENTITY, IDXS, LAYERS, LAYOUT, LENGTHS, NEEDS, SIZE, check, outputs, records, write

from modeling.checkpoints.teacher_outputs import MANIFEST, TeacherOutputs, with_teacher_outputs
from modeling.objectives.teacher import ATTENTION, HIDDEN, LOGITS, PROJECTIONS, REPRESENTATION, Knowledge, knowledge_names
from ofrecord_util.errors import UserError


def test_what_is_written_is_read_again(folder):
    stored, given = TeacherOutputs(folder), outputs()
    check(folder)
    asked = np.array([3, 0, 2, 4, 0])  # any order, a sample twice
    batch = stored.batch(IDXS[asked], 16, NEEDS)
    assert tuple(batch) == knowledge_names(NEEDS)
    assert all(array.dtype == np.float32 for array in batch.values())
    assert np.array_equal(batch[LOGITS], given[LOGITS][asked])
    assert np.array_equal(batch[REPRESENTATION], given[REPRESENTATION][asked])
    for layer in LAYERS:
        hidden, attention = batch[HIDDEN.format(layer)], batch[ATTENTION.format(layer)]
        assert hidden.shape == (5, 16, SIZE)
        assert attention.shape == (5, HEADS, 16, 16)
        for place, row in enumerate(asked):
            real = LENGTHS[row]
            np.testing.assert_allclose(hidden[place, :real], given[HIDDEN.format(layer)][row, :real], rtol=1e-3, atol=1e-6)
            expected = given[ATTENTION.format(layer)][row, :, :real, :real]
            np.testing.assert_allclose(attention[place, :, :real, :real], expected, rtol=1e-3, atol=1e-6)
            assert not hidden[place, real:].any()
            assert not attention[place, :, real:].any()
            assert not attention[place, :, :, real:].any()
    with open(os.path.join(folder, "manifest.json"), "rb") as file:
        arrays = json.load(file)["arrays"]
    assert {name: values["dtype"] for name, values in arrays.items() if "sha256" not in values} == {
        "representation": "<f4",
        "hidden": "<f2",
        "attention": "<f2",
    }


def test_part_of_what_is_there(folder):
    stored = TeacherOutputs(folder)
    whole = stored.batch(IDXS, 13, NEEDS)
    part = stored.batch(IDXS, 13, Knowledge((2,), False, True, False), average_heads=True)
    assert tuple(part) == (LOGITS, ATTENTION.format(2))
    np.testing.assert_allclose(part[ATTENTION.format(2)], whole[ATTENTION.format(2)].mean(axis=1, keepdims=True), atol=1e-5)
    batches = [{"idxs": IDXS[:2], "word_rows": np.zeros((2, 8))}, {"idxs": IDXS[2:3], "word_rows": np.zeros((1, 13))}]
    shapes = [batch[HIDDEN.format(0)].shape for batch in with_teacher_outputs(batches, stored, NEEDS)]
    assert shapes == [(2, 8, SIZE), (1, 13, SIZE)]


def test_projections(tmp_path):
    """Of the last layer, for students that learn its relations; with them or without hidden states and attention scores."""
    given = outputs()
    given[PROJECTIONS[1]][2, 1, 3, 0] = 7e4
    for needs in (NEEDS._replace(projections=True), Knowledge((), False, False, False, True)):
        writer = write(tmp_path / "teacher", LAYOUT._replace(knowledge=needs), given=given)
        assert writer.clipped == {"hidden": 0, "attention": 0, "projections": 1}
        check(str(tmp_path / "teacher"), needs=needs)
        batch = TeacherOutputs(str(tmp_path / "teacher")).batch(IDXS[[3, 2, 3]], 14, needs)
        assert tuple(batch) == knowledge_names(needs)
        for name in PROJECTIONS:
            assert batch[name].shape == (3, HEADS, 14, SIZE // HEADS)
            for place, row in enumerate((3, 2, 3)):
                real, expected = LENGTHS[row], np.minimum(given[name][row], 65504)
                np.testing.assert_allclose(batch[name][place, :, :real], expected[:, :real], rtol=1e-3, atol=1e-6)
                assert not batch[name][place, :, real:].any()
    write(tmp_path / "teacher")
    with pytest.raises(UserError, match=r"projections is missing, but the loss needs it.*--relation_loss_weight above 0"):
        check(str(tmp_path / "teacher"), needs=NEEDS._replace(projections=True))


def test_heads_that_do_not_divide_the_width(tmp_path):
    write(tmp_path / "teacher", LAYOUT._replace(knowledge=Knowledge((), False, False, False, True)))
    change_manifest(str(tmp_path / "teacher"), num_attention_heads=5)
    with pytest.raises(UserError, match="num_attention_heads 5 does not divide hidden_size 12; run meta_teacher_eval"):
        TeacherOutputs(str(tmp_path / "teacher"))


# What the reader refuses


def change_manifest(folder, **values):
    path = os.path.join(folder, MANIFEST)
    with open(path) as file:
        manifest = json.load(file)
    manifest.update(values)
    with open(path, "w") as file:
        json.dump(manifest, file)


@pytest.mark.parametrize("name", ["attention", "hidden", "representation", "logits", "idxs", "token_offsets"])
def test_truncated_missing_and_changed_files(folder, name):
    path = os.path.join(folder, name + ".npy")
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(data[:-1])
    with pytest.raises(UserError, match=f"{name}.npy has {len(data) - 1} bytes, but the manifest says {len(data)}; run meta_teacher_eval"):
        TeacherOutputs(folder)
    with open(path, "wb") as file:
        file.write(b"\0" * len(data))
    with pytest.raises(UserError, match=f"{name}.npy (is not an array|has changed)"):
        TeacherOutputs(folder)
    os.remove(path)
    with pytest.raises(UserError, match=f"{name}.npy is missing"):
        TeacherOutputs(folder)


@pytest.mark.parametrize("name", ["attention", "hidden", "representation"])
def test_zeroed_values_of_a_large_array_are_found_when_they_are_read(folder, name):
    """The size stays the same, and the first sample is whole: a step that reads another one says so."""
    path, stored = os.path.join(folder, name + ".npy"), TeacherOutputs(folder)
    start, end = stored._files[name][1], os.path.getsize(path)
    middle = start + int(stored._places[name][1]) * (4 if name == "representation" else 2)
    with open(path, "rb+") as file:
        file.seek(middle)
        file.write(b"\0" * (end - middle))
    stored = TeacherOutputs(folder)
    stored.batch(IDXS[:1], 13, NEEDS)
    with pytest.raises(UserError, match=rf"{name}.npy has changed since it was written \(training row {IDXS[2]}\); run meta_teacher_eval"):
        stored.batch(IDXS[2:3], 13, NEEDS)


def test_a_file_that_is_cut_while_it_is_read(folder):
    """A mapped file would end the process with SIGBUS."""
    stored = TeacherOutputs(folder)
    os.truncate(os.path.join(folder, "attention.npy"), 200)
    with pytest.raises(UserError, match=r"attention.npy: was cut before byte \d+, it had \d+ bytes when opened; run meta_teacher"):
        stored.batch(IDXS[2:3], 13, NEEDS)


@pytest.mark.parametrize("name", ["attention.npy", "logits.npy", "manifest.json"])
def test_links_out_of_the_folder_are_refused(folder, tmp_path, name):
    os.rename(os.path.join(folder, name), str(tmp_path / name))
    os.symlink(str(tmp_path / name), os.path.join(folder, name))
    with pytest.raises(UserError, match=r"symbolic link|manifest.json is missing"):
        TeacherOutputs(folder)


def test_a_fifo_in_place_of_an_array(folder):
    path = os.path.join(folder, "hidden.npy")
    os.remove(path)
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"hidden.npy has 0 bytes"):
        TeacherOutputs(folder)


def test_nothing_is_unpickled(folder):
    path = os.path.join(folder, "hidden.npy")
    size = os.path.getsize(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with open(path, "ab") as file:
        file.write(pickle.dumps(0) + b"\0" * (size - os.path.getsize(path) - len(pickle.dumps(0))))
    assert os.path.getsize(path) == size
    with pytest.raises(UserError, match=r"hidden.npy is not an array"):
        TeacherOutputs(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 1}, "format 1 is not"),
        ({"layers": [0, 1, 2]}, "hidden is float16"),
        ({"layers": [2, 0]}, "lacks valid layers"),
        ({"layers": [0, "2"]}, "lacks valid layers"),
        ({"layers": None}, "lacks valid layers"),
        ({"hidden_size": SIZE + 1}, "representation is float32"),
        ({"num_attention_heads": 2}, "attention is float16"),
        ({"num_attention_heads": True}, "lacks valid layers"),
        ({"arrays": []}, "idxs.npy is missing"),
        ({"arrays": {"idxs": 3}}, "idxs.npy is missing"),
    ],
)
def test_manifests_that_do_not_fit(folder, values, message):
    change_manifest(folder, **values)
    with pytest.raises(UserError, match=message):
        TeacherOutputs(folder)


def test_a_manifest_that_is_no_json(folder):
    with open(os.path.join(folder, MANIFEST), "w") as file:
        file.write("{")
    with pytest.raises(UserError, match=r"is not JSON .*meta_teacher_eval.py"):
        TeacherOutputs(folder)


def test_foreign_outputs_name_both_digests(folder):
    with pytest.raises(UserError) as error:
        check(folder, teacher_digest="12" * 32)
    assert "ab" * 8 in str(error.value)
    assert "12" * 8 in str(error.value)
    assert "run meta_teacher_eval.py with --model_load_dir T" in str(error.value)
    with pytest.raises(UserError) as error:
        check(folder, identity=dict(IDENTITY, text_digest="34" * 32))
    assert "cd" * 8 in str(error.value)
    assert "34" * 8 in str(error.value)
    assert "meta_teacher_eval.py" in str(error.value)
    with pytest.raises(UserError, match="seq_length 13, but this run's records have 12"):
        check(folder, identity=dict(IDENTITY, seq_length=12))


def test_outputs_must_hold_what_the_student_needs(folder, tmp_path):
    check(folder, needs=Knowledge((2,), True, False, False))
    check(folder, needs=Knowledge((1,), False, False, True))  # no layer is needed then
    with pytest.raises(UserError, match=r"layers 0,2, but the student needs 0,1: .*--teacher_layers 0,1"):
        check(folder, needs=NEEDS._replace(layers=(0, 1)))
    write(tmp_path / "less", LAYOUT._replace(knowledge=Knowledge(LAYERS, False, True, False)))
    check(str(tmp_path / "less"), needs=Knowledge(LAYERS, False, True, False))
    with pytest.raises(UserError, match=r"hidden is missing, but the loss needs it.*--hidden_loss_weight above 0"):
        check(str(tmp_path / "less"))
    with pytest.raises(UserError, match=r"representation is missing, but the loss needs it.*--domain_loss_weight"):
        check(str(tmp_path / "less"), needs=Knowledge(LAYERS, False, True, True))


def test_outputs_must_hold_the_samples(folder):
    few = records().select(np.array([3, 1]))
    check(folder, records=few)  # a part of them will do
    few.idxs[0] = 3
    with pytest.raises(UserError, match=r"contains 5 samples, but not all 2 samples of this run.*--data_portion"):
        check(folder, records=few)
    other = records()
    other.lengths[0] += 1
    with pytest.raises(UserError, match="the text lengths differ"):
        check(folder, records=other)
