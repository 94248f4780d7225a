"""modeling/run/meta_training.py: which graphs its estimate of the memory counts beside that of the inner loop."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import random_samples

from modeling.cli.flags import META_REPTILE, parse_flags
from modeling.run import meta_training
from modeling.run.meta_training import MetaTraining
from modeling.run.resources import Graph
from modeling.run.training_run import TrainingRun
from ofrecord_util.tasks import Task


class Chosen(Exception):
    """The layout is about to be chosen."""


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("", []),
        ("--child_tuning D --fisher_batch_size 3", [3]),
        ("--child_tuning F --fisher_batch_size 3", []),
        ("--child_tuning D --fisher_batch_size 3 --meta_method fomaml --query_num 2", [3, 2]),
    ],
)
def test_batches_of_another_size(monkeypatch, line, rows):
    """Batches of another size have a graph of their own, which stays in memory."""

    def choose(*_, **__):
        raise Chosen

    monkeypatch.setattr(TrainingRun, "__init__", lambda *_: None)
    monkeypatch.setattr(meta_training, "create_optimizer", lambda *_, **__: (None, None))
    monkeypatch.setattr(meta_training, "ChildTuning", lambda *_, **__: None)
    monkeypatch.setattr(MetaTraining, "_choose_layout", choose)
    flags = parse_flags(META_REPTILE, argv=["--task_name", "t", "--data_dir", "d", "--support_num", "4", *line.split()])
    samples = random_samples([3, 5, 2, 11, 4, 7])
    samples = dataclasses.replace(samples, domain=np.zeros_like(samples.domain))
    splits, bucketing = SimpleNamespace(source=lambda split: split), SimpleNamespace(graphs=[])
    context = SimpleNamespace(flags=flags, task=Task("t", ("a",), ("0", "1")), splits=splits, bucketing=bucketing)
    with pytest.raises(Chosen):
        MetaTraining(context, None, samples)
    assert bucketing.graphs == [Graph(True, count, min(16, samples.seq_length)) for count in rows]
