"""tools/convert_checkpoint.py: which way it goes, which layers are kept, what is replaced, and the command line."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from modeling.bert.names import DOMAIN_HEAD
from modeling.bert.variables import classifier_shapes, domain_head_shapes, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import Snapshot, write_variables
from modeling.engine.runtime import flow
from modeling.predictor import Predictor
from ofrecord_util.errors import UserError
from tools import checkpoint_hugging_face, checkpoint_npz, checkpoint_snapshot, checkpoint_tensorflow
from tools.convert_checkpoint import convert, recognise

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join("tools", "convert_checkpoint.py")
LAYERS = 4
CONFIG = dataclasses.replace(tiny.CONFIG, num_hidden_layers=LAYERS)
TASK = {"name": "t", "domains": ["d", "e"], "labels": ["no", "perhaps", "yes"], "pair": False, "do_lower_case": True}


def write_trained(folder, heads=True, without=(), task=TASK):
    """A trained snapshot whose variables are all different; returns them."""
    shapes = encoder_shapes(CONFIG)
    if heads:
        shapes.update(dict(classifier_shapes(CONFIG, 3), **domain_head_shapes(CONFIG, 2)))
    values = {name: initial_value(name, shape, 3, 0.4) for name, shape in shapes.items() if name not in without}
    for i, value in enumerate(values.values()):
        value.flat[0] = i + 0.5  # biases start alike
    files = {"bert_config.json": CONFIG.to_json(), "vocab.txt": "".join(token + "\n" for token in tiny.TOKENS)}
    if task is not None:
        files["task.json"] = json.dumps(task)
    write_variables(str(folder), values, files)
    return values


def load(folder):
    return {name: value.numpy() for name, value in flow.load(str(folder)).items()}


def quiet(line):
    pass


def refused(tmp_path, *args, **flags):
    before = sorted(os.listdir(str(tmp_path)))
    with pytest.raises(UserError) as caught:
        convert(*map(str, args), log=quiet, **flags)
    assert sorted(os.listdir(str(tmp_path))) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_format_is_recognised_by_what_lies_there(tmp_path):
    def place(name, file):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(b"")
        return str(tmp_path / name)

    assert recognise(place("hf", "config.json")) is checkpoint_hugging_face
    assert recognise(place("done", "snapshot_done")) is checkpoint_snapshot
    assert recognise(tiny.write_encoder(str(tmp_path / "older"), older=True)) is checkpoint_snapshot
    assert recognise(place("google", "bert_model.ckpt.index")) is checkpoint_tensorflow
    (tmp_path / "x.npz").write_bytes(b"")
    assert recognise(str(tmp_path / "x.npz")) is checkpoint_npz
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"only \.npz"):
        recognise(str(tmp_path / "x.bin"))
    with pytest.raises(UserError, match="no such folder"):
        recognise(str(tmp_path / "nowhere.npz"))
    message = refused(tmp_path, place("other", "weights.h5"), tmp_path / "out")
    assert "config.json: no such file" in message
    assert "bert_model.ckpt.index" in message


@pytest.mark.slow
@pytest.mark.parametrize("layers", [(1, 3), (3, 0, 2), (2,)])
def test_layers_are_kept_in_the_order_given(tmp_path, layers):
    values, log = write_trained(tmp_path / "teacher"), []
    convert(str(tmp_path / "teacher"), str(tmp_path / "student"), layers=list(layers), log=log.append)
    student = load(tmp_path / "student")
    assert set(student) == {name for name in values if not any(f"-layer_{i}-" in name for i in range(len(layers), LAYERS))}
    for name, value in student.items():
        source = name
        for new, old in enumerate(layers):
            if name.startswith(f"bert-encoder-layer_{new}-"):
                source = name.replace(f"layer_{new}-", f"layer_{old}-")
        np.testing.assert_array_equal(value, values[source], err_msg=name)
    assert Snapshot(str(tmp_path / "student")).config() == dataclasses.replace(CONFIG, num_hidden_layers=len(layers))
    assert Snapshot(str(tmp_path / "student")).task() == TASK
    assert any(line.startswith("layers " + ", ".join(map(str, layers)) + " of 4 kept") for line in log)
    labels = [p.label for p in Predictor(str(tmp_path / "student"), "cpu", log=quiet)(["good film", "bad plot"])]
    assert set(labels) <= set(TASK["labels"])


def test_layers_on_the_way_out_and_in(tmp_path):
    values = write_trained(tmp_path / "teacher")
    convert(str(tmp_path / "teacher"), str(tmp_path / "hf"), to="hugging_face", layers=[2, 1], log=quiet)
    tensors = load_file(str(tmp_path / "hf" / "model.safetensors"))
    expected = values["bert-encoder-layer_2-output-dense-weight"].T
    np.testing.assert_array_equal(tensors["bert.encoder.layer.0.output.dense.weight"], expected)
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["num_hidden_layers"] == 2
    assert not any("layer.2" in name for name in tensors)
    convert(str(tmp_path / "hf"), str(tmp_path / "back"), layers=[1], log=quiet)
    expected = values["bert-encoder-layer_1-output-dense-weight"]
    np.testing.assert_array_equal(load(tmp_path / "back")["bert-encoder-layer_0-output-dense-weight"], expected)


@pytest.mark.parametrize("layers", [[4], [-1], [1, 1], [0, 9], []])
def test_absent_and_repeated_layers(tmp_path, layers):
    write_trained(tmp_path / "teacher")
    message = refused(tmp_path, tmp_path / "teacher", tmp_path / "out", layers=layers)
    assert "--layers" in message
    assert "0,1,2,3" in message


def test_snapshot_of_the_earlier_converter(tmp_path):
    older, out = tiny.write_encoder(str(tmp_path / "older"), older=True), str(tmp_path / "out")
    vocab = tiny.write_vocabulary(str(tmp_path / "vocab.txt"))
    assert "set --num_attention_heads" in refused(tmp_path, older, out, vocab_file=vocab)
    assert "set --vocab_file" in refused(tmp_path, older, out, num_attention_heads=4)
    convert(older, out, vocab_file=vocab, num_attention_heads=4, log=quiet)
    assert Snapshot(out).config() == dataclasses.replace(tiny.CONFIG, initializer_range=0.02)
    assert Snapshot(out).digest() == Snapshot(older).digest()


def test_the_folder_of_a_run(tmp_path):
    values = write_trained(tmp_path / "run" / "snapshot_best_ft_model_mine_dev_0.5")
    convert(str(tmp_path / "run"), str(tmp_path / "out"), log=quiet)
    assert set(load(tmp_path / "out")) == set(values)


def test_half_a_domain_head_comes_along(tmp_path):
    """A student of Meta-KD keeps the domain embeddings only."""
    values = write_trained(tmp_path / "student", without=DOMAIN_HEAD[1:])
    convert(str(tmp_path / "student"), str(tmp_path / "out"), log=quiet)
    assert set(load(tmp_path / "out")) == set(values)


def test_variables_that_are_missing_or_unknown(tmp_path):
    write_trained(tmp_path / "bad", without=["bert-encoder-layer_2-output-dense-bias", "bert-pooler-dense-bias"])
    (tmp_path / "bad" / "extra").mkdir()
    (tmp_path / "bad" / "extra" / "out").write_bytes(b"\0" * 4)
    missing, unknown = refused(tmp_path, tmp_path / "bad", tmp_path / "out").split("; unknown ")
    assert "bert-encoder-layer_2-output-dense-bias" in missing
    assert "bert-pooler-dense-bias" in missing
    assert unknown == "extra"


def test_flags_that_contradict_the_checkpoint(tmp_path):
    write_trained(tmp_path / "snapshot")
    message = refused(tmp_path, tmp_path / "snapshot", tmp_path / "out", num_attention_heads=5)
    assert "--num_attention_heads 5" in message
    assert "says 4" in message
    message = refused(tmp_path, tmp_path / "snapshot", tmp_path / "out", to="hugging_face", do_lower_case=False)
    assert "--do_lower_case false" in message
    assert "says true" in message


def test_output_that_exists(tmp_path):
    write_trained(tmp_path / "snapshot", task=None)
    folder, out = tmp_path / "hf", tmp_path / "out"
    convert(str(tmp_path / "snapshot"), str(folder), to="hugging_face", do_lower_case=True, log=quiet)
    out.mkdir()
    convert(str(folder), str(out), log=quiet)  # an empty folder may be filled
    assert "--overwrite replaces it" in refused(tmp_path, folder, out)
    (out / "old").write_text("")
    convert(str(folder), str(out), overwrite=True, log=quiet)
    assert not (out / "old").exists()
    assert len(load(out)) == 5 + 16 * LAYERS + 4

    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "config.json").write_text("mine")
    assert "leaves it alone" in refused(tmp_path, folder, precious, overwrite=True)
    for parent in (tmp_path, folder):
        assert "--model_dir" in refused(tmp_path, folder, parent, overwrite=True)
    for inside, to in ((out / "new", "snapshot"), (out / "new", "hugging_face"), (out / "new.npz", "npz")):
        assert "a snapshot, which stays as it is; choose another place" in refused(tmp_path, out, inside, to=to)
    convert(str(folder), str(folder / "npz" / "encoder.npz"), to="npz", log=quiet)  # no snapshot: other formats may lie in it
    assert os.listdir(str(folder / "npz")) == ["encoder.npz"]
    assert "a snapshot, whose files are not changed" in refused(tmp_path, folder, out / "new")
    assert len(load(out)) == 5 + 16 * LAYERS + 4
    assert (precious / "config.json").read_text() == "mine"
    assert (folder / "config.json").exists()


def test_hugging_face_folder_that_exists(tmp_path):
    write_trained(tmp_path / "snapshot")
    source, out = tmp_path / "snapshot", tmp_path / "hf"
    convert(str(source), str(out), to="hugging_face", log=quiet)
    assert "--overwrite replaces it" in refused(tmp_path, source, out, to="hugging_face")
    convert(str(source), str(out), to="hugging_face", overwrite=True, layers=[0], log=quiet)
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 1
    (out / "README.md").write_text("mine")
    assert "leaves it alone" in refused(tmp_path, source, out, to="hugging_face", overwrite=True)
    assert "leaves it alone" in refused(tmp_path, out, source / "vocab.txt", overwrite=True)
    assert (out / "README.md").read_text() == "mine"


def test_disk_that_cannot_be_written(tmp_path):
    write_trained(tmp_path / "snapshot")
    (tmp_path / "file").write_text("")
    for to, name in (("hugging_face", "x"), ("npz", "x.npz"), ("snapshot", "x")):
        assert "cannot be written" in refused(tmp_path, tmp_path / "snapshot", tmp_path / "file" / name, to=to)


@pytest.mark.slow
def test_command_line(tmp_path):
    """As a file from the project's root, as documented: output, help, and one line with exit code 2."""
    write_trained(tmp_path / "snapshot")

    def tool(*flags):
        return subprocess.run([sys.executable, TOOL, *map(str, flags)], cwd=ROOT, capture_output=True, text=True)

    hf, out = tmp_path / "hf", tmp_path / "out"
    result = tool("--model_dir", tmp_path / "snapshot", "--output_dir", hf, "--to", "hugging_face", "--layers", "1,3,0")
    assert result.returncode == 0, result.stderr
    assert f"3 layers x 20, 4 heads, {len(tiny.TOKENS)} tokens; 57 variables" in result.stdout
    result = tool("--model_dir", hf, "--output_dir", out)
    assert result.returncode == 0, result.stderr
    assert "3 layers x 20, 4 heads" in result.stdout
    assert "57 variables" in result.stdout
    result = tool("--model_dir", hf, "--output_dir", out)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    result = tool("--model_dir", hf, "--output_dir", tmp_path / "new", "--layers", "one")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --layers 'one'")
    assert result.stderr.count("\n") == 1
    text = tool("--help").stdout
    assert all(flag in text for flag in ("--overwrite", "--to {hugging_face,npz,onnx,palm,snapshot}", "--layers", "--vocab_file"))


def test_the_model_is_named(tmp_path):
    write_trained(tmp_path / "snapshot", task=None)
    message = refused(tmp_path, tmp_path / "snapshot", tmp_path / "out", to="hugging_face")
    assert message.startswith(f"--model_dir {tmp_path}/snapshot: the checkpoint does not say whether it is cased; set --do_lower_case")


@pytest.mark.parametrize("name", ["model", "check", "the", "snapshot"])
def test_the_model_is_named_if_its_path_is_a_word_of_the_message(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_trained(name, task=None)
    message = refused(tmp_path, name, "out", to="hugging_face")
    assert message.startswith(f"--model_dir {name}: the checkpoint does not say whether it is cased")
    message = refused(tmp_path, name, "out", to="hugging_face", do_lower_case=True, layers=[0], num_attention_heads=5)
    assert message.startswith("--num_attention_heads 5: ")


def test_faults_of_other_files_are_not_those_of_the_model(tmp_path):
    write_trained(tmp_path / "snapshot")
    vocab, dev = tmp_path / "latin.txt", tmp_path / "dev.csv"
    for path in (vocab, dev):
        path.write_bytes(b"[PAD]\n\xff\n")
    message = refused(tmp_path, tmp_path / "snapshot", tmp_path / "out", to="hugging_face", vocab_file=str(vocab))
    assert message.startswith(f"{vocab}: line 2 is not UTF-8")
    pytest.importorskip("onnx")
    flags = {"dev_file": str(dev), "text_flags": {}}
    assert refused(tmp_path, tmp_path / "snapshot", tmp_path / "out.onnx", to="onnx", **flags).startswith(f"{dev}: ")


@pytest.mark.parametrize("to", ["snapshot", "hugging_face", "npz"])
def test_a_damaged_task_is_named_with_its_file(tmp_path, to):
    write_trained(tmp_path / "snapshot", task={})
    out = tmp_path / ("out.npz" if to == "npz" else "out")
    assert "task.json: task description: 'name' is None" in refused(tmp_path, tmp_path / "snapshot", out, to=to)
