"""modeling/objectives/minimize.py on functions whose minimum is known."""

import numpy as np

from modeling.objectives.minimize import minimize

SCALES, CENTRE = np.array([1.0, 30.0, 900.0, 0.2]), np.array([1.0, -2.0, 0.5, 7.0])


def quadratic(place):
    return 0.5 * float(SCALES @ (place - CENTRE) ** 2), SCALES * (place - CENTRE)


def rosenbrock(place):
    x, y = place
    gradient = np.array([-400 * x * (y - x * x) - 2 * (1 - x), 200 * (y - x * x)])
    return 100 * (y - x * x) ** 2 + (1 - x) ** 2, gradient


def test_a_badly_scaled_quadratic():
    place, largest, steps = minimize(quadratic, np.zeros(4), 1e-9, 200)
    np.testing.assert_allclose(place, CENTRE, rtol=0, atol=1e-7)
    assert largest <= 1e-9
    assert steps < 60


def test_a_curved_valley():
    place, largest, _ = minimize(rosenbrock, np.array([-1.2, 1.0]), 1e-8, 300)
    np.testing.assert_allclose(place, 1.0, rtol=0, atol=1e-6)
    assert largest <= 1e-8


def test_the_limit_of_steps():
    place, largest, steps = minimize(quadratic, np.zeros(4), 1e-9, 3)
    assert steps == 3
    assert largest == np.abs(quadratic(place)[1]).max() > 1e-9


def test_a_start_at_the_minimum():
    place, largest, steps = minimize(quadratic, CENTRE, 1e-9, 10)
    assert steps == largest == 0
    assert place.tolist() == CENTRE.tolist()


def test_values_in_float32():
    """The noise of the values does not end the search before the gradient is small."""

    def noisy(place):
        value, gradient = quadratic(place)
        return float(np.float32(value + 100)), gradient.astype(np.float32).astype(np.float64)

    place, largest, _ = minimize(noisy, np.zeros(4), 1e-6, 300)
    assert largest <= 1e-6
    np.testing.assert_allclose(place, CENTRE, rtol=0, atol=1e-5)
