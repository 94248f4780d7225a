"""Bad input to the Meta Fine-tuning scripts: the snapshot that a step loads."""

import os
import pickle
import shutil

import numpy as np
import pytest
import tiny
from bad_input_steps import ALL, SIZES, STEP_1, STEP_2, TRAINING, fails, rewrite

pytestmark = pytest.mark.slow


def test_encoder_is_needed(project):
    line = STEP_1.replace("--model_load_dir encoder ", "")
    fails(project, line, "--model_load_dir is needed")
    fails(project, line + " --vocab_file vocab.txt", "--model_load_dir is needed")


@ALL
def test_no_snapshot(project, line):
    missing = line.replace("--model_load_dir encoder", "--model_load_dir nowhere")
    fails(project, missing, "nowhere: no such snapshot folder", "--model_load_dir")
    os.mkdir(project.path("nowhere"))
    fails(project, missing, "nowhere: contains no variables", "tools/convert_checkpoint.py")


@ALL
def test_interrupted_snapshot(project, line):
    os.remove(project.path("encoder", "snapshot_done"))
    fails(project, line, "encoder: no snapshot_done")


@ALL
def test_variable_with_bytes_missing(project, line):
    name = "bert-encoder-layer_1-attention-self-key-bias"
    rewrite(project, f"encoder/{name}/out", lambda data: data[:-4])
    fails(project, line, "encoder", name, "76 bytes", "[20] = 80 bytes")


@ALL
def test_variable_with_bytes_missing_in_an_older_snapshot(project, line):
    tiny.write_encoder(project.path("older"), older=True)
    name = "bert-encoder-layer_1-attention-self-key-bias"
    rewrite(project, f"older/{name}/out", lambda data: data[:-4])
    line = line.replace("--model_load_dir encoder", "--model_load_dir older --hidden_size_per_head 5")
    fails(project, line + " --vocab_file vocab.txt", "older", name, "19", "20")


@ALL
def test_missing_and_unknown_variables(project, line):
    names = ["bert-encoder-layer_1-attention-self-key-bias", "bert-embeddings-LayerNorm-beta"]
    for name in names:
        shutil.rmtree(project.path("encoder", name))
    fails(project, line, "encoder", "missing", *names)
    os.rename(project.path("encoder", "bert-pooler-dense-bias"), project.path("encoder", "bert-pooler-bias"))
    fails(project, line, "missing", *names, "unknown bert-pooler-bias")


@ALL
@pytest.mark.parametrize(
    ("flag", "given", "own"),
    [
        ("num_hidden_layers", 3, 2),
        ("num_attention_heads", 5, 4),
        ("hidden_size_per_head", 4, 5),
        ("max_position_embeddings", 41, 40),
        ("type_vocab_size", 3, 2),
        ("vocab_size", 30522, len(tiny.TOKENS)),
    ],
)
def test_flag_contradicts_the_snapshot(project, line, flag, given, own):
    fails(project, f"{line} --{flag} {given}", f"--{flag} {given} contradicts encoder", str(own))


@ALL
def test_more_tokens_than_positions(project, line):
    long = line.replace("--seq_length 24", "--seq_length 41")
    fails(project, long + " --resave_ofrecord", "--seq_length 41", "40 positions")


@TRAINING
def test_nothing_to_evaluate(project, line):
    only = line + " --do_train false --do_eval"
    fails(project, only, "--do_train false", "encoder has no task.json", "no classifier")
    started_anew = only.replace("--model_load_dir encoder", SIZES)
    fails(project, started_anew, "--do_train false", "--model_load_dir is needed")
    for name, data in (("task.json", "{}"), ("bert_config.json", "[]")):
        with open(project.path("encoder", name), "w", encoding="utf-8") as file:
            file.write(data)
        fails(project, only, "encoder/" + name)


class _Payload:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_planted_files_in_a_snapshot(project):
    with open(project.path("encoder", "pickled_data"), "wb") as file:
        pickle.dump(_Payload(project.path("ran")), file)
    name = "bert-pooler-dense-bias"
    shutil.move(project.path("encoder", name), project.path("elsewhere"))
    os.symlink(project.path("elsewhere"), project.path("encoder", name))
    fails(project, STEP_2, "encoder: ", f"{name} is a symbolic link", "pickled_data", "remove it")
    assert not os.path.exists(project.path("ran"))


@ALL
def test_damaged_description_of_a_variable(project, line):
    rewrite(project, "encoder/bert-pooler-dense-bias/meta", lambda data: data.replace(b"kFloat", b"kDouble"))
    fails(project, line, "encoder/bert-pooler-dense-bias/meta", "kDouble")
    rewrite(project, "encoder/bert-pooler-dense-bias/meta", lambda data: b"\xff\xfe")
    fails(project, line, "encoder/bert-pooler-dense-bias/meta")


@ALL
def test_damaged_configuration(project, line):
    rewrite(project, "encoder/bert_config.json", lambda data: data.replace(b": 20", b': "20"'))
    fails(project, line, "encoder/bert_config.json", "hidden_size", "'20'")


@TRAINING
def test_folder_of_a_run_instead_of_its_snapshot(project, line):
    os.mkdir(project.path("run"))
    shutil.move(project.path("encoder"), project.path("run", "snapshot_best_mft_model_g1_dev_0.5"))
    line = line.replace("--model_load_dir encoder", "--model_load_dir run")
    fails(project, line, "run: contains no variables", "snapshot_best_mft_model_g1_dev_0.5")


def test_encoder_that_is_not_finite(project):
    embeddings = "encoder/bert-embeddings-LayerNorm-beta/out"
    rewrite(project, embeddings, lambda data: np.full(20, np.nan, "<f4").tobytes())
    fails(project, STEP_1, "encoder", "not finite")
