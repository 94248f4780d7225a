"""modeling/run/meta_learner.py: what the log says about the corrupted domains."""

from types import SimpleNamespace

import pytest

from modeling.run.meta_learner import domain_loss_weight
from ofrecord_util.errors import UserError


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
    splits = SimpleNamespace(held_out=[])
    assert domain_loss_weight(SimpleNamespace(flags=flags, task=task, splits=splits, log=lines.append)) == weight
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said))


def test_held_out_domains_leave_two_for_the_domain_loss():
    flags = SimpleNamespace(use_domain_loss=True, domain_loss_weight=0.3, held_out_domains=["a", "b"])
    context = SimpleNamespace(flags=flags, task=SimpleNamespace(num_domains=3), splits=SimpleNamespace(held_out=[0, 2]), log=print)
    with pytest.raises(UserError, match="--held_out_domains a,b: one domain is left, and the domain loss needs two"):
        domain_loss_weight(context)
    flags.use_domain_loss = False
    assert domain_loss_weight(context) == 0
    flags.use_domain_loss, context.task.num_domains = True, 4
    assert domain_loss_weight(context) == 0.3
