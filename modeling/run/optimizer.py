"""BERT's optimisation: AdamW, one global clip, linear warm-up then linear decay."""

from typing import NamedTuple

import numpy as np

from modeling.bert.weight_decay import NO_DECAY
from modeling.cli.choices import ADAMW
from modeling.cli.flag_kinds import MOST_STEPS
from modeling.engine.runtime import flow
from ofrecord_util.batches import count_steps
from ofrecord_util.errors import UserError

CLIP_NORM = 1.0
BETAS = (0.9, 0.999)  # of Adam


class Schedule(NamedTuple):
    """Linear warm-up, then linear decay to 0, as in Google's create_optimizer."""

    peak: float  # highest learning rate
    total_steps: int
    warmup_steps: int
    decays: bool = True  # False for a constant rate after the warm-up

    def rate(self, step):
        """The learning rate of `step` (from 0).

        The rate is peak * step / warmup_steps during warm-up, then peak * (1 - step / total_steps). The decay counts from step 0, so
        the rate drops slightly at the end of warm-up.
        """
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        if not self.decays:
            return self.peak
        return self.peak * max(0.0, 1.0 - step / self.total_steps)

    def decay_factor(self, steps, weight_decay):
        """Factor by which `steps` steps of decoupled weight decay scale a weight without gradient: prod_k 1 - rate(k) * weight_decay."""
        return float(np.prod([1.0 - self.rate(step) * weight_decay for step in range(steps)]))


def fewer_epochs(num_samples, batch_size, most_samples=None):
    """What a message about too many epochs advises: the largest --num_epochs within MOST_STEPS steps and, unless it is None, `most_samples`
    samples of all epochs. Arguments otherwise as of `plan_schedule`.
    """
    by_steps = MOST_STEPS * batch_size
    most = (by_steps if most_samples is None else min(by_steps, most_samples)) // num_samples
    return f"at most --num_epochs {most}" if most else "fewer rows" if by_steps >= num_samples else "a greater --batch_size_per_device"


def plan_schedule(flags, num_samples, batch_size, most_samples=None):
    """The `Schedule` of a run with num_samples samples, batch_size samples per step, and the flags' epochs, rate and warm-up proportion.

    Args:
        flags, num_samples, batch_size: see above.
        most_samples: the limit of the run's layout, for the advice of the message (`Bucketing.training`); None without one.
    Raises:
        UserError: the epochs have more than MOST_STEPS steps. Other runs have a flag for their number of steps, whose kind has this limit.
    """
    total_steps = count_steps(num_samples, flags.num_epochs, batch_size)
    if total_steps > MOST_STEPS:
        raise UserError(
            f"--num_epochs {flags.num_epochs}: {flags.num_epochs} passes over {num_samples:,} samples, {batch_size:,} per step, are more "
            f"than {MOST_STEPS:,} steps; give {fewer_epochs(num_samples, batch_size, most_samples)}"
        )
    return Schedule(flags.learning_rate, total_steps, int(total_steps * flags.warmup_proportion))


class _AdamW(flow.optim.AdamW):
    """AdamW that excludes variables from weight decay by name.

    OneFlow clips each parameter group by its own norm. Two groups, with and without decay, would therefore be clipped separately. A
    single group with excluded names keeps the clip global. This class sets a graph configuration that is private to OneFlow;
    tests/modeling/run/test_optimizer.py tests it.
    """

    def _generate_conf_for_graph(self, train_conf, vars_conf):
        confs = super()._generate_conf_for_graph(train_conf, vars_conf)
        for conf in confs:
            conf.weight_decay_conf.excludes.pattern.extend(NO_DECAY)
        return confs


def create_optimizer(variables, schedule, weight_decay=0.01, bias_correction=True, clip_norm=CLIP_NORM, kind=ADAMW, beta1=BETAS[0]):
    """The optimizer and its schedule for a training graph.

    Args:
        variables: a `Variables`. The optimizer does not update its frozen variables.
        schedule: `Schedule`.
        weight_decay: decoupled decay of all weights that are not in NO_DECAY.
        bias_correction: Adam's bias correction. Google's BERT does not use it; it improves few-sample fine-tuning (arXiv 2006.05987).
        kind: "adamw", or "sgd" for plain gradient descent without weight decay.
        beta1: decay of Adam's first moment.
        clip_norm: limit of the norm of all gradients together; None if something else clips (modeling/engine/gradient_masks.py).
    Returns:
        (optimizer, OneFlow's learning-rate schedule) for `global_function(type="train", …)`.
    """
    group = {"params": list(variables.trained().values()), "lr": schedule.peak}
    if clip_norm is not None:
        group.update(clip_grad_max_norm=clip_norm, clip_grad_norm_type=2.0)
    if kind == ADAMW:
        group.update(betas=(beta1, BETAS[1]), eps=1e-6, weight_decay=weight_decay)
        optimizer = _AdamW([group], do_bias_correction=bias_correction)
    else:
        optimizer = flow.optim.SGD([group])
    schedulers = flow.optim.lr_scheduler
    if not schedule.decays:
        return optimizer, _warm_up(optimizer, schedule.warmup_steps) if schedule.warmup_steps else None
    decay = schedulers.PolynomialLR(optimizer, max(1, schedule.total_steps), end_learning_rate=0.0, power=1.0, cycle=False)
    if schedule.warmup_steps == 0:
        return optimizer, decay
    warmup = _warm_up(optimizer, schedule.warmup_steps)
    return optimizer, schedulers.SequentialLR(optimizer, [warmup, decay], milestones=[schedule.warmup_steps], interval_rescaling=[False])


def _warm_up(optimizer, steps):
    # LinearLR needs a start factor above 0. A rate of 1e-30 times the peak does not change a float32 weight above 1e-22
    return flow.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-30, end_factor=1.0, total_iters=steps)
