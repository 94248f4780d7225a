"""modeling/run/meta_learner.py: what the log says about the corrupted domains."""

from types import SimpleNamespace

import pytest

from modeling.run.meta_learner import domain_loss_weight


@pytest.mark.parametrize(
    ("domains", "used", "weight", "said"),
    [
        (1, True, 0.0, ["only one domain"]),
        (2, True, 0.3, ["two domains: the corrupted domain of a sample is always the other one"]),
        (3, True, 0.3, []),
        (2, False, 0.0, []),
    ],
)
def test_the_number_of_domains(domains, used, weight, said):
    lines = []
    flags, task = SimpleNamespace(use_domain_loss=used, domain_loss_weight=0.3), SimpleNamespace(num_domains=domains)
    assert domain_loss_weight(SimpleNamespace(flags=flags, task=task, log=lines.append)) == weight
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said))
