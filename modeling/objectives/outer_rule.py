"""The outer step of Reptile and first-order MAML, in NumPy: how the weights theta change from what the tasks say.

    Reptile (Nichol et al. 2018, arXiv 1803.02999): g = mean_t (theta - phi_t), phi_t the weights adapted to task t
    FOMAML (Finn et al. 2017, arXiv 1703.03400):    g = mean_t of the gradient of task t's query loss at phi_t

    sgd:  theta <- theta - rate * g       with Reptile the interpolation theta + rate * (mean phi - theta)
    adam: Adam with g as gradient, with decoupled weight decay before the update

Sums and updates are in float64; weights and moments are float32.
"""

from typing import NamedTuple

import numpy as np

from modeling.bert.weight_decay import has_weight_decay
from modeling.cli.choices import LINEAR, OUTER_ADAM

_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_FIRST, _SECOND, _COUNT = "outer-{}-m", "outer-{}-v", "outer-steps"


class OuterSchedule(NamedTuple):
    """The learning rate of the outer steps: linear to 0, or constant."""

    peak: float
    total_steps: int
    kind: str = LINEAR
    weight_decay: float = 0.0  # of the rule, for `decay_factor`
    warmup_steps: int = 0

    def rate(self, step):
        """The learning rate of `step` (from 0)."""
        return self.peak * max(0.0, 1.0 - step / self.total_steps) if self.kind == LINEAR else self.peak

    def decay_factor(self, steps, weight_decay):  # noqa: ARG002
        """Factor by which `steps` outer steps scale a weight that no task changes. The weight decay of the inner loop, the argument, does
        not count: what a task does not read stays as it is."""
        return float(np.prod([1.0 - self.rate(step) * self.weight_decay for step in range(steps)]))


class Direction:
    """The mean over tasks of arrays by name, in float64."""

    def __init__(self):
        self._sums, self.count = {}, 0

    def add(self, arrays, collected=lambda value: [value]):
        """Adds the arrays of a task, or of several ones, in the order of the tasks.

        Args:
            arrays: dict of name -> array.
            collected: function of an array -> the arrays of all tasks that it stands for, list.
        """
        values = []
        for name, value in arrays.items():
            values = collected(value)
            for one in values:
                if name in self._sums:
                    self._sums[name] += one
                else:
                    self._sums[name] = one.astype(np.float64)
        self.count += len(values)

    def share(self, spread, like, count):
        """Continues with the sums of one process in all of them.

        Args:
            spread: function of an array -> the one of the process that has the sums.
            like: dict of name -> array, with the shapes, for a process that has none.
            count: number of all tasks.
        """
        self.count = count
        self._sums = {name: spread(self._sums.get(name, np.zeros(array.shape))) for name, array in like.items()}

    def mean(self, name):
        """The mean of an array."""
        return self._sums[name] / self.count


class OuterRule:
    """The rule of the outer steps and its state.

    Args:
        kind: "sgd" or "adam".
        weight_decay: decoupled weight decay of adam.
    """

    def __init__(self, kind, weight_decay=0.0):
        self._kind, self._decay = kind, weight_decay
        self._moments, self._steps = {}, 0

    def step(self, weights, gradient_of, rate):
        """One step.

        Args:
            weights: dict of name -> float32 array, theta.
            gradient_of: function of a name -> float64 array, g.
            rate: learning rate.
        Returns:
            dict of name -> float32 array, the new theta.
        """
        self._steps += 1
        return {name: self._changed(name, value, gradient_of(name), rate).astype(np.float32) for name, value in weights.items()}

    def _changed(self, name, weight, gradient, rate):
        if self._kind != OUTER_ADAM:
            return weight - rate * gradient
        first, second = (
            beta * self._moments.get(key.format(name), 0.0) + (1.0 - beta) * power
            for beta, key, power in zip(_BETAS, (_FIRST, _SECOND), (gradient, gradient * gradient))
        )
        # moments are kept as a state stores them, so that a continued run has the same ones
        first, second = (self._keep(key.format(name), value) for key, value in ((_FIRST, first), (_SECOND, second)))
        mean, square = (moment / (1.0 - beta**self._steps) for moment, beta in zip((first, second), _BETAS))
        decay = rate * self._decay if has_weight_decay(name) else 0.0
        return weight * (1.0 - decay) - rate * mean / (np.sqrt(square) + _EPSILON)

    def _keep(self, key, value):
        self._moments[key] = value.astype(np.float32)
        return self._moments[key].astype(np.float64)

    def state(self):
        """The state: dict of name -> array, float32 moments and an int64 counter."""
        return {**self._moments, _COUNT: np.array(self._steps, np.int64)}

    def restore(self, state):
        """Continues from a `state` among other arrays."""
        self._steps = int(state[_COUNT])
        self._moments = {name: state[name] for name in state if name.startswith(_FIRST[:6]) and name != _COUNT}
