"""Scores of step 1 in the records: they stay with their samples, and those of other samples are refused."""

import os
import shutil

import numpy as np
import ofrecord_samples as samples
import pytest
import tiny
from split_data import ROWS, SCORES

from ofrecord_util.dataset import SCORES_MADE, SCORES_NEEDED
from ofrecord_util.errors import UserError
from ofrecord_util.scores import load_scores, save_scores, score_paths


def test_records_that_were_never_written_have_the_scores(data):
    data.score(SCORES, resave=False)
    shutil.copytree(data.path("train"), data.path("kept"))
    for name in ("train.of_record-0", "manifest.json"):
        os.remove(data.path("train", name))
    records = data.prepare(use_scores=SCORES_NEEDED)
    assert records.scored
    assert records.sample_weights.tolist() == SCORES.tolist()
    assert data.prepare().sample_weights.tolist() == SCORES.tolist()
    assert tiny.read_bytes(data.path("train", "train.of_record-0")) == tiny.read_bytes(data.path("kept", "train.of_record-0"))


def test_scores_reach_the_records_and_survive(data):
    """preprocess.py, then a step with and one without --resave_ofrecord."""
    data.score(SCORES, info={"alpha": 0.5})
    assert not any("weight.npy" in line for line in data.lines)
    for resave in (False, True, False):
        assert np.array_equal(data.prepare(resave=resave).sample_weights, SCORES)
    assert np.array_equal(data.prepare(resave=True, part_num=2, seq_length=6).sample_weights, SCORES)
    assert data.prepare("dev", resave=True).sample_weights.tolist() == [1] * 5
    records = data.prepare(resave=True, use_scores=SCORES_MADE)
    assert records.sample_weights.tolist() == [1] * 5
    assert not records.scored
    assert np.array_equal(data.prepare(part_num=2, seq_length=6).sample_weights, SCORES), "nothing is written before there are scores"


def test_scores_of_the_first_rows(data):
    data.score(SCORES[:3], example_num=3)
    for resave in (False, True):
        assert np.array_equal(data.prepare(resave=resave, example_num=3).sample_weights, SCORES[:3])
        assert np.array_equal(data.prepare(resave=resave, example_num=2).sample_weights, SCORES[:2])
        for more in (4, 9, None):
            with pytest.raises(UserError, match=r"3 scores of text .* needed are [45] of text .*preprocess.py"):
                data.prepare(resave=resave, example_num=more)


def test_scores_of_other_samples(data):
    data.score(SCORES)
    samples.text(data.folder, ROWS[1:] + ROWS[:1])
    with pytest.raises(UserError, match=r"5 scores of text .* needed are 5 of text .*preprocess.py again with --resave"):
        data.prepare(resave=True)
    data.score(SCORES)  # preprocess.py itself can go on
    data.prepare(resave=True)


def test_scores_that_differ_from_the_records(data):
    records = data.prepare(resave=True)
    save_scores(data.folder, SCORES, records.text_digest)
    with pytest.raises(UserError, match=r"not the scores of weight.npy.*--resave_ofrecord"):
        data.prepare()
    data.prepare(resave=True)
    data.prepare()


def test_scores_that_were_removed(data):
    data.score(SCORES)
    os.remove(score_paths(data.folder)[0])
    records = data.prepare()
    assert np.array_equal(records.sample_weights, SCORES)
    assert not records.scored
    assert data.prepare(resave=True).sample_weights.tolist() == [1] * 5


def test_scores_without_text_or_manifest(data):
    """Records of the earlier implementation: what they were made from stays unknown, the scores still bind."""
    data.prepare(resave=True)
    os.remove(data.path("train", "manifest.json"))
    os.remove(os.path.join(data.folder, "train.csv"))
    data.score(SCORES, resave=False)
    records = data.prepare()
    assert np.array_equal(records.sample_weights, SCORES)
    assert records.manifest["vocab_digest"] is None
    assert np.array_equal(load_scores(data.folder, records.text_digest, 5), SCORES)


def test_scores_follow_row_numbers(data):
    order = np.array([3, 0, 4, 1, 2])
    data.score(SCORES, order=order)
    assert np.array_equal(data.prepare().sample_weights, SCORES)
    with pytest.raises(UserError, match="idxs of the 2 used records are not 0 to 1"):
        data.score(SCORES, order=order[:2])


def test_scores_that_were_made_again(data):
    """A preprocess.py that dies before the records have the new scores."""
    data.score(SCORES)
    save_scores(data.folder, SCORES[::-1], data.prepare().text_digest)
    with pytest.raises(UserError, match=r"not the scores of weight.npy.*--resave_ofrecord"):
        data.prepare()
    assert np.array_equal(data.prepare(resave=True).sample_weights, SCORES[::-1])


def test_which_records_are_scored(data):
    for resave in (True, False):
        assert not data.prepare(resave=resave).scored
    data.score(SCORES)
    for resave in (True, False):
        assert data.prepare(resave=resave).scored
        assert not data.prepare("dev", resave=True).scored
