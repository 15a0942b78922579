"""Gradients against the lag: systems whose gradients are known, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax.analysis.gradients import gradient_by_lag
from wrnn_jax.cells import elman, unroll
from wrnn_jax.validation import InvalidValue


def last_state(cell):
    return lambda params, xs: unroll(cell, params, xs, outputs="last").outputs


def linear_rnn(recurrence, encoder):
    """Its parameters; every state is read."""
    return {"recurrence": {"kernel": jnp.float32(recurrence)}, "encoder": {"kernel": jnp.float32(encoder)}}


def identity_elman(neurons):
    return last_state(elman(neurons, activation="identity", use_bias=False))


def orthogonal(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


@pytest.mark.parametrize(("columns", "size", "extra"), [(1, 1, 0), (1, 2, 2), (3, 2, 0), (5, 1, 1), (4, 3, 6)])
def test_a_wave_keeps_its_gradient_until_it_leaves_the_substrate(columns, size, extra):
    """A shift with nothing at its start: 1 for every lag below s, then 0, and no rounding in either."""
    shift = np.eye(columns * size, k=size)
    write = np.eye(columns * size)[:, -size:]
    xs = jnp.float32(np.random.default_rng(0).normal(size=(2, columns + extra, size)))
    norms = gradient_by_lag(identity_elman(columns * size), linear_rnn(shift, write), xs)
    np.testing.assert_array_equal(norms, [1.0] * columns + [0.0] * extra)


def test_a_permutation_keeps_it_for_ever():
    permutation = np.eye(6)[np.random.default_rng(1).permutation(6)]
    norms = gradient_by_lag(identity_elman(6), linear_rnn(permutation, np.eye(6)), jnp.ones((1, 40, 6)))
    np.testing.assert_array_equal(norms, np.ones(40))


@pytest.mark.parametrize("rho", [0.5, 0.9, 1.1])
def test_a_scaled_rotation_multiplies_it_at_every_step(rho):
    params = linear_rnn(rho * orthogonal(5), 3.0 * orthogonal(5, seed=1)[:, :2])
    norms = gradient_by_lag(identity_elman(5), params, jnp.ones((2, 80, 2)))
    np.testing.assert_allclose(norms, rho ** np.arange(80.0), rtol=1e-4)


def test_small_gradients_do_not_vanish_in_their_squares():
    norms = gradient_by_lag(identity_elman(3), linear_rnn(0.1 * np.eye(3), np.eye(3)), jnp.ones((1, 36, 3)))
    np.testing.assert_allclose(norms, 0.1 ** np.arange(36.0), rtol=1e-4)


def test_it_is_what_finite_differences_give():
    """A tanh RNN with a readout, its definition written out in float64."""
    rng = np.random.default_rng(2)
    recurrence, encoder, readout = 0.6 * rng.normal(size=(4, 4)), rng.normal(size=(4, 3)), rng.normal(size=(2, 4))
    xs = rng.normal(size=(3, 6, 3))

    def last_output(sequence):
        hidden = np.zeros(4)
        for x in sequence:
            hidden = np.tanh(recurrence @ hidden + encoder @ x)
        return readout @ hidden

    norms = np.zeros((3, 6))
    for b, t in np.ndindex(3, 6):
        nudges = [1e-6 * (np.arange(18).reshape(6, 3) == 3 * t + feature) for feature in range(3)]
        jacobian = [(last_output(xs[b] + nudge) - last_output(xs[b] - nudge)) / 2e-6 for nudge in nudges]
        norms[b, t] = np.linalg.norm(jacobian)
    expected = norms.mean(0)[::-1]

    run = last_state(elman(4, use_bias=False))
    params = linear_rnn(recurrence, encoder)
    found = gradient_by_lag(lambda params, xs: run(params, xs) @ jnp.float32(readout.T), params, jnp.float32(xs))
    np.testing.assert_allclose(found, expected / expected[0], rtol=1e-4)


def test_of_outputs_at_every_step_the_last_counts(random_params):
    cell = elman(4)
    params, xs = random_params(cell, 2, scale=0.4), jax.random.normal(jax.random.key(0), (3, 7, 2))
    every = gradient_by_lag(lambda params, xs: unroll(cell, params, xs).outputs, params, xs)
    np.testing.assert_allclose(every, gradient_by_lag(last_state(cell), params, xs), rtol=1e-5)


def test_the_outputs_scale_does_not_matter(random_params):
    cell = elman(4)
    params, xs = random_params(cell, 2, scale=0.4), jax.random.normal(jax.random.key(0), (3, 7, 2))
    scaled = gradient_by_lag(lambda params, xs: 1000 * last_state(cell)(params, xs), params, xs)
    np.testing.assert_allclose(scaled, gradient_by_lag(last_state(cell), params, xs), rtol=1e-5)


@pytest.mark.parametrize(
    ("apply", "shape", "message"),
    [
        (lambda params, xs: xs, (4, 2), r"xs\.shape"),
        (lambda params, xs: xs, (4, 0, 2), r"xs\.shape"),
        (lambda params, xs: xs.sum(), (1, 4, 2), "the output's shape"),
        (lambda params, xs: xs[:, 0], (1, 4, 2), "depend on the last input"),
        (lambda params, xs: jnp.inf * xs, (1, 4, 2), "not finite"),
    ],
)
def test_what_has_no_such_gradient_is_refused(apply, shape, message):
    with pytest.raises(InvalidValue, match=message):
        gradient_by_lag(apply, {}, jnp.ones(shape))
