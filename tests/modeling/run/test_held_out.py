"""modeling/run/held_out.py: which domains are held out, and how splits are divided."""

from types import SimpleNamespace

import numpy as np
import pytest

from modeling.run.held_out import divided, held_out_domains, held_out_name, other_domains, split_of, title_of
from ofrecord_util.errors import UserError
from ofrecord_util.records import Records
from ofrecord_util.tasks import Task

TASK = Task("t", ("books", "dvd", "Toys"), ("0", "1"))


def flags(*names):
    return SimpleNamespace(held_out_domains=list(names) or None)


def test_names():
    assert held_out_domains(flags(), TASK) == []
    assert held_out_domains(SimpleNamespace(), TASK) == []  # a script without the flag
    assert held_out_domains(flags("toys", "books", "books"), TASK) == [0, 2]
    assert other_domains([0, 2], TASK) == [1]
    with pytest.raises(UserError, match="--held_out_domains dvd,films: 'films' is none of the domains books, dvd, Toys"):
        held_out_domains(flags("dvd", "films"), TASK)
    with pytest.raises(UserError, match="--held_out_domains dvd,toys,books: no domain is left"):
        held_out_domains(flags("dvd", "toys", "books"), TASK)


def test_names_of_evaluations():
    assert split_of(held_out_name("dev")) == split_of("dev") == "dev"
    assert split_of("teacher_test_held_out") == "teacher_test"
    assert title_of("test_held_out") == "test, held-out domains"
    assert title_of("test") == "test"


def test_a_split_is_divided():
    ids, domain = np.ones((5, 3), np.int32), np.array([1, 0, 2, 1, 0], np.int32)
    weights = np.ones(5, np.float32)
    samples = Records(ids, ids, ids * 0, domain, domain * 0, np.arange(5, dtype=np.int32), weights).samples()
    seen = samples.select(np.array([0, 3]))
    parts = divided({"dev": samples, "test": seen}, [1], [0, 2])
    assert {name: part.idxs.tolist() for name, part in parts.items()} == {"dev": [0, 3], "dev_held_out": [1, 2, 4], "test": [0, 3]}
    assert divided({"dev": samples}, [0, 1, 2], [])["dev"] is samples
