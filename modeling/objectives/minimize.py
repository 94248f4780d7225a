"""L-BFGS (Nocedal and Wright 2006, algorithm 7.4) for a smooth convex function whose values are exact to float32 only."""

import numpy as np

_REMEMBERED = 10  # pairs of steps and changes of the gradient
_SUFFICIENT = 1e-4  # share of the linear decrease that a step must reach
_ROUNDING = 3e-7  # relative error of a value, within which an increase is no increase
_MOST_HALVINGS = 30


def minimize(function, start, tolerance, most_steps):
    """Minimises a function. The same function and start give the same result, bit for bit.

    Args:
        function: of a float64 array [n] -> (value, gradient float64 [n]).
        start: float64 [n].
        tolerance: the largest absolute element of the gradient at which the search ends.
        most_steps: number of steps after which it ends in any case.
    Returns:
        (float64 [n], largest absolute element of its gradient, number of steps). The search also ends where no step decreases the function
        within the exactness of its values.
    """
    place, history = start, []
    value, gradient = function(place)
    for step in range(most_steps):
        largest = float(np.abs(gradient).max())
        if largest <= tolerance:
            return place, largest, step
        direction = _direction(gradient, history)
        slope = float(gradient @ direction)
        size = 1.0 if history else min(1.0, 1.0 / float(np.abs(gradient).sum()))
        for _ in range(_MOST_HALVINGS):
            candidate = place + size * direction
            new_value, new_gradient = function(candidate)
            if new_value <= value + _SUFFICIENT * size * slope + _ROUNDING * abs(value):
                break
            size /= 2
        else:
            return place, largest, step
        moved, changed = candidate - place, new_gradient - gradient
        if moved @ changed > 1e-10 * float(np.linalg.norm(moved) * np.linalg.norm(changed)):  # else rounding hides the curvature
            history = [*history[1 - _REMEMBERED :], (moved, changed)]
        place, value, gradient = candidate, new_value, new_gradient
    return place, float(np.abs(gradient).max()), most_steps


def _direction(gradient, history):
    """The quasi-Newton direction from the remembered pairs, by the two-loop recursion."""
    direction, factors = -gradient, []
    for moved, changed in reversed(history):
        factor = (moved @ direction) / (moved @ changed)
        factors.append(factor)
        direction = direction - factor * changed
    if history:
        moved, changed = history[-1]
        direction = direction * ((moved @ changed) / (changed @ changed))
    for (moved, changed), factor in zip(history, reversed(factors)):
        direction = direction + moved * (factor - (changed @ direction) / (moved @ changed))
    return direction
