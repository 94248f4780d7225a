"""Bad input to the Meta Fine-tuning scripts: one line that names the fault and its remedy, exit code 2, nothing half
done."""

import errno
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from ofrecord_util import files
from ofrecord_util.reader import read_split
from ofrecord_util.schema import FEATURE_NAMES
from ofrecord_util.writer import write_split

pytestmark = pytest.mark.slow

STEP_1 = "preprocess.py --task_name g1 --model_load_dir encoder --data_dir data --seq_length 24 --log_dir logs"
STEP_2 = (
    "meta_finetuning.py --task_name g1 --model_load_dir encoder --data_dir data --seq_length 24 --num_epochs 1 --model_save_dir output/run"
)
STEP_3 = "finetuning.py --task_name g1 --model_load_dir encoder --data_dir data --seq_length 24 --num_epochs 1 --model_save_dir output/run"
SIZES = f"--num_hidden_layers 1 --num_attention_heads 2 --vocab_size {len(tiny.TOKENS)} --vocab_file vocab.txt"
STEPS = (STEP_1, STEP_2, STEP_3)
ALL = pytest.mark.parametrize("line", STEPS, ids=("preprocess", "meta_finetuning", "finetuning"))
TRAINING = pytest.mark.parametrize("line", STEPS[1:], ids=("meta_finetuning", "finetuning"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A project in which all three steps would run: text, records and scores of three splits, an encoder."""
    project = tiny.Project(tmp_path_factory.mktemp("prepared") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=3, dev=2)
    shutil.copy(project.path("data", "dev.csv"), project.path("data", "test.csv"))
    project.call_well(STEP_1 + " --resave_ofrecord")
    return project


@pytest.fixture
def project(prepared, tmp_path):
    """A copy of it that a test may spoil."""
    shutil.copytree(prepared.folder, str(tmp_path / "project"), symlinks=True)
    copy = object.__new__(tiny.Project)
    copy.folder = str(tmp_path / "project")
    return copy


def spared(project):
    """Files that a step which fails must leave as they are: all but what tells of the run."""
    told = ("run.log", "metrics.jsonl", "flags.json", "run.flags")
    return {path: data for path, data in tiny.tree(project.folder).items() if os.path.basename(path) not in told}


def check_error(code, output, errors, *parts):
    assert code == 2, output + errors
    assert errors.startswith("error: "), errors
    assert errors.endswith("\n"), errors
    assert errors.count("\n") == 1, errors
    assert "Traceback" not in output
    assert all(part in errors for part in parts), errors
    assert not re.search(r"\{\w*\}", errors), errors  # a field of the message that was not filled in


def fails(project, line, *parts):
    """Runs a line that must fail with one error that holds all the parts, and must change nothing."""
    before = spared(project)
    check_error(*project.call(line), *parts)
    assert spared(project) == before


def rewrite(project, name, change):
    """Changes the bytes of a file of the project."""
    path = project.path(*name.split("/"))
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(change(data))


# --- the data


@ALL
def test_missing_data_folder(project, line):
    for other in ("nowhere", "nowhere --resave_ofrecord", "vocab.txt"):
        fails(project, line.replace("--data_dir data", "--data_dir " + other), f"{other.split()[0]}: no such folder")


@ALL
def test_empty_train_file(project, line):
    rewrite(project, "data/train.csv", lambda data: b"")
    fails(project, line + " --resave_ofrecord", "train.csv: is empty", "text TAB domain TAB label")


@ALL
@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (b"good film\t1", ("2 columns where 3 are expected", "text, domain, label")),
        (b"good film\tmr\t2", ("label '2' is not one of task 'g1' (0, 1)", "--label_list")),
        (b"good film\tbooks\t1", ("domain 'books' is not one of task 'g1' (SST-2, mr, cr)", "--domains")),
        (b" \tmr\t1", ("the text is empty",)),
        (b"good \xff film\tmr\t1", ("is not UTF-8; convert the file to UTF-8",)),
        (b"caf\xc3\xa9 \xff film\tmr\t1", ("is not UTF-8; other characters of it are UTF-8, so mend this row",)),
    ],
    ids=("two columns", "label", "domain", "no text", "bytes", "a stray byte"),
)
def test_bad_row(project, line, row, parts):
    rewrite(project, "data/train.csv", lambda data: data + row + b"\n")
    fails(project, line + " --resave_ofrecord", "train.csv: row 18: ", *parts)


@pytest.mark.parametrize(("line", "split"), [(STEP_1, "dev"), (STEP_1, "test"), (STEP_2, "dev"), (STEP_3, "dev"), (STEP_3, "test")])
def test_bad_row_of_another_split(project, line, split):
    rewrite(project, f"data/{split}.csv", lambda data: data + b"good film\t1\n")
    fails(project, line + " --resave_ofrecord", f"{split}.csv: row 12: ", "2 columns")


@ALL
@pytest.mark.parametrize(("task", "text"), [("g2", "3 columns where 4 are"), ("sst-2", "'MR' is not one of")])
def test_text_of_another_task(project, line, task, text):
    fails(project, line.replace("--task_name g1", f"--task_name {task}") + " --resave_ofrecord", ".csv: row ", text)


@ALL
def test_unknown_task_without_text(project, line):
    shutil.rmtree(project.path("data", "ofrecord"))
    os.remove(project.path("data", "train.csv"))
    fails(project, line.replace("--task_name g1", "--task_name mine"), "'mine' is unknown", "--domains", "--label_list")


@ALL
def test_task_with_one_label(project, line):
    fails(project, line + " --label_list 1", "has 1 labels (1), needs at least 2", "--label_list")


# --- the records


@pytest.mark.parametrize(
    ("line", "split"),
    [
        (STEP_1, "train"),
        (STEP_2, "train"),
        (STEP_2, "dev"),
        (STEP_3, "train"),
        (STEP_3, "dev"),
    ],
)
def test_missing_records(project, line, split):
    """Without a part that the manifest names, and without text."""
    os.remove(project.path("data", "ofrecord", split, f"{split}.of_record-0"))
    fails(project, line, f"{split}.of_record-0: no such file", "--resave_ofrecord")
    shutil.rmtree(project.path("data", "ofrecord", split))
    os.remove(project.path("data", f"{split}.csv"))
    fails(project, line, f"{split} text not found, looked for data/{split}.csv", "there are no records in", "check --data_dir")


@ALL
def test_stale_records(project, line):
    longer = line.replace("--seq_length 24", "--seq_length 25")
    fails(project, longer, "stale", "their length is 24 and --seq_length is 25", "--resave_ofrecord")
    fails(project, line + " --do_lower_case false", "stale", "--do_lower_case true", "--resave_ofrecord")
    fails(project, line + " --label_list 1,0", "stale", "labels 0,1", "--resave_ofrecord")
    rewrite(project, "data/train.csv", lambda data: data.replace(b"good", b"bad"))
    fails(project, line, "stale", "train.csv has changed since", "--resave_ofrecord")


@ALL
def test_damaged_records(project, line):
    rewrite(project, "data/ofrecord/train/train.of_record-0", lambda data: data[:-3])
    fails(project, line, "train.of_record-0", "--resave_ofrecord")


def test_damaged_records_are_named_to_the_byte(project):
    """What would end the process in OneFlow's reader, or pass through its kernels: file, record, offset."""
    path = "data/ofrecord/train/train.of_record-0"
    with open(project.path(*path.split("/")), "rb") as file:
        whole = file.read()
    second = 8 + struct.unpack_from("<q", whole)[0]
    at = f"train.of_record-0: record 2 at byte {second}: "
    for length in (0, -1, 2**45, len(whole)):
        rewrite(project, path, lambda data, length=length: whole[:second] + struct.pack("<q", length) + whole[second + 8 :])
        fails(project, STEP_2, at + f"its length is {length} bytes", "--resave_ofrecord")
    rewrite(project, path, lambda data: whole.replace(b"input_mask", b"input_musk", 2).replace(b"input_musk", b"input_mask", 1))
    fails(project, STEP_2, "its bytes have changed since it was written", "--resave_ofrecord")
    for split in ("train", "dev"):
        os.remove(project.path("data", "ofrecord", split, "manifest.json"))
    fails(project, STEP_2, at + "has no input_mask, only", "--resave_ofrecord")
    records = read_split(project.path("data"), "dev")
    arrays = {name: getattr(records, name) for name in FEATURE_NAMES}
    for name, value in (("input_ids", len(tiny.TOKENS)), ("segment_ids", 2), ("label", 2), ("domain", 3)):
        changed = arrays[name].copy()
        changed[1] = value
        write_split(project.path("data"), "train", None, 1, dict(arrays, **{name: changed}), {"text_digest": records.text_digest})
        with open(project.path(*path.split("/")), "rb") as file:
            second = 8 + struct.unpack("<q", file.read(8))[0]
        at = f"train.of_record-0: record 2 at byte {second}: {name} is {value}, allowed are 0 to {value - 1}; check --"
        fails(project, STEP_2.replace("--data_dir data", "--data_dir data --use_sample_weights false"), at)
    rewrite(project, path, lambda data: b"")
    fails(project, STEP_2, "train.of_record-0: is empty", "--resave_ofrecord")


@ALL
def test_zero_examples(project, line):
    fails(project, line + " --train_example_num 0", "--train_example_num 0: at least 1 is needed")


def test_one_class_and_one_domain(project):
    """Nothing to learn, but no fault: the steps say so and run to their end with finite numbers."""
    rewrite(project, "data/train.csv", lambda data: b"good film\tmr\t1\ngreat plot\tmr\t1\ngood film\tmr\t1\n")
    output = project.call_well(STEP_1 + " --resave_ofrecord")
    for part in ("all 3 rows have the label 1 (none 0)", "all 3 rows have the domain mr (none SST-2, cr)", "1 of 3 rows repeat"):
        assert part in output, output
    output = project.call_well(STEP_2)
    assert "the classifier cannot learn" in output
    assert "--use_domain_loss false" in output
    assert not re.search(r"\b(nan|inf)\b", output), output


# --- the scores of step 1


def test_step_1_is_missing(project):
    for name in ("weight.npy", "weight.json"):
        os.remove(project.path("data", "ofrecord", "train", name))
    parts = ("weight.npy", "run preprocess.py first", "--use_sample_weights false")
    fails(project, STEP_2, *parts)
    check_error(*project.call(STEP_2 + " --resave_ofrecord"), *parts)
    fails(project, STEP_2, *parts)


def test_scores_of_another_text(project):
    rewrite(project, "data/train.csv", lambda data: data.replace(b"good", b"bad"))
    fails(project, STEP_2 + " --resave_ofrecord", "weight.npy", "run preprocess.py again")


def test_scores_for_fewer_rows(project):
    project.call_well(STEP_1 + " --train_example_num 9")
    fails(project, STEP_2 + " --train_example_num 10", "weight.npy", "9 scores", "10", "run preprocess.py again")


def test_damaged_scores(project):
    np.save(project.path("data", "ofrecord", "train", "weight.npy"), np.ones(17, np.float32))
    fails(project, STEP_2, "weight.npy", "run preprocess.py again")


# --- the vocabulary


@ALL
def test_wrong_vocabulary(project, line):
    tiny.write_vocabulary(project.path("vocab.txt"), tiny.TOKENS[:-3])
    fails(
        project,
        line + " --vocab_file vocab.txt --resave_ofrecord",
        f"vocab.txt has {len(tiny.TOKENS) - 3} pieces",
        str(len(tiny.TOKENS)),
        "--vocab_file",
    )
    tiny.write_vocabulary(project.path("vocab.txt"), ["good", "bad"])
    fails(project, line + " --vocab_file vocab.txt", "vocab.txt", "[PAD], [UNK], [CLS], [SEP]")
    fails(project, line + " --vocab_file missing.txt", "missing.txt", "--vocab_file")


@ALL
def test_no_vocabulary(project, line):
    os.remove(project.path("encoder", "vocab.txt"))
    fails(project, line, "--vocab_file is needed", "encoder", "vocab.txt")


@ALL
def test_cased_vocabulary(project, line):
    cased = [token if token.startswith("[") else token.capitalize() for token in tiny.TOKENS]
    tiny.write_vocabulary(project.path("encoder", "vocab.txt"), cased)
    fails(project, line + " --resave_ofrecord", "vocab.txt", "cased", "--do_lower_case false")


# --- the snapshot


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


@TRAINING
def test_full_disk_when_a_snapshot_is_saved(project, line, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    fails(project, line, "output/run", "No space left on device")
    assert not [name for name in os.listdir(project.path("output", "run")) if "snapshot" in name]


@TRAINING
def test_disk_too_small_for_the_run(project, line, monkeypatch):
    """Found before the first step, so that no folder is left."""
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(total=10**6, used=10**6 - 999, free=999))
    fails(project, line, "output/run", "999 bytes", "--model_save_dir")
    assert not os.path.exists(project.path("output"))


@TRAINING
def test_a_refused_run_leaves_no_folder(project, line):
    """A fault of the flags, of the data, and of the model, each found at another place of the set-up."""
    fails(project, line + " --texts_per_row 7 --batch_size_per_device 8", "--texts_per_row 7")
    fails(project, line + " --dev_example_num 0", "--dev_example_num (or --eval_example_num) 0")
    fails(project, line + " --label_list x,y,z", "stale")
    assert not os.path.exists(project.path("output"))


@pytest.mark.parametrize("step", [STEP_1, STEP_2])
def test_too_little_memory(project, step):
    fails(
        project,
        step + " --memory_limit 0.001",
        "of memory, but may use only 1.0 MB",
        "free some memory",
        "--memory_limit GB sets another limit",
    )
    assert not os.path.exists(project.path("output"))


def test_step_3_without_a_test_split(project):
    """As in the other scripts, the test split is optional; dev is not."""
    os.remove(project.path("data", "test.csv"))
    shutil.rmtree(project.path("data", "ofrecord"))
    assert "no test split: there is no test.csv" in project.call_well(STEP_3 + " --max_steps 1")
    os.remove(project.path("data", "dev.csv"))
    shutil.rmtree(project.path("data", "ofrecord", "dev"))
    fails(project, STEP_3, "dev text not found, looked for data/dev.csv", "there are no records in data/ofrecord/dev either")


@pytest.mark.slow
def test_a_run_says_the_command_that_continues_it(project):
    line = STEP_3 + " --batch_size_per_device 2 --max_steps 1 --model_save_dir output/a_run"
    output = project.run(line)  # as a process, which lets go of its folder
    (line,) = [line for line in output.splitlines() if "stopped after step 1" in line]
    command = line.split("continue with python3 ")[1]
    assert command.startswith("finetuning.py @output/a_run/run.flags --resume output/a_run --max_steps ")
    assert "after step 1 of" in project.call_well(command)


@TRAINING
def test_a_fault_in_the_last_split_is_found_before_records_are_written(project, line):
    """The records of the first splits would be written."""
    shutil.rmtree(project.path("data", "ofrecord"))
    rewrite(project, "data/test.csv", lambda data: data + b"no columns\n")
    weights = " --use_sample_weights false" if line == STEP_2 else ""
    fails(project, line + weights, "test.csv: row", "1 columns")


def test_a_refused_first_step_leaves_no_folder(project):
    shutil.rmtree(project.path("data", "ofrecord"))
    fails(project, STEP_1 + " --memory_limit 0.001", "may use only 1.0 MB")
    assert sorted(os.listdir(project.path("data"))) == ["dev.csv", "test.csv", "train.csv"]


def test_scores_that_are_not_used_need_not_fit(project):
    """Nothing is said of scores that a run ignores; a run that needs them says one thing about them."""
    with open(project.path("data", "train.csv"), "a", encoding="utf-8") as file:
        file.write("a good film\tsst-2\t1\n")
    fails(project, STEP_2 + " --resave_ofrecord", "weight.npy")
    output = project.call_well(STEP_2 + " --resave_ofrecord --use_sample_weights false")
    assert "weight.npy" not in output
    os.remove(project.path("data", "ofrecord", "train", "weight.npy"))
    code, output, errors = project.call(STEP_2 + " --resave_ofrecord")
    assert code == 2
    assert "no prototypical scores" in errors
    assert "weight 1.0" not in output


@TRAINING
def test_resume_of_what_is_no_run(project, line):
    fails(project, line + " --resume", "output has no interrupted run of")
    fails(project, line + " --resume nowhere", "--resume nowhere", "no such folder")
    os.makedirs(project.path("output", "empty"))
    fails(project, line + " --resume output/empty", "not a run folder", "flags.json")
    fails(project, line + " --resume --do_train false --do_eval", "--resume continues a training")


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


@TRAINING
def test_training_that_diverges(project, line):
    fails(project, line + " --learning_rate 1e30", "step 1: the dev cross-entropy is nan", "--learning_rate")
    with open(project.path("output", "run", "run.log"), encoding="utf-8") as file:
        assert re.search(r"^[-0-9]+ [:0-9]+ error: step 1: the dev cross-entropy is nan", file.read(), re.MULTILINE)


# --- flags and the machine


@ALL
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="needs a machine without a card")
def test_no_card(project, line):
    fails(project, line + " --device cuda", "--device cuda", "--device cpu")


@ALL
@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ("--use_fp16 --device cpu", ("--use_fp16", "CUDA")),
        ("--batch_size_per_devise 2", ("unknown flag --batch_size_per_devise",)),
        ("--sede 1", ("unknown flag --sede", "did you mean --seed?")),
        ("--seq_length 2", ("--seq_length", "2 is not 3 or more")),
        ("--seed x", ("--seed", "'x' is not an integer")),
        ("--learning_rate -1", ("--learning_rate", "-1")),
        ("--warmup_proportion 1.5", ("--warmup_proportion", "1.5")),
        ("--num_epochs 0", ("--num_epochs", "0 is not 1 or more")),
        ("--do_lower_case maybe", ("--do_lower_case", "'maybe' is neither true nor false")),
        ("--device gpu", ("--device", "'gpu'", "cuda")),
        ("--train_data_part_num 2", ("train.of_record-1: no such file", "--resave_ofrecord")),
        ("--task_name a/b", ("--task_name a/b",)),
        ("--task_name ..", ("--task_name ..",)),
        ("--train_data_prefix a/b", ("--train_data_prefix",)),
        ("--hidden_dropout_prob 1", ("hidden_dropout_prob",)),
    ],
)
def test_bad_flag(project, line, flags, parts):
    fails(project, f"{line} {flags}", *parts)


@TRAINING
@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ("--batch_size_per_device 0", ("--batch_size_per_device", "0 is not 1 or more")),
        ("--dev_batch_size_per_device 0", ("--dev_batch_size_per_device", "0 is not 1 or more")),
        ("--batch_size_per_devise 2", ("did you mean --batch_size_per_device?",)),
        ("--dev_every_step_num 0", ("--dev_every_step_num",)),
        ("--num_nodes 3", ("--num_nodes 3", "--node_ips names 0 machines")),
        ("--num_nodes 2 --node_ips 203.0.113.1,203.0.113.2", ("--node_ips 203.0.113.1,203.0.113.2", "none is an address of this machine")),
        ("--do_train false --do_eval false", ("--do_train false", "--do_eval false", "nothing to do")),
    ],
)
def test_bad_flag_of_a_training_step(project, line, flags, parts):
    fails(project, f"{line} {flags}", *parts)


@pytest.mark.parametrize("layers", ["2", "-1", "0,0", "x"])
def test_domain_layers(project, layers):
    fails(project, f"{STEP_2} --domain_layers={layers}", "--domain_layers", layers)


@TRAINING
def test_run_folder_that_cannot_be_made(project, line):
    fails(project, line.replace("output/run", "vocab.txt/run"), "--model_save_dir vocab.txt/run")
    fails(project, line.replace("output/run", "vocab.txt/run/deep"), "--model_save_dir vocab.txt/run/deep")
    os.symlink(os.devnull, project.path("null"))  # the next name, null-1, would be a surprise: it could be /dev/null-1
    fails(project, line.replace("output/run", "null"), "--model_save_dir null: is not a folder")


def test_log_folder_that_cannot_be_made(project):
    fails(project, STEP_1.replace("--log_dir logs", "--log_dir vocab.txt/logs"), "vocab.txt/logs", "--log_dir")
    os.mkdir(project.path("full"))
    os.mkdir(project.path("full", "preprocess.log"))
    fails(project, STEP_1.replace("--log_dir logs", "--log_dir full"), "full/preprocess.log: is not a regular file")


def test_a_refused_step_leaves_no_log_and_no_records(project):
    """Neither of the two scripts without a run folder, also if the fault is in the split that is read last."""
    shutil.rmtree(project.path("logs"))
    rewrite(project, "data/dev.csv", lambda data: data.replace(b"good", b"great"))  # would be written again
    rewrite(project, "data/test.csv", lambda data: data + b"no columns\n")
    fails(project, STEP_1 + " --resave_ofrecord", "test.csv: row", "1 columns")
    fails(project, STEP_1.replace("encoder", "vocab.txt"), "vocab.txt")
    fails(project, STEP_1.replace("preprocess.py", "meta_teacher_eval.py"), "encoder", "run meta_teacher.py")
    assert not os.path.exists(project.path("logs"))


@pytest.mark.parametrize("planted", ["symbolic", "hard"])
def test_planted_logs_of_steps(project, planted):
    shutil.copy(project.path("vocab.txt"), project.path("mine"))
    os.remove(project.path("logs", "preprocess.log"))
    (os.symlink if planted == "symbolic" else os.link)(project.path("mine"), project.path("logs", "preprocess.log"))
    fails(project, STEP_1, "logs/preprocess.log")


def test_the_remedy_for_a_changed_text_is_complete(project):
    """What the message says is enough."""
    rewrite(project, "data/train.csv", lambda data: data.replace(b"good", b"bad"))
    remedy = "run preprocess.py again with --resave_ofrecord, then this command"
    for line in (STEP_2, STEP_2.replace("--seq_length 24", "--seq_length 23"), STEP_2 + " --resave_ofrecord"):
        fails(project, line, remedy)
    project.call_well(STEP_1 + " --resave_ofrecord")
    project.call_well(STEP_2)


def test_several_domains_in_step_3(project):
    output = project.call_well(STEP_3)
    assert "warning: the training split has 3 domains (SST-2, mr, cr), and step 3 of Meta Fine-tuning trains on one" in output
    rewrite(project, "data/train.csv", lambda data: b"".join(line for line in data.splitlines(True) if b"\tMR\t" in line))
    assert "trains on one" not in project.call_well(STEP_3 + " --resave_ofrecord")


@ALL
def test_required_flags(project, line):
    script = line.split()[0]
    fails(project, script, "--task_name", "--data_dir")
    fails(project, f"{script} --data_dir data", "--task_name")


# --- as processes


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (STEP_1.replace("--data_dir data", "--data_dir nowhere"), ("nowhere",)),
        (STEP_2 + " --sede 1", ("unknown flag --sede",)),
        (STEP_3 + " --seq_length 25", ("stale",)),
    ],
)
def test_as_a_user_sees_it(project, line, parts):
    """Within a shell: no chatter of libraries around the one line."""
    before = spared(project)
    process = project.start(line)
    output, errors = process.communicate(timeout=300)
    check_error(process.returncode, output, errors, *parts)
    assert spared(project) == before


@ALL
def test_oneflow_is_a_placeholder(project, line):
    """PyPI's `oneflow` of a Python without wheels is an empty package."""
    os.mkdir(project.path("packages"))
    os.mkdir(project.path("packages", "oneflow"))
    with open(project.path("packages", "oneflow", "__init__.py"), "w", encoding="utf-8") as file:
        file.write("__version__ = '0.0.1'\n")
    process = subprocess.Popen(
        [sys.executable, *line.split()],
        cwd=project.folder,
        env=dict(os.environ, PYTHONPATH=project.path("packages"), PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    output, errors = process.communicate(timeout=300)
    check_error(process.returncode, output, errors, "oneflow 0.0.1 is an empty placeholder")
