"""Systems by name: what their names say, in plain Python; how they repeat; what can be known without memory."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax import theory, unroll
from wrnn_jax.cells import history_system
from wrnn_jax.theory.systems import ADD, LOGIC, NAMES, REAL, SQUARE
from wrnn_jax.validation import InvalidValue

TRUTH = {
    "xor": lambda column: sum(column) % 2 == 1,
    "and": all,
    "or": any,
    "nand": lambda column: not all(column),
    "nor": lambda column: not any(column),
}
COPIED = {
    "compose-copy": lambda i, s, d: (i, i),
    "compose-copy-reversed": lambda i, s, d: (d - 1 - i, i),
    "compose-copy-shifted": lambda i, s, d: (i, (i + 1) % d),
    "repeat-copy": lambda i, s, d: (0, i),
    "splice": lambda i, s, d: (i * s // d, i),
}
"""(column, element) of output i."""


def next_vector(name, history):
    """f of the name, from its definition, for one history (s, d) of numbers or of ±1."""
    s, d = history.shape
    if name in COPIED:
        return [history[COPIED[name](i, s, d)] for i in range(d)]
    if name == "fibonacci":
        return history.sum(axis=0)
    bits = (history > 0).tolist()
    if name in TRUTH:
        return [1.0 if TRUTH[name]([vector[i] for vector in bits]) else -1.0 for i in range(d)]
    total = sum(int("".join("01"[bit] for bit in reversed(vector)), 2) for vector in bits) % 2**d
    return [1.0 if total >> i & 1 else -1.0 for i in range(d)]


def series(name, first, steps):
    xs, s = list(first), len(first)
    for _ in range(steps):
        xs.append(np.array(next_vector(name, np.array(xs[-s:]))))
    return np.array(xs)


def histories(columns):
    """All 2^s of one element, (2^s, s, 1)."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=columns)))[..., None]


@pytest.mark.parametrize("name", [*REAL, *LOGIC, ADD])
def test_a_system_does_what_its_name_says_and_the_history_system_is_it(name):
    rng = np.random.default_rng(0)
    for s, d in [(3, 3), *([] if name in SQUARE else [(1, 2), (4, 3), (2, 6)])]:
        system = theory.named_system(name, d, s)
        first = rng.choice([-1.0, 1.0], size=(s, d)) if system.is_binary else rng.normal(size=(s, d))
        inputs = np.float32(np.vstack([first, np.zeros((9, d))]))
        outputs = unroll(history_system(system.f, s, d), {}, inputs, time_major=True).outputs
        np.testing.assert_allclose(outputs, series(name, first, 9), rtol=1e-5, atol=1e-5)
        assert system.is_binary == (name not in REAL)


def test_copies_are_the_published_ones_and_their_relatives():
    for name, task in {"repeat-copy": "T1", "compose-copy": "T2"}.items():
        published = theory.binding_operator(theory.TASKS[task])
        np.testing.assert_array_equal(theory.named_system(name).operator, published)
        np.testing.assert_array_equal(theory.named_system(task).operator, published)
    # Shifted, all elements are one loop, of 8 + 7 + … + 1 steps: its eigenvalues are the 36th roots of unity.
    eigenvalues = np.linalg.eigvals(theory.phi(theory.named_system("compose-copy-shifted").operator))
    lasting = eigenvalues[np.abs(eigenvalues) > 0.5]
    np.testing.assert_allclose(np.sort(np.angle(lasting) % (2 * np.pi)), 2 * np.pi * np.arange(36) / 36, atol=1e-6)


@pytest.mark.parametrize(("columns", "size"), [(1, 3), (2, 4), (3, 2), (8, 1)])
def test_xor_repeats_after_one_step_more_than_it_has_columns(columns, size):
    first = np.random.default_rng(columns).choice([-1.0, 1.0], size=(columns, size))
    xs = series("xor", first, 3 * columns + 3)
    np.testing.assert_array_equal(xs[columns + 1 :], xs[: -columns - 1])


def test_the_sum_of_two_repeats_with_pisanos_period():
    """The Fibonacci numbers modulo 2^d have the period 3 · 2^(d − 1), and none that is shorter."""
    for d in (1, 2, 5):
        xs = series(ADD, np.array([[-1.0] * d, [1.0] + [-1.0] * (d - 1)]), 9 * 2**d)  # 0, 1, 1, 2, 3, …
        periods = [k for k in range(1, 4 * 2**d) if np.array_equal(xs[k:], xs[:-k])]
        assert periods[0] == 3 * 2 ** (d - 1)


@pytest.mark.parametrize("name", LOGIC)
def test_moments_are_means_over_all_histories(name):
    columns, steps = 4, 11
    system, first = theory.named_system(name, 1, columns), histories(columns)
    xs = np.array([series(name, history, steps) for history in first])[:, columns:, 0]
    known = theory.moments(system, steps)
    np.testing.assert_allclose(known.mean, xs.mean(axis=0), atol=1e-12)
    # The best linear function of the first vectors, by least squares over all of them.
    weights = np.linalg.lstsq(first[..., 0], xs, rcond=None)[0]
    np.testing.assert_allclose(known.linear, weights.T, atol=1e-12)
    np.testing.assert_allclose(known.linear_error, np.square(first[..., 0] @ weights - xs).mean(axis=0), atol=1e-12)


def test_what_is_drawn_of_many_columns_is_near_what_all_histories_give():
    """Of 14 columns, 4,096 histories: nand rests at true but for one step in 15."""
    known = theory.moments(theory.named_system("nand", 1, 14), 150)
    assert (1 + known.mean[15:]).mean() / 2 == pytest.approx(14 / 15, abs=0.01)


def test_of_sums_the_best_linear_f_is_none_at_all():
    """No bit of a sum goes with any one bit of what is added, and s of s + 1 vectors of xor are copies."""
    s, d = 2, 3
    first = np.array(list(itertools.product([-1.0, 1.0], repeat=s * d)))
    for name in (ADD, "xor"):
        newest = np.asarray(theory.named_system(name, d, s).f(jnp.asarray(first.reshape(-1, s, d), jnp.float32)))
        np.testing.assert_allclose(newest.T @ first, 0, atol=1e-9)
        np.testing.assert_allclose(newest.mean(axis=0), 0, atol=1e-9)
    errors = theory.moments(theory.named_system("xor", 4, 5), 30).linear_error
    np.testing.assert_array_equal(errors, [1, 0, 0, 0, 0, 0] * 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("XOR",), "task = 'XOR': must be one of " + ", ".join(NAMES)),
        (("add", 33, 2), "d = 33: must be at most 32 for add"),
        (("xor", 0, 2), "d = 0: must be a whole number, 1 or more"),
        (("xor", 2, 0), "s = 0: must be a whole number, 1 or more"),
        (("compose-copy-shifted", 3, 2), "s = 2: must be as many as the elements, d = 3, for compose-copy-shifted"),
    ],
)
def test_what_is_no_system_is_refused(arguments, message):
    with pytest.raises(InvalidValue, match=message):
        theory.named_system(*arguments)


def test_a_copy_of_what_there_is_not_is_refused():
    for columns_read, elements_read, field in (((0, 2), (0, 1), "columns_read"), ((0, 1), (0,), "elements_read")):
        with pytest.raises(InvalidValue, match=f"^{field} = .*a number from 0 to 1 for each output"):
            theory.copy_operator(columns_read, elements_read, 2)
