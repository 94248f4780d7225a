"""--auto_settings: a table of cases for its rule, and the warning of a run that hardly trains."""

import math

import pytest

from modeling.cli.flag_table import AUTO_RULE
from modeling.run import auto_settings
from modeling.run.auto_settings import Known, choose_settings, describe_settings, weak_training_warning


def chosen(rows, hidden=384, given=None, **known):
    return choose_settings(Known(rows=rows, labels=2, hidden_size=hidden, positions=512, **known), given or {})


@pytest.mark.parametrize(
    ("rows", "batch", "epochs"),
    # the smallest numbers of epochs of which batch * 300 steps are reached, from 3 to 10
    [(2, 4, 10), (32, 4, 10), (96, 4, 10), (199, 4, 7), (200, 8, 10), (500, 8, 5), (999, 8, 3), (1000, 16, 5), (6480, 32, 3)],
)
def test_epochs_and_batches(rows, batch, epochs):
    found = chosen(rows)
    assert (found["batch_size_per_device"], found["num_epochs"]) == (batch, epochs)
    assert found["num_epochs"] == min(10, max(3, math.ceil(300 * batch / rows)))


@pytest.mark.parametrize(("hidden", "rate"), [(128, 3e-4), (256, 2e-4), (384, 1e-4), (512, 6e-5), (768, 4e-5), (1024, 2e-5), (4096, 1e-5)])
def test_learning_rates(hidden, rate):
    assert chosen(100, hidden)["learning_rate"] == rate
    assert chosen(100, hidden, frozen=True)["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    ("lengths", "seq_length"),
    [
        ([3] * 100, 32),
        ([32] * 100, 32),
        ([33] * 100, 64),
        ([10] * 95 + [200] * 5, 32),
        ([10] * 94 + [200] * 6, 256),
        ([512] * 10, 256),
        ([], 128),
    ],
)
def test_lengths(lengths, seq_length):
    assert chosen(100, lengths=lengths)["seq_length"] == seq_length
    assert chosen(100, lengths=lengths, stored_length=77)["seq_length"] == 77
    known = Known(rows=9, labels=2, hidden_size=128, positions=40, lengths=lengths)
    assert choose_settings(known, {})["seq_length"] == min(seq_length, 40)


def test_what_is_given_stays_and_the_rest_follows_from_it():
    assert chosen(96, given={"batch_size_per_device": 16})["num_epochs"] == 10
    assert chosen(960, given={"batch_size_per_device": 32})["num_epochs"] == 10
    given = {"seq_length": 99, "num_epochs": 2, "learning_rate": 7e-5, "warmup_proportion": 0.3, "evaluation_period": 5}
    assert chosen(96, given=given) == {**given, "batch_size_per_device": 4}


def test_samples_of_a_step_are_divided_among_devices():
    for replicas, batch in ((1, 32), (2, 16), (4, 8), (64, 1)):
        found = chosen(10000, replicas=replicas)
        assert found["batch_size_per_device"] == batch
        assert found["num_epochs"] == 3


@pytest.mark.parametrize(("rows", "period"), [(32, 8), (96, 24), (10, 3), (2, 1)])
def test_ten_evaluations(rows, period):
    found = chosen(rows)
    assert found["evaluation_period"] == period
    steps = math.ceil(rows * found["num_epochs"] / found["batch_size_per_device"])
    assert math.ceil(steps / period) <= 10


def test_what_is_said():
    known = Known(rows=96, labels=3, hidden_size=384, positions=512, lengths=[20])
    line = describe_settings(known, choose_settings(known, {}), {}, "dev_every_step_num", True)
    assert line == (
        "--auto_settings: 96 training rows, 3 labels, hidden size 384: --seq_length 32 --batch_size_per_device 4 --num_epochs 10 "
        "--learning_rate 0.0001 --warmup_proportion 0.1 --dev_every_step_num 24"
    )
    given = {"seq_length": 20, "num_epochs": 1}
    assert "--seq_length" not in describe_settings(known, choose_settings(known, given), given, "dev_every_step_num", True)
    assert describe_settings(known, choose_settings(known, {}), {}, "x", False).endswith("hidden size 384: --seq_length 32")
    assert describe_settings(known, choose_settings(known, given), given, "x", False).endswith("all settings are given")


def test_the_written_rule_has_the_numbers_of_the_code():
    numbers = [
        auto_settings._STEPS,
        auto_settings._MOST_EPOCHS,
        auto_settings._LARGEST_BATCH,
        auto_settings._RATE_WIDTH,
        auto_settings._EVALUATIONS,
        auto_settings._WARMUP,
        *auto_settings.SEQ_LENGTHS,
        *(number for pair in auto_settings._BATCHES for number in pair),
    ]
    assert [number for number in numbers if f"{number:,}" not in AUTO_RULE] == []


@pytest.mark.parametrize(
    ("steps", "loss", "labels", "parts"),
    [
        (49, 0.4, 2, ["only 49 steps"]),
        (49, 0.3, 2, []),  # 0.5 ln 2 = 0.3466
        (50, 0.1, 2, []),
        (50, 0.62, 2, []),  # 0.9 ln 2 = 0.6238
        (50, 1.153, 2, ["its last cross-entropy on training rows, 1.153, is above that of guessing (ln 2 = 0.693)"]),
        (50, 0.63, 2, ["its last cross-entropy on training rows, 0.630, is near that of guessing (ln 2 = 0.693)"]),
        (50, 0.99, 3, ["(ln 3 = 1.099)"]),
        (50, 0.98, 3, []),
        (9, 0.69, 2, ["only 9 steps and its last cross-entropy"]),
        (9, None, 2, ["only 9 steps"]),
        (90, None, 2, []),
    ],
)
def test_runs_that_hardly_train(steps, loss, labels, parts):
    warning = weak_training_warning(steps, loss, labels)
    if not parts:
        assert warning is None
        return
    assert all(part in warning for part in [*parts, "--auto_settings", "--num_epochs"])
