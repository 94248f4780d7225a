"""The rules of benchmarks/learners.py by themselves: differences and intervals, tables, the choice of rates, arms."""

import numpy as np
import pytest

from benchmarks import learners_arms, learners_jobs, learners_report, learners_unseen

# Statistics


def test_paired_differences():
    """Only cells that both arms have count; the mean of the domains is their plain mean."""

    def results(*values, above=2.0):
        return {cell: learners_jobs.Result({"a": value, "b": value + above}, 10, 1.0) for cell, value in values}

    cells = [learners_jobs.Cell("16-42", seed) for seed in (42, 43, 44, 45)]
    found = {"mixing": results((cells[0], 70.0), (cells[1], 71.0), (cells[2], 73.0))}
    found["x"] = results((cells[0], 71.0), (cells[2], 73.5), above=3.0)
    found["x"][cells[3]] = learners_jobs.Result({"a": 1.0, "b": 1.0}, 10, 1.0)
    differences = learners_report.paired_differences(found, "x", "mixing")
    assert {cell: value["mean"] for cell, value in differences.items()} == {cells[0]: 1.5, cells[2]: 1.0}
    (row,) = learners_report.paired_table(found, ("a", "b"), "mixing").rows
    # 12.7062 * (0.5 / sqrt(2)) / sqrt(2) = 3.18 over the cells, and twice that over the domains, whose means are 0.75 and 1.75
    assert row == ["x", "+0.8 [-2.4, +3.9]", "+1.8 [-1.4, +4.9]", "+1.2 [-1.9, +4.4]", "+1.2 [-5.1, +7.6]", "2"]
    assert learners_report.paired_table({"mixing": found["mixing"]}, ("a", "b"), "mixing") is None


def test_the_tables_and_the_page_show_every_arm():
    cells = [learners_jobs.Cell("16-42", seed) for seed in (42, 43)]
    found = {arm: {cell: learners_jobs.Result({"a": 70.0 + cell.seed % 2}, 1920, 3.0) for cell in cells} for arm in ("mixing", "<x>")}
    table = learners_report.accuracy_table(found, ("a",))
    assert table.rows[0] == ["mixing", "70.5", "70.5 [64.1, 76.9]", "2", "1,920", "3"]
    text = learners_report.page("title", "about", [table])
    assert "&lt;x&gt;" in text
    assert "<x>" not in text
    lines = learners_report.markdown([table])
    assert sum(line.startswith("| mixing |") for line in lines) == 1


# Arms and rates


def test_rate_with_the_best_dev_accuracy_then_the_lower_cross_entropy():
    grid = ("2e-5", "5e-5", "1e-4")
    assert learners_jobs.best_rate(grid, [(0.7, -0.6), (0.8, -0.9), (0.75, -0.1)]) == "5e-5"
    assert learners_jobs.best_rate(grid, [(0.8, -0.6), (0.8, -0.5), (0.8, -0.7)]) == "5e-5"
    assert learners_jobs.best_rate(grid, [(0.8, -0.5), (0.8, -0.5), (0.7, -0.1)]) == "2e-5"


def test_dev_counts_where_it_is_best():
    rows = [{"kind": "dev", "accuracy": a, "cross_entropy": c} for a, c in ((0.7, 0.5), (0.8, 0.7), (0.8, 0.6), (0.75, 0.4))]
    assert learners_jobs.best_dev([*rows, {"kind": "test", "accuracy": 1.0, "cross_entropy": 0.0}]) == (0.8, -0.6)


@pytest.mark.parametrize(
    ("command", "passes"),
    [
        ("recipes/domain_mixing.py --batch_size_per_device 8 --num_epochs 20", 1920),
        ("recipes/domain_mixing.py --batch_size_per_device 8 --num_epochs 20 --consistency_weight 1", 3840),
        ("recipes/domain_mixing.py --batch_size_per_device 8 --num_epochs 20 --child_tuning D", 2016),
        ("recipes/metric_learning.py --batch_size_per_device 16", 7680),
        ("recipes/metric_learning.py --objective prototypical --episodes_per_step 1 --support_num 5 --query_num 5", 4800),
        ("recipes/meta_reptile.py --meta_method reptile --tasks_per_step 4 --inner_steps 5 --inner_batch_size 8 --query_num 7", 38400),
        ("recipes/meta_reptile.py --meta_method fomaml --tasks_per_step 4 --inner_steps 5 --inner_batch_size 8 --query_num 7", 45120),
        ("benchmarks/workers/torch_setfit.py --pairs 16", 7680),
    ],
)
def test_sample_passes(command, passes):
    assert learners_arms.sample_passes(command.split(), [{"kind": "train", "step": 7}, {"kind": "train", "step": 240}]) == passes
    assert learners_arms.sample_passes(command.split(), []) == 0


def test_stages_of_equal_names_are_equal():
    """Arms share the folders of stages by their names."""
    unseen = learners_arms.unseen_arms(learners_arms.UNSEEN).values()
    for chains in (
        learners_arms.arms(learners_arms.FEW).values(),
        [(*arm.first, learners_arms.adaptation(16, arm.adapted)) for arm in unseen],
    ):
        known = {}
        for stage in (stage for chain in chains for stage in chain):
            assert known.setdefault(stage.name, stage) == stage


def test_intervals_of_domains_are_over_their_means():
    found = {("a", "1", 42): 60.0, ("a", "2", 42): 70.0, ("b", "1", 42): 80.0}
    assert learners_unseen.domain_means(found) == {"a": 65.0, "b": 80.0}
    assert np.mean(list(found.values())) != np.mean([65.0, 80.0])
