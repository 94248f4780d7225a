"""modeling/cli/flag_kinds.py in the flags of all scripts: which numbers have limits, and which have none."""

import itertools
import re

import pytest

from modeling.cli.flag_kinds import non_negative_float, non_negative_int, positive_float, positive_int
from modeling.cli.flag_table import FLAGS
from modeling.cli.flags import SCRIPTS, learning_rates, parse_flags

REQUIRED = ["--task_name", "g1", "--data_dir", "d"]


def test_adversarial_steps_have_limits(capsys):
    for flag in ("adversarial_factor", "adversarial_sigma", "adversarial_bound"):
        assert getattr(parse_flags("finetuning", argv=[*REQUIRED, f"--{flag}", "1e3"]), flag) == 1000
        with pytest.raises(SystemExit):
            parse_flags("finetuning", argv=[*REQUIRED, f"--{flag}", "1001"])
        assert f"--{flag}: 1001 is more than 1,000" in capsys.readouterr().err


# Flags of integers that may be any: periods, ends and parts of something, the seed, and numbers that are compared with the data or the
# model before they are used
ANY_INTEGER = {
    *("dev_every_step_num", "eval_every_step_num", "loss_print_every_n_iter", "model_save_every_n_iter", "state_save_every_n_iter"),
    *("max_steps", "early_stop_patience", "seed", "num_nodes", "shuffle_window", "max_predictions_per_seq"),
    *("train_example_num", "dev_example_num", "eval_example_num", "test_example_num", "generate_example_num"),
    *("num_epochs", "texts_per_row", "freeze_layers", "min_length", "max_length"),
    *("num_hidden_layers", "student_num_hidden_layers", "dec_hidden_layers", "num_attention_heads", "hidden_size_per_head"),
    *("max_position_embeddings", "type_vocab_size", "vocab_size"),
}


def test_other_integers_have_limits():
    unlimited = {flag.name for flag in FLAGS if flag.has_effect and flag.kind in (positive_int, non_negative_int)}
    assert unlimited == ANY_INTEGER


def test_other_numbers_have_limits():
    """Of those that may be any, a learning rate is named by the message about a loss that is not finite, and others are amounts."""
    unlimited = {flag.name for flag in FLAGS if flag.has_effect and flag.kind in (positive_float, non_negative_float)}
    amounts = {"memory_limit", "rank_timeout"}
    assert unlimited - amounts == {name for script in SCRIPTS for name in learning_rates(script)}


@pytest.mark.parametrize(("script", "flags"), [("metric_learning", "distance_scale logistic_c"), ("meta_distill", "temperature")])
def test_scales_have_a_lower_limit(script, flags, capsys):
    """They divide too: in float32, 1e-300 is 0."""
    required = [*REQUIRED, "--teacher_model", "t", "--student_model", "s"] if script == "meta_distill" else REQUIRED
    for flag in flags.split():
        assert getattr(parse_flags(script, argv=[*required, f"--{flag}", "1e-6"]), flag) == 1e-6
        for value in ("0", "1e-300"):
            with pytest.raises(SystemExit):
                parse_flags(script, argv=[*required, f"--{flag}", value])
            assert f"error: argument --{flag}: {value} is not 1e-06 or more" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["1e-300,1e-300", "1e39,1", "-1,1", "nan,1", "inf,1", "0,0", "x"])
def test_class_weights_that_float32_does_not_hold(value, capsys):
    with pytest.raises(SystemExit):
        parse_flags("finetuning", argv=["--task_name", "t", "--data_dir", "d", f"--class_weights={value}"])
    assert f"argument --class_weights: '{value}'" in capsys.readouterr().err
    flags = parse_flags("finetuning", argv=["--task_name", "t", "--data_dir", "d", "--class_weights", "0,1e-6,1e6"])
    assert flags.class_weights == [0.0, 1e-6, 1e6]


@pytest.mark.parametrize(
    ("scripts", "flags", "most"),
    [
        ("finetuning", "batch_size_per_device", 65_536),
        ("finetuning", "ctrl_port", 65_535),
        ("generation", "beam_size", 1024),
        ("generation", "length_penalty", 10),
        ("meta_distill", "hidden_loss_weight attention_loss_weight prediction_loss_weight relation_loss_weight label_loss_weight", 10**6),
        ("meta_finetuning meta_teacher meta_distill", "domain_loss_weight", 10**6),
        ("finetuning metric_learning", "consistency_weight", 10**6),
        ("pretrain_discriminator", "discriminator_weight", 10**6),
        ("metric_learning", "distance_scale logistic_c", 10**6),
        ("meta_distill", "temperature", 10**6),
        ("finetuning meta_distill meta_reptile", "weight_decay_rate", 1000),
        ("meta_reptile", "outer_weight_decay", 1000),
        ("finetuning meta_distill pretrain_mlm metric_learning sequence_labeling generation", "gradient_accumulation_steps", 65_536),
        ("finetuning preprocess", "cpu_lanes", 256),
        ("pretrain_pairs", "batch_size_per_device", 65_536),
        ("meta_reptile", "meta_steps", 10**7),
        ("metric_learning", "num_steps", 10**7),
        ("meta_reptile", "tasks_per_step support_num query_num inner_steps inner_epochs eval_inner_steps", 65_536),
        ("metric_learning", "support_num query_num episode_labels", 65_536),
        ("span_answering", "doc_stride max_query_length n_best_size max_answer_length", 65_536),
    ],
)
def test_numbers_have_an_upper_limit(scripts, flags, most, capsys):
    """The largest value is allowed. One line names the flag of a larger one."""
    for script, flag in itertools.product(scripts.split(), flags.split()):
        required = [*REQUIRED, "--teacher_model", "t", "--student_model", "s"] if script == "meta_distill" else REQUIRED
        assert getattr(parse_flags(script, argv=[*required, f"--{flag}", str(most)]), flag) == most
        for value in (str(most + 1), str(2**63 - 1), "9" * 400):
            with pytest.raises(SystemExit) as end:
                parse_flags(script, argv=[*required, f"--{flag}", value])
            assert end.value.code == 2
            said = capsys.readouterr().err
            assert re.match(rf"error: argument (--\w+/)*--{flag}: ({value} is more than {most:,}|{value} is not a finite number) ", said), (
                said
            )
            assert said.count("\n") == 1
