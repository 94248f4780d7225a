"""modeling/run/student.py: the student's layers, the factors of the loss terms, and the refusals."""

import dataclasses

import numpy as np
import pytest
from tiny_model import CONFIG, documented

from modeling.bert.names import CLASSIFIER
from modeling.bert.variables import encoder_shapes, load_values
from modeling.checkpoints.snapshot import Snapshot, write_variables
from modeling.cli.flags import META_DISTILL, META_TEACHER_EVAL, parse_flags
from modeling.objectives.distillation import LossWeights
from modeling.run.student import (
    LayerSelection,
    check_heads,
    choose_loss_weights,
    describe_mapping,
    describe_unlabelled,
    layer_mapping,
    prepare_unlabelled,
    student_depth,
    teacher_folder,
    without_constant_terms,
)
from ofrecord_util.errors import UserError

# Layers


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (6, 12, (1, 3, 5, 7, 9, 11)),
        (4, 12, (2, 5, 8, 11)),
        (3, 6, (1, 3, 5)),
        (6, 6, (0, 1, 2, 3, 4, 5)),
        (1, 12, (11,)),
        (5, 12, (1, 4, 6, 9, 11)),  # 1.4, 3.8, 6.2, 8.6, 11
        (4, 6, (1, 2, 4, 5)),  # 0.5, 2, 3.5, 5
        (6, 3, (0, 0, 1, 1, 2, 2)),  # a student deeper than its teacher
    ],
)
def test_layer_mapping(student, teacher, expected):
    assert layer_mapping(student, teacher) == expected
    said = describe_mapping(expected, teacher, "teacher")
    assert ("does not divide" in said) == (teacher % student != 0)
    assert ", ".join(map(str, expected)) in said
    assert str(teacher) in said


def test_the_mapping_is_the_nearest_layer_of_the_formula():
    for teacher in range(1, 25):
        for student in range(1, 25):
            mapping = layer_mapping(student, teacher)
            exact = [(m + 1) * teacher / student - 1 for m in range(student)]
            assert all(abs(layer - max(0, x)) <= 0.5 + 1e-9 for layer, x in zip(mapping, exact))
            assert mapping[-1] == teacher - 1
            assert len(mapping) == student
            assert list(mapping) == sorted(mapping)
            if student <= teacher:
                assert len(set(mapping)) == student


def test_student_depth():
    assert student_depth(None, 12, "s") == 6
    assert student_depth(None, 4, "s") == 4
    assert student_depth(3, 12, "s") == 3
    with pytest.raises(UserError, match="--student_num_hidden_layers 13: s has 12 encoder layers, give 1 to 12"):
        student_depth(13, 12, "s")


def test_a_student_starts_from_some_layers(tmp_path):
    write_variables(str(tmp_path / "six"), documented("weight"))
    snapshot = Snapshot(str(tmp_path / "six"))
    chosen = LayerSelection(snapshot, (0, 2))
    shallow = dataclasses.replace(CONFIG, num_hidden_layers=2)
    values = load_values(encoder_shapes(shallow), chosen, seed=1, log=lambda line: None)
    for name in encoder_shapes(shallow):
        own = documented("weight")[name.replace("layer_1", "layer_2")]
        assert np.array_equal(values[name].ravel(), own.ravel()), name


def test_a_student_with_the_classifier_of_another_task(tmp_path):
    """Its classifier has other labels, so it is replaced; its layers are read as always."""
    variables = {**documented("weight"), CLASSIFIER[0]: np.ones((3, CONFIG.hidden_size), np.float32)}
    write_variables(str(tmp_path / "six"), variables)
    shapes = {CLASSIFIER[0]: (2, CONFIG.hidden_size)}
    chosen = LayerSelection(Snapshot(str(tmp_path / "six")), (0, 2))
    weights = load_values({**encoder_shapes(CONFIG.of_layers((0, 2))), **shapes}, chosen, 1, restart=[CLASSIFIER[0]], log=lambda line: None)
    assert not np.isin(weights[CLASSIFIER[0]], 1).any()


# Loss terms


def weights_of(*argv, script=META_DISTILL):
    required = ["--task_name", "senti", "--data_dir", "d"]
    required += ["--teacher_model", "t", "--student_model", "s"] if script == META_DISTILL else []
    return choose_loss_weights(parse_flags(script, argv=required + list(argv)))


def test_weights_of_the_flags():
    assert weights_of() == (1, 1, 1, 1, 0.2, 0)
    assert weights_of("--pred_distill", "--relation_loss_weight", "0") == (0, 0, 1, 0, 0, 0)
    assert weights_of("--use_domain_loss", "false", "--hidden_loss_weight", "0.5") == (0.5, 1, 1, 1, 0, 0)
    assert weights_of("--label_loss_weight", "0", "--prediction_loss_weight", "2", "--domain_loss_weight", "3") == (1, 1, 2, 0, 3, 0)
    assert weights_of("--relation_loss_weight", "0.5", script=META_TEACHER_EVAL).relation == 0.5
    assert weights_of("--attention_loss_weight", "0", script=META_TEACHER_EVAL)[:2] == (1, 0)
    assert weights_of("--pred_distill", script=META_TEACHER_EVAL) == (0, 0, 1, 0, 0, 0)
    with pytest.raises(UserError, match="--relation_loss_weight 2: --pred_distill leaves this term out"):
        weights_of("--pred_distill", "--relation_loss_weight", "2", script=META_TEACHER_EVAL)
    with pytest.raises(UserError, match="the weights of all loss terms are 0"):
        weights_of("--pred_distill", "--prediction_loss_weight", "0")


@pytest.mark.parametrize("value", ["0", "-1", "x", "nan", "inf"])
def test_temperature_is_above_zero(value, capsys):
    with pytest.raises(SystemExit) as end:
        weights_of("--temperature", value)
    assert end.value.code == 2
    assert "--temperature" in capsys.readouterr().err


def test_terms_of_frozen_layers():
    weights, lines = LossWeights(0.7, 1.3, 0.9, 1.1, 0.2, 0.4), []
    assert without_constant_terms(weights, 0, 3, lines.append) == weights
    assert not lines
    assert without_constant_terms(weights, 2, 3, lines.append) == weights
    assert without_constant_terms(weights, 3, 3, lines.append) == weights._replace(hidden=0, attention=0, relation=0)
    assert ["below 2 are frozen" in lines[0], "all layers of the student are frozen" in lines[1]] == [True, True]
    with pytest.raises(UserError, match="--freeze_encoder, --freeze_layers"):
        without_constant_terms(LossWeights(0.7, 1.3, 0.0, 0.0, 0.0), 3, 3, lines.append)
    relations = LossWeights(0.0, 0.0, 1.0, 0.0, 0.0, 0.4)
    assert without_constant_terms(relations, 2, 3, lines.append) == relations
    assert without_constant_terms(relations, 3, 3, lines.append) == relations._replace(relation=0)
    assert "the terms of hidden states, attention scores and relations are left out" in lines.pop()


def test_relations_need_as_many_heads():
    weights, wider = LossWeights(1.0, 1.0, 1.0, 1.0, 0.2, 0.5), dataclasses.replace(CONFIG, hidden_size=32)
    check_heads(weights, CONFIG, wider)
    other = dataclasses.replace(CONFIG, num_attention_heads=5)
    check_heads(weights._replace(relation=0.0), CONFIG, other)
    said = "--relation_loss_weight 0.5: .* the student has 5 attention heads and the teacher 4: give --relation_loss_weight 0 or"
    with pytest.raises(UserError, match=said):
        check_heads(weights, other, CONFIG)


def parsed(*argv):
    required = ["--task_name", "senti", "--data_dir", "d", "--teacher_model", "t", "--student_model", "s"]
    return parse_flags(META_DISTILL, argv=[*required, *argv])


def test_unlabelled_text_has_no_terms_with_labels():
    flags = parsed()
    prepare_unlabelled(flags)
    assert (flags.label_loss_weight, flags.use_sample_weights) == (1.0, True)
    flags = parsed("--unlabeled", "--label_loss_weight", "0")
    prepare_unlabelled(flags)
    assert (flags.label_loss_weight, flags.use_sample_weights) == (0.0, False)
    line = describe_unlabelled(choose_loss_weights(flags))
    assert line.startswith("--unlabelled: terms of the loss, with their weights: hidden 1, attention 1, prediction 1, knowledge 0.2; ")
    for words, said in (
        (["--label_loss_weight", "0.5"], "give --label_loss_weight 0$"),
        (["--use_sample_weights"], "give --use_sample_weights false"),
    ):
        with pytest.raises(UserError, match=f"--unlabelled: the text has no labels, .* {said}"):
            prepare_unlabelled(parsed("--unlabelled", *words))


# The teacher


def test_teacher_folder(tmp_path):
    assert teacher_folder(str(tmp_path), "--teacher_model") == str(tmp_path)
    for path, said in ((None, "--teacher_model is needed"), (str(tmp_path / "x"), "x: no such snapshot folder")):
        with pytest.raises(UserError, match=said + ".*run meta_teacher.py"):
            teacher_folder(path, "--teacher_model")
