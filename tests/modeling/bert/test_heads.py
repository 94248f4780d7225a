"""modeling/bert/heads.py: logits of the label and domain classifiers against NumPy, the choice of layers."""

import numpy as np
import pytest
from tiny_model import BATCH, CONFIG, KERNELS, LENGTH, NUM_DOMAINS, documented, domain_head, golden_batch, run_graph

from modeling.bert.heads import (
    check_domain_layers,
    classification_logits,
    default_domain_layers,
    domain_logits,
    domain_representation,
)
from modeling.bert.names import DOMAIN_HEAD
from ofrecord_util.errors import UserError


def test_classifier():
    pooled = np.random.RandomState(0).randn(BATCH, CONFIG.hidden_size).astype(np.float32)
    values = documented("weight")
    found = run_graph(lambda variables, pooled: classification_logits(variables, KERNELS["cpu"], pooled), {"pooled": pooled}, values)
    expected = pooled @ values["classification-output_weights"].T + values["classification-output_bias"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_domain_classifier():
    """W_dom (masked mean of h_l + E_dom(d)) + b_dom, layer by layer."""
    first, second = np.random.RandomState(1).randn(2, BATCH, LENGTH, CONFIG.hidden_size).astype(np.float32)
    domain = np.array([3, 0, 2], np.int32)
    mask = golden_batch()["input_mask"]

    def both(variables, first, second, mask, domain):
        representation = domain_representation(variables, [first, second], mask, domain)
        return representation, domain_logits(variables, representation)

    head = domain_head()
    representation, logits = run_graph(both, {"first": first, "second": second, "mask": mask, "domain": domain}, head)
    projection, weights, bias = (head[name] for name in DOMAIN_HEAD)
    assert logits.shape == (2 * BATCH, NUM_DOMAINS)
    for row in range(2 * BATCH):
        hidden, sample = (first, second)[row // BATCH], row % BATCH
        expected = hidden[sample, mask[sample] == 1].mean(axis=0) + projection[domain[sample]]
        np.testing.assert_allclose(representation[row], expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(logits[row], weights @ expected + bias, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(12, (3, 7, 11)), (6, (1, 3, 5)), (24, (7, 15, 23)), (3, (0, 1, 2)), (2, (0, 1)), (1, (0,)), (4, (1, 2, 3))],
)
def test_default_layers(layers, expected):
    """At a third, two thirds and the end of the stack, rounded up."""
    assert default_domain_layers(layers) == expected == check_domain_layers(None, layers)


def test_chosen_layers():
    assert check_domain_layers([5, 0], 6) == (5, 0)
    for wrong in ([6], [-1], [0, 0]):
        with pytest.raises(UserError, match=r"--domain_layers .*: the encoder has layers 0 to 5"):
            check_domain_layers(wrong, 6)
