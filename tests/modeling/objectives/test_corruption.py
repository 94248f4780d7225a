"""modeling/objectives/corruption.py: how corrupted domains are sampled, and their loss against NumPy."""

import numpy as np
from tiny_model import NUM_DOMAINS, log_softmax, run_graph

from modeling.engine.runtime import flow
from modeling.objectives.corruption import (
    corrupted_domain_accuracy,
    corrupted_domain_loss,
    corrupted_domains,
    corruption_targets,
    other_domains,
    with_corrupted_domains,
)


def test_corrupted_domains_are_uniform_over_the_others():
    count, k = 6000, 4
    domain = np.tile(np.arange(k), count)
    sampled = corrupted_domains(domain, k, seed=42, step=3)
    assert sampled.dtype == np.int32
    assert sampled.shape == domain.shape
    assert sampled.min() == 0
    assert sampled.max() == k - 1
    assert not (sampled == domain).any()
    for true in range(k):
        counts = np.bincount(sampled[domain == true], minlength=k)[[d for d in range(k) if d != true]]
        expected = count / (k - 1)
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < 13.8  # 2 degrees of freedom, p = 0.001; the seed is fixed


def test_corrupted_domains_are_a_function_of_seed_and_step():
    domain = np.arange(60) % 5
    first = corrupted_domains(domain, 5, 42, 7)
    np.random.seed(0)  # the global state must not matter
    np.testing.assert_array_equal(first, corrupted_domains(domain, 5, 42, 7))
    for seed, step in ((42, 8), (43, 7), (7, 42)):
        assert (first != corrupted_domains(domain, 5, seed, step)).mean() > 0.4


def test_corrupted_domains_with_two_domains_and_with_one():
    np.testing.assert_array_equal(corrupted_domains(np.array([0, 1, 1]), 2, 1, 0), [1, 0, 0])
    alone = corrupted_domains(np.zeros(3, np.int64), 1, 1, 0)
    assert alone.tolist() == [0, 0, 0]
    assert alone.dtype == np.int32


def test_other_domains():
    others = other_domains(np.array([0, 2, 1]), 4)
    assert others.dtype == np.int32
    assert [sorted(row) for row in others.tolist()] == [[1, 2, 3], [0, 1, 3], [0, 2, 3]]
    assert other_domains(np.array([0, 0]), 1).tolist() == [[0], [0]]


def test_corrupted_domains_are_sampled_per_step():
    batches = [{"domain": np.array([0, 1, 2, 3] * 4, np.int32), "label": np.full(16, step)} for step in range(3)]
    whole = list(with_corrupted_domains(batches, NUM_DOMAINS, seed=8))
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(batch["corrupted_domain"], corrupted_domains(batch["domain"], NUM_DOMAINS, 8, step)[:, None])
        assert (batch["label"] == step).all()
    assert "corrupted_domain" not in batches[0]
    continued = list(with_corrupted_domains(batches[1:], NUM_DOMAINS, seed=8, start_step=1))
    for one, other in zip(whole[1:], continued):
        np.testing.assert_array_equal(one["corrupted_domain"], other["corrupted_domain"])


def test_held_out_domains_are_no_targets():
    domain = np.array([1, 3, 4] * 20, np.int32)
    (batch,) = with_corrupted_domains([{"domain": domain}], 5, seed=8, domains=[1, 3, 4])
    assert batch["corrupted_domain"].shape == (60, 1)
    assert batch["corrupted_domain"].dtype == np.int32
    for true in (1, 3, 4):
        assert set(batch["corrupted_domain"][domain == true, 0]) == {1, 3, 4} - {true}
    (batch,) = with_corrupted_domains([{"domain": domain[:3]}], 5, seed=8, corruption="all", domains=[1, 3, 4])
    assert [sorted(row) for row in batch["corrupted_domain"].tolist()] == [[3, 4], [1, 4], [1, 3]]


def test_all_other_domains_per_batch():
    domain = np.array([3, 0, 1], np.int32)
    (batch,) = with_corrupted_domains([{"domain": domain}], NUM_DOMAINS, seed=8, corruption="all")
    np.testing.assert_array_equal(batch["corrupted_domain"], other_domains(domain, NUM_DOMAINS))


def test_targets_loss_and_accuracy():
    """Two layers, two corrupted domains per sample."""
    rows = 4
    first, second = (2 * np.random.RandomState(11).randn(2, rows, NUM_DOMAINS)).astype(np.float32)
    z = np.array([[1, 2], [3, 0], [0, 1], [2, 2]], np.int32)
    loss_mask = np.array([1, 1, 1, 0], np.float32) * 4 / 3

    def terms(variables, first, second, z, loss_mask):
        logits, targets = flow.cat([first, second], dim=0), corruption_targets(z, NUM_DOMAINS)
        return targets, corrupted_domain_loss(logits, targets), corrupted_domain_accuracy(logits, targets, loss_mask)

    targets, losses, hits = run_graph(terms, {"first": first, "second": second, "z": z, "loss_mask": loss_mask})
    expected = np.eye(NUM_DOMAINS)[z].mean(axis=1)
    np.testing.assert_array_equal(targets, expected)
    assert losses.shape == (rows,)
    of_layers = [-(log_softmax(part) * expected).sum(axis=1) for part in (first, second)]
    np.testing.assert_allclose(losses, np.mean(of_layers, axis=0), rtol=0, atol=5e-6)
    at_largest = [expected[np.arange(rows), part.argmax(axis=1)] for part in (first, second)]
    np.testing.assert_allclose(hits, np.mean(at_largest, axis=0)[:3].mean(), rtol=0, atol=1e-6)
