"""modeling/cli/flags.py and what follows from flags alone: documented command lines, sizes against a snapshot, one-line errors."""

import ast
import dataclasses
import os
import re
import shlex
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from tiny_model import CONFIG, ROOT

from modeling.bert.config import BertConfig
from modeling.bert.names import CLASSIFIER
from modeling.cli.corpus_flags import CORPUS
from modeling.cli.flag_table import DISTILL, FLAGS, OPTIMISATION
from modeling.cli.flags import (
    DOCUMENTED_SCRIPTS,
    DOMAIN_MIXING,
    META_DISTILL,
    META_FINETUNING,
    SCRIPTS,
    build_parser,
    check_modes,
    flags_of,
    learning_rates,
    parse_flags,
    run_folder_name,
    warn_without_effect,
)
from modeling.cli.pair_flags import HALVES
from modeling.cli.recipe_flags import META, PAIRS
from modeling.cli.scripts import TRAINING
from modeling.cli.training_flags import training_flags
from modeling.run.model_size import resolve_config
from ofrecord_util.errors import UserError

MFT_BEST = "output/model_save-2021-06-15-08:54:42/snapshot_best_mft_model_g1_dev_0.7083333333333334"
SENTI_BEST = "output/model_save-2021-09-26-15:31:15/snapshot_best_mft_model_senti_dev_0.8691358024691358"
BASE, VOCAB = "uncased_L-12_H-768_A-12_oneflow", "uncased_L-12_H-768_A-12/vocab.txt"
KD = f"--task_name senti --data_dir data/SENTI/ --seed 42 --seq_length=128 --train_example_num 6480 --vocab_file {VOCAB} --resave_ofrecord"
DOCUMENTED = {  # script -> (command line, some of the values)
    "preprocess": (
        f"--task_name g1 --model_load_dir {BASE} --data_dir data/k-shot-cross/g1/16-42 --num_epochs 4 --seed 42 --seq_length=128 "
        f"--train_example_num 96 --dev_example_num 96 --vocab_file {VOCAB} --resave_ofrecord",
        {"seq_length": 128, "dev_example_num": 96, "resave_ofrecord": True, "train_data_prefix": "train.of_record-", "device": "auto"},
    ),
    "meta_finetuning": (
        f"--task_name g1 --model_load_dir {BASE} --data_dir data/k-shot-cross/g1/16-42 --num_epochs 63 --seed 42 --seq_length=128 "
        "--train_example_num 96 --dev_example_num 96 --batch_size_per_device 4 --dev_batch_size_per_device 2 --dev_every_step_num 100 "
        f"--vocab_file {VOCAB} --learning_rate 5e-5 --resave_ofrecord",
        {
            "batch_size_per_device": 4,
            "dev_every_step_num": 100,
            "learning_rate": 5e-5,
            "domain_loss_weight": 0.1,
            "use_domain_loss": True,
            "use_sample_weights": True,
            "weight_decay_rate": 0.01,
            "warmup_proportion": 0.1,
            "loss_print_every_n_iter": 10,
        },
    ),
    "finetuning": (
        f"--task_name sst-2 --model_load_dir {MFT_BEST} --data_dir data/k-shot-single/SST-2/16-42 --num_epochs 64 --seed 42 "
        "--seq_length=128 --train_example_num 32 --dev_example_num 32 --eval_example_num 872 --batch_size_per_device 2 "
        "--dev_batch_size_per_device 2 --eval_batch_size_per_device 2 --dev_every_step_num 50 "
        f"--vocab_file {VOCAB} --learning_rate 1e-5 --resave_ofrecord",
        {"eval_example_num": 872, "eval_data_prefix": "test.of_record-", "dev_data_prefix": "dev.of_record-", "model_load_dir": MFT_BEST},
    ),
    "meta_teacher": (
        f"{KD} --model_load_dir {BASE} --num_epochs 63 --eval_example_num 720 --batch_size_per_device 24 --eval_batch_size_per_device 48 "
        "--eval_every_step_num 100 --learning_rate 5e-5 --do_train --do_eval",
        {"do_train": True, "do_eval": True, "eval_data_prefix": "dev.of_record-", "domain_loss_weight": 0.2, "data_portion": 1.0},
    ),
    "meta_teacher_eval": (
        f"{KD} --model_load_dir {SENTI_BEST} --num_epochs 4 --eval_batch_size_per_device 1",
        {"eval_batch_size_per_device": 1, "model_load_dir": SENTI_BEST},
    ),
    "meta_distill": (
        f"{KD} --student_model {BASE} --teacher_model {SENTI_BEST} --num_epochs 63 --eval_example_num 720 --batch_size_per_device 24 "
        "--eval_batch_size_per_device 48 --eval_every_step_num 100 --learning_rate 5e-5 --do_train --do_eval",
        {"student_model": BASE, "teacher_model": SENTI_BEST, "temperature": 1.0, "pred_distill": False},
    ),
}


@pytest.mark.parametrize("script", DOCUMENTED_SCRIPTS)
def test_documented_command_lines(script):
    line, values = DOCUMENTED[script]
    flags = parse_flags(script, argv=line.split())
    for name, value in values.items():
        assert getattr(flags, name) == value, name
    assert flags.seed == 42
    assert flags.script == script
    assert "seed" in flags.given
    assert "device" not in flags.given


@pytest.mark.parametrize(
    ("page", "scripts"),
    [("steps.md", {"preprocess", "meta_finetuning", "finetuning"}), ("recipes.md", {"metric_learning", "pretrain_mlm", "generation"})],
)
def test_documented_command_lines_on_their_page(page, scripts):
    with open(os.path.join(ROOT, "docs", page), encoding="utf-8") as f:
        text = f.read().replace("\\\n", " ")
    commands = re.findall(r"^python3 (?:recipes/)?(\w+)\.py (.*)$", text, re.MULTILINE)
    assert {script for script, _ in commands} >= scripts
    for script, line in commands:
        parse_flags(script, argv=shlex.split(line))


REQUIRED = ["--task_name", "g1", "--data_dir", "d"]


@pytest.mark.parametrize(
    ("more", "train", "evaluate"),
    [
        ([], True, True),
        (["--do_train"], True, True),
        (["--do_train", "--do_eval"], True, True),
        (["--do_train", "false", "--do_eval"], False, True),
        (["--do_train=False"], False, True),
        (["--do_eval", "false"], True, False),
        (["--do_eval"], False, True),
    ],
)
def test_modes(more, train, evaluate):
    assert check_modes(parse_flags("finetuning", argv=REQUIRED + more)) == (train, evaluate)


def test_nothing_to_do():
    with pytest.raises(UserError, match="nothing to do"):
        check_modes(parse_flags("finetuning", argv=[*REQUIRED, "--do_train", "false", "--do_eval", "false"]))


def test_one_length_by_two_names():
    assert parse_flags("preprocess", argv=[*REQUIRED, "--max_seq_length", "77"]).seq_length == 77


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--learning_rte", "1"], "did you mean --learning_rate?"),
        (["--seq_length", "2"], "--seq_length"),
        (["--batch_size_per_device", "0"], "0 is not 1 or more"),
        (["--learning_rate", "fast"], "'fast' is not a number"),
        (["--learning_rate", "nan"], "nan is not a finite number"),
        (["--memory_limit", "inf"], "argument --memory_limit: inf is not a finite number"),
        (["--memory_limit", "1e400"], "1e400 is not a finite number"),
        (["--learning_rate", "-1"], "-1 is not 0 or more"),
        (["--batch_size_per_device", "9" * 400], "is more than 65,536"),
        (["--warmup_proportion", "1.5"], "between 0 and 1"),
        (["--do_train", "perhaps"], "neither true nor false"),
        (["--device", "tpu"], "--device"),
        (["--domain_layers", "1,x"], "'1,x' is not a comma-separated list of integers"),
    ],
)
def test_bad_flags(more, said, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_flags("meta_finetuning", argv=REQUIRED + more)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script):
    parser = build_parser(script)
    text = " ".join(parser.format_help().split())
    for title in ("data:", "model:", "optimisation:", "output and machine:"):
        assert title in text
    assert "(default: 0.01)" in text
    assert "(default: ./output/model_save-%Y-%m-%d-%H:%M:%S)" in text
    for action in parser._actions:
        assert action.help, action.option_strings


def test_rows_of_one_flag_share_no_script():
    for script in SCRIPTS:
        names = [option for flag in flags_of(script) for option in flag.option_strings]
        assert len(names) == len(set(names)), script
    for flag in FLAGS:
        assert set(flag.scripts) <= set(SCRIPTS), flag.name


def test_flags_of_domain_mixing():
    def names(script):
        return [flag.name for flag in flags_of(script)]

    absent = {
        *("use_domain_loss", "use_sample_weights", "normalize_sample_weights", "domain_loss_weight"),
        *("corruption", "domain_layers"),
    }
    assert names(DOMAIN_MIXING) == [name for name in names(META_FINETUNING) if name not in absent]
    assert absent <= set(names(META_FINETUNING))
    assert build_parser(DOMAIN_MIXING).prog == "recipes/domain_mixing.py"


@pytest.mark.parametrize(
    ("script", "more", "said"),
    [
        ("preprocess", "--num_epochs 4 --gpu_num_per_node 2", ["num_epochs", "gpu_num_per_node"]),
        ("preprocess", "--do_train --do_eval", ["do_train", "do_eval"]),
        ("meta_teacher_eval", "--do_train --do_eval", ["do_train"]),
        ("finetuning", "--num_epochs 4 --gpu_num_per_node 2 --data_url d --model m --max_predictions_per_seq 20",
         ["data_url", "max_predictions_per_seq", "model"]),
        ("finetuning", "--max_predictions_per_seq 80 --use_xla", ["use_xla"]),
        ("meta_teacher", "--pred_distill --temperature 2", ["pred_distill", "temperature"]),
        ("meta_teacher_eval", "--pred_distill --temperature 2 --use_sample_weights false --num_nodes 1",
         ["temperature", "use_sample_weights"]),
        ("meta_distill", "--pred_distill --temperature 2 --model_load_dir d --student_model s --teacher_model t", ["model_load_dir"]),
    ],
)  # fmt: skip
def test_flags_without_effect_are_logged(script, more, said):
    lines = []
    warn_without_effect(parse_flags(script, argv=[*REQUIRED, *more.split()]), lines.append)
    assert [line.split(" has no effect: ")[0] for line in lines] == ["--" + name for name in said]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--adversarial_sigma 1 --adversarial_bound 2 --reserve_p 0.3", ["reserve_p", "adversarial_sigma", "adversarial_bound"]),
        ("--adversarial_sigma 1 --adversarial_factor 0", ["adversarial_sigma"]),
        ("--adversarial_sigma 1 --adversarial_factor 1 --reserve_p 0.3 --child_tuning F", []),
        ("--fisher_batch_size 3", ["fisher_batch_size"]),
        ("--fisher_batch_size 3 --child_tuning F", ["fisher_batch_size"]),
        ("--fisher_batch_size 3 --child_tuning D", []),
    ],
)
def test_flags_without_the_one_that_they_belong_to(more, said):
    lines = []
    warn_without_effect(parse_flags("finetuning", argv=[*REQUIRED, *more.split()]), lines.append)
    assert sorted(line.split(" has no effect without --")[0] for line in lines) == sorted("--" + name for name in said)


_NOT_TRAINED = "no effect: this run does not train (--do_train is false)"
_ONE_PASS = "no effect: this script does not train"


@pytest.mark.parametrize(
    ("script", "more", "said"),
    [
        ("finetuning", "--do_train false --num_epochs 3 --dev_batch_size_per_device 2 --seed 1 --learning_rate 1e-4 --use_xla",
         [f"--num_epochs, --learning_rate have {_NOT_TRAINED}", "--use_xla has no effect: OneFlow no longer has an XLA engine"]),
        ("finetuning", "--do_eval --train_example_num 32", [f"--train_example_num has {_NOT_TRAINED}"]),
        ("finetuning", "--do_eval --do_train --num_epochs 3 --train_example_num 32", []),
        ("finetuning", "--do_train false --seq_length 20 --task_type regression --dev_example_num 3 --model_load_dir s", []),
        ("finetuning", "--do_train false --reserve_p 0.3 --adversarial_sigma 1", [f"--adversarial_sigma, --reserve_p have {_NOT_TRAINED}"]),
        ("meta_reptile", "--do_train false --support_num 3 --eval_tasks 2 --num_epochs 4",
         [f"--support_num, --eval_tasks have {_NOT_TRAINED}", "--num_epochs has no effect: --meta_steps is the length of a run"]),
        ("meta_distill", "--do_train false --student_model s --teacher_model t --temperature 2 --hidden_loss_weight 0 --use_domain_loss 0",
         [f"--hidden_loss_weight, --temperature, --use_domain_loss have {_NOT_TRAINED}"]),
        ("metric_learning", "--do_train false --objective prototypical", [f"--objective has {_NOT_TRAINED}"]),
        ("generation", "--do_train false --objective pretraining --mask_probability 0.2", [f"--mask_probability has {_NOT_TRAINED}"]),
        ("pretrain_mlm", "--do_train false --mask_probability 0.2 --corpus_file a", [f"--corpus_file has {_NOT_TRAINED}"]),
        ("meta_teacher_eval", "--hidden_loss_weight 0 --train_example_num 3 --data_portion 0.5 --use_domain_loss false", []),
        ("meta_teacher_eval", "--learning_rate 1e-5 --keep_all_best", [f"--learning_rate, --keep_all_best have {_ONE_PASS}"]),
        ("preprocess", "--train_example_num 3 --warmup_proportion 0.1", [f"--warmup_proportion has {_ONE_PASS}"]),
    ],
)  # fmt: skip
def test_flags_of_training_in_a_run_that_does_not_train(script, more, said):
    lines = []
    warn_without_effect(parse_flags(script, argv=[*REQUIRED, *more.split()]), lines.append)
    assert lines == said


def test_each_flag_of_training_is_known_as_such():
    """A new flag of these groups belongs either to training_flags.py or to those that a run without training uses, too."""
    always = {"auto_settings", "do_train", "do_eval", "seed", "pooling"}
    always.update(("mask_probability", "whole_word_masking", "max_predictions_per_seq"))
    for script in TRAINING:
        effective, training = [flag for flag in flags_of(script) if flag.has_effect], training_flags(script)
        here = {flag.name for flag in effective if flag.group in (OPTIMISATION, CORPUS, HALVES, META, PAIRS)}
        assert here - training <= always, script
        if script == META_DISTILL:
            assert {flag.name for flag in effective if flag.group == DISTILL} <= training | {
                "unlabelled"
            }  # it decides the length of --auto_settings
    found = {flag.name for script in SCRIPTS for flag in flags_of(script) if flag.has_effect and flag.name in training_flags(script)}
    assert found == set().union(*map(training_flags, SCRIPTS))


def test_learning_rates():
    assert [learning_rates(script) for script in ("meta_distill", "metric_learning")] == [["learning_rate"]] * 2
    assert learning_rates("meta_reptile") == ["inner_learning_rate", "outer_learning_rate"]


def test_the_command_line_does_not_import_the_model():
    code = "import sys, modeling.cli.flags_page, modeling.cli.flags; print([name for name in sys.modules if name.startswith('modeling.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert all(name.startswith("modeling.cli") for name in ast.literal_eval(done.stdout)), done.stdout


def test_run_folder():
    moment = time.strptime("2021-06-15 08:54:42", "%Y-%m-%d %H:%M:%S")
    assert run_folder_name("./output/model_save-%Y-%m-%d-%H:%M:%S", moment) == "./output/model_save-2021-06-15-08:54:42"


class _Snapshot:
    path = "somewhere"

    @staticmethod
    def config(head_size, num_heads, kind):
        return CONFIG


def sizes(*more):
    return parse_flags("preprocess", argv=REQUIRED + list(more))


def test_sizes_without_a_snapshot():
    assert resolve_config(sizes(), None) == BertConfig()
    config = resolve_config(sizes("--num_attention_heads", "3", "--hidden_size_per_head", "7", "--num_hidden_layers", "2"), None)
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (21, 84, 2)


def test_sizes_of_a_snapshot():
    assert resolve_config(sizes(), _Snapshot) == CONFIG
    assert resolve_config(sizes("--num_hidden_layers", "3", "--hidden_size_per_head", "5"), _Snapshot) == CONFIG
    assert resolve_config(sizes("--hidden_dropout_prob", "0.3"), _Snapshot).hidden_dropout_prob == 0.3
    with pytest.raises(UserError, match="--num_hidden_layers 12 contradicts somewhere, which has 3"):
        resolve_config(sizes("--num_hidden_layers", "12"), _Snapshot)


def test_pooling():
    """The flag chooses where no classifier has been trained; preprocess.py's own is that of the prototypes."""
    trained, encoder = SimpleNamespace(sizes=CLASSIFIER, path="learner"), SimpleNamespace(sizes=("bert-x",), path="encoder")
    for snapshot, own in ((trained, "mean"), (encoder, "cls")):
        snapshot.config = lambda head_size, num_heads, kind, own=own: dataclasses.replace(CONFIG, pooling=own)

    def pooling(snapshot, *more, script="finetuning"):
        return resolve_config(parse_flags(script, argv=REQUIRED + list(more)), snapshot).pooling

    assert pooling(None) == pooling(encoder) == "cls"
    assert pooling(trained) == "mean"
    assert pooling(None, "--pooling", "max") == pooling(encoder, "--pooling", "max") == "max"
    assert pooling(trained, "--pooling", "mean") == pooling(trained, "--pooling", "max", script="preprocess") == "mean"
    with pytest.raises(UserError, match="--pooling max contradicts learner, whose classifier was trained with mean: leave the flag out"):
        pooling(trained, "--pooling", "max")
    assert pooling(None, script="metric_learning") == pooling(encoder, script="metric_learning") == "mean"
    assert pooling(encoder, "--pooling", "cls", script="metric_learning") == "cls"
    trained.config = lambda head_size, num_heads, kind: dataclasses.replace(CONFIG, pooling="cls")
    assert pooling(trained, script="metric_learning") == "cls"
    assert parse_flags("preprocess", argv=REQUIRED).pooling == "mean"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_size": 21}, "not a multiple of num_attention_heads"),
        ({"hidden_act": "relu"}, "gelu"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"vocab_size": "99"}, "vocab_size"),
        ({"pooling": "sum"}, "pooling 'sum' is none of cls, mean, max, raw_cls, sqrt_length, sha, 2ha"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
        ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps must be a number"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps must be a number"),
        ({"initializer_range": -0.02}, "initializer_range must be a number of 0 or more"),
    ],
)
def test_bad_config(values, said):
    good = {"vocab_size": 99, "hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 52}
    assert BertConfig.from_dict(dict(good, unknown_key=1)).head_size == 5
    with pytest.raises(UserError, match=said):
        BertConfig.from_dict(dict(good, **values))
    with pytest.raises(UserError, match="lacks vocab_size"):
        BertConfig.from_dict({name: value for name, value in good.items() if name != "vocab_size"})
