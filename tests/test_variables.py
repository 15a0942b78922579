"""Reading trained RNNs, on RNNs whose spectrum and variables are known because they were built from them."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrnn_jax.analysis.variables import (
    PERSISTENT,
    compare_spectra,
    in_basis,
    input_memories,
    outside,
    reduced,
    variable_memories,
    variables_over_time,
)
from wrnn_jax.cells import elman, wave
from wrnn_jax.cells.gated import gru, lstm
from wrnn_jax.cells.jacobian import linearised
from wrnn_jax.cells.twm import attention_boundary, twm
from wrnn_jax.theory import TASKS, basis, binding_operator, fibonacci_operator, phi, random_basis, writing_input
from wrnn_jax.validation import InvalidValue

S = D = 8
over_tasks = pytest.mark.parametrize("task", TASKS)


def transition(task):
    return phi(binding_operator(TASKS[task]))


def part(matrix, kept):
    return matrix[np.ix_(kept, kept)]


def orthonormal_basis(neurons, count, seed=0):
    return basis(np.linalg.qr(np.random.default_rng(seed).normal(size=(neurons, count)))[0])


def exact_rnn(matrix, basis, size=D):
    """W_hh and W_r of the RNN that does ``matrix`` in a basis, the newest column last."""
    return basis.vectors @ matrix @ basis.dual, basis.dual[-size:]


def substrates(operator, history, steps):
    """The substrate after each step of a history being written and then of the system by itself, by iteration."""
    size, components = operator.shape
    substrate, states = np.zeros((components // size, size)), []
    for t in range(steps):
        new = history[t] if t < len(history) else operator @ substrate.ravel()
        substrate = np.vstack([substrate[1:], new])
        states.append(substrate)
    return np.array(states)


def backwards_from_the_boundary(operator):
    """What the boundary reads, what is copied into that, and so on until nothing is new."""
    size, components = operator.shape
    reached, frontier = set(), set(np.flatnonzero(operator.any(0)))
    while frontier:
        reached |= frontier
        frontier = {k + size for k in frontier if k + size < components} - reached
    return sorted(reached)


# Φ, reduced


@over_tasks
def test_what_matters_is_what_the_boundary_comes_to_read(task):
    kept = reduced(transition(task))
    assert len(kept) == {"T1": 64}.get(task, 36)
    assert list(kept) == backwards_from_the_boundary(binding_operator(TASKS[task]))


@pytest.mark.parametrize("task", ["T2", "T4"])
def test_removal_lowers_the_lasting_rank_of_just_these(task):
    matrix = transition(task)

    def lasting_rank(matrix):
        return np.linalg.matrix_rank(np.linalg.matrix_power(matrix, S * D))

    kept, whole = reduced(matrix), lasting_rank(matrix)
    for component in range(S * D):
        rest = np.delete(np.arange(S * D), component)
        assert (lasting_rank(part(matrix, rest)) < whole) == (component in kept)


@given(data=st.data())
def test_reducing_keeps_the_nonzero_spectrum_with_multiplicities(data):
    """The characteristic polynomials differ by a power of λ: exactly, since all their coefficients are integers."""
    size, columns = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    operator = rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.7, 0.15], size=(size, columns * size))
    matrix = phi(operator)
    kept = reduced(matrix)
    whole = np.poly(matrix)
    shorter = np.poly(part(matrix, kept)) if len(kept) else np.ones(1)
    np.testing.assert_allclose(np.pad(shorter, (0, len(whole) - len(shorter))), whole, atol=1e-6)


def test_nothing_is_dropped_from_a_dense_operator_and_everything_from_a_delay_line():
    dense = np.random.default_rng(0).normal(size=(3, 12))
    np.testing.assert_array_equal(reduced(phi(dense)), np.arange(12))
    np.testing.assert_array_equal(reduced(phi(fibonacci_operator(2, 5))), np.arange(10))
    assert len(reduced(phi(np.zeros((3, 12))))) == 0


def test_a_wave_that_is_read_but_never_written_is_dropped():
    operator = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(reduced(phi(operator)), [0, 2])


# The Jacobian at the origin


def test_a_tanh_rnn_without_bias_is_its_own_linearisation(random_params):
    cell = elman(6, use_bias=False)
    params = random_params(cell, 3)
    np.testing.assert_array_equal(linearised(cell, params, 3), params["recurrence"]["kernel"])


def test_a_bias_turns_it_by_the_slope_of_tanh(random_params):
    cell = elman(6)
    params = random_params(cell, 3)
    slope = 1 / np.cosh(np.float64(params["encoder"]["bias"] + params["recurrence"]["bias"])) ** 2
    expected = slope[:, None] * np.float64(params["recurrence"]["kernel"])
    np.testing.assert_allclose(linearised(cell, params, 3), expected, rtol=1e-4, atol=1e-6)


def test_an_lstm_without_bias_at_the_origin(random_params):
    """σ(0) = 1/2: c' = c/2 + U_g h/2 and h' = c'/2."""
    cell = lstm(4, use_bias=False)
    params = random_params(cell, 3)
    candidate, one = np.float64(params["recurrence"]["kernel"][2]), np.eye(4)
    expected = np.block([[candidate / 4, one / 4], [candidate / 2, one / 2]])
    np.testing.assert_allclose(linearised(cell, params, 3), expected, rtol=1e-5)


def test_a_gru_without_bias_at_the_origin(random_params):
    """σ(0) = 1/2: h' = U_n h/4 + h/2."""
    cell = gru(4, use_bias=False)
    params = random_params(cell, 3)
    expected = np.float64(params["recurrence"]["kernel"][2]) / 4 + np.eye(4) / 2
    np.testing.assert_allclose(linearised(cell, params, 3), expected, rtol=1e-5)


def test_the_waves_linearisation_is_the_circulant_shift():
    cell = wave(2, 5, activation="identity", bias_init="zeros")
    matrix = linearised(cell, cell.init(jax.random.key(0), 1), 1)
    np.testing.assert_array_equal(matrix, np.kron(np.eye(2), np.roll(np.eye(5), 1, axis=1)))


def test_a_carry_that_counts_is_refused():
    with pytest.raises(InvalidValue, match=r"cell\.initial_carry = .*int32.*floating-point numbers alone"):
        linearised(twm(attention_boundary(3, 2), input_steps=3), {}, 2)


# Spectra


@over_tasks
@pytest.mark.parametrize("neurons", [64, 100])
def test_an_exact_rnn_has_the_theorys_spectrum(task, neurons):
    matrix = transition(task)
    recurrence, _ = exact_rnn(matrix, random_basis(np.random.default_rng(0), neurons, S, D))
    comparison = compare_spectra(recurrence, matrix)
    count = len(reduced(matrix))
    assert comparison.trained.shape == comparison.theory.shape == (count,)
    assert comparison.left_out.shape == (neurons - count,)
    # A Jordan block of m zeros, up to 7 here, is known only up to ε^(1/m).
    assert comparison.margin[0] < 0.2
    assert comparison.margin[1] == pytest.approx(1, abs=1e-6)
    assert comparison.angle_error < 1e-8
    np.testing.assert_allclose(comparison.trained, comparison.theory, atol=1e-6)


@pytest.mark.parametrize("task", ["T2", "T4"])
def test_noise_moves_it_continuously_and_a_similarity_not_at_all(task):
    rng = np.random.default_rng(1)
    matrix = transition(task)
    recurrence, _ = exact_rnn(matrix, orthonormal_basis(80, 64))
    noisy = recurrence + 2e-4 * rng.normal(size=recurrence.shape)
    error = compare_spectra(noisy, matrix).angle_error
    assert 1e-5 < error < 1e-2
    change = rng.normal(size=recurrence.shape)
    similar = change @ noisy @ np.linalg.inv(change)
    assert compare_spectra(similar, matrix).angle_error == pytest.approx(error, rel=1e-6)
    assert compare_spectra(noisy.T, matrix).angle_error == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, -0.3, 0.45])
@over_tasks
def test_turning_all_eigenvalues_by_an_angle_gives_that_angle(task, share):
    """By less than half the way to the next eigenvalue; the other way round, the same."""
    matrix = part(transition(task), reduced(transition(task)))
    angles = np.unique(np.angle(np.linalg.eigvals(matrix)).round(6) % 6.283185)
    delta = share * np.diff(angles).min()
    for turn in (delta, -delta):
        comparison = compare_spectra(np.exp(1j * turn) * matrix, transition(task))
        assert comparison.angle_error == pytest.approx(abs(delta), abs=1e-8)


def rotations(*angles):
    """Real, with eigenvalues e^{±iθ}."""
    matrix = np.zeros((2 * len(angles),) * 2)
    for i, angle in enumerate(angles):
        cos, sin = math.cos(angle), math.sin(angle)
        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[cos, -sin], [sin, cos]]
    return matrix


@given(delta=st.floats(1e-6, 0.3))
def test_angles_on_both_sides_of_pi_are_near(delta):
    minus_one = compare_spectra(rotations(math.pi - delta), -np.eye(2))
    assert minus_one.angle_error == pytest.approx(delta, rel=1e-6, abs=1e-9)


def test_the_closest_pair_is_matched_first_and_each_is_used_once():
    """Theory at 0 and 0.4, trained at 0.3 and 0.9: 0.4 takes 0.3, so that 0 is left with 0.9."""
    theory, trained = (np.exp(1j * np.array(angles)) for angles in ([0.0, 0.4], [0.9, 0.3]))
    comparison = compare_spectra(np.diag(trained), np.diag(theory))
    pairs = zip(np.angle(comparison.theory), np.angle(comparison.trained), strict=True)
    np.testing.assert_allclose(sorted(pairs), [(0.0, 0.9), (0.4, 0.3)], atol=1e-12)
    assert comparison.angle_error == pytest.approx((0.1 + 0.9) / 2)


def test_unequal_counts_are_said_and_not_compared():
    matrix = transition("T1")
    comparison = compare_spectra(np.diag([1.0, 0.999, 0.9]), matrix)
    assert comparison.angle_error is None
    assert (len(comparison.theory), len(comparison.trained), len(comparison.left_out)) == (64, 2, 1)
    assert comparison.margin == (0.9, 0.999)
    lower = compare_spectra(np.diag([1.0, 0.999, 0.9]), matrix, threshold=0.5)
    assert (len(lower.trained), lower.margin) == (3, (0, 0.9))
    nothing = compare_spectra(0.1 * np.eye(3), phi(np.zeros((2, 4))))
    assert nothing.angle_error is None
    assert nothing.margin == (pytest.approx(0.1), math.inf)


def test_the_threshold_parts_no_conjugate_pair():
    """At every threshold: the members of a pair have the same magnitude to the last bit."""
    matrix = np.random.default_rng(4).normal(size=(30, 30)) / math.sqrt(30)
    for magnitude in np.abs(np.linalg.eigvals(matrix)):
        trained = compare_spectra(matrix, np.eye(1), threshold=float(magnitude)).trained
        np.testing.assert_array_equal(np.sort_complex(trained), np.sort_complex(trained.conj()))


def test_the_default_threshold_is_e_in_200_steps():
    assert 200 * math.log(PERSISTENT) == pytest.approx(-1)
    assert compare_spectra(np.eye(2), np.eye(2)).threshold == PERSISTENT


# Variable memories


@over_tasks
@pytest.mark.parametrize("neurons", [64, 90])
def test_orthonormal_variables_are_found_again(task, neurons):
    matrix = transition(task)
    kept, built = reduced(matrix), orthonormal_basis(neurons, 64)
    recurrence, readout = exact_rnn(matrix, built)
    found = variable_memories(recurrence, readout, S, kept)
    np.testing.assert_allclose(found.vectors, built.vectors[:, kept], atol=1e-12)
    np.testing.assert_allclose(in_basis(recurrence, found), part(matrix, kept), atol=1e-12)


@over_tasks
def test_only_the_newest_column_must_be_orthogonal_to_the_rest(task):
    """Without the components that do not matter, and up to the vectors' lengths."""
    matrix, rng = transition(task), np.random.default_rng(5)
    kept = reduced(matrix)
    directions = orthonormal_basis(90, len(kept)).vectors
    mixing = rng.normal(size=(len(kept) - D,) * 2) / 8 + np.eye(len(kept) - D)
    built = basis(np.hstack([directions[:, :-D] @ mixing, directions[:, -D:]]))
    recurrence, readout = exact_rnn(part(matrix, kept), built)
    lengths = np.linalg.norm(built.vectors, axis=0)
    found = variable_memories(recurrence, readout, S, kept)
    np.testing.assert_allclose(found.vectors, built.vectors / lengths, atol=1e-9)
    expected = lengths[:, None] * part(matrix, kept) / lengths
    np.testing.assert_allclose(in_basis(recurrence, found), expected, atol=1e-9)


@over_tasks
def test_from_the_input_variables_are_found_in_any_basis(task):
    """W_uh is the newest column whatever the angles between the vectors are; W_r⁺ then is not."""
    matrix = transition(task)
    kept = reduced(matrix)
    whole = random_basis(np.random.default_rng(9), 100, S, D)
    built = basis(whole.vectors[:, kept])  # Of the components that matter, the newest column's among them.
    recurrence, readout = exact_rnn(part(matrix, kept), built)
    found = input_memories(recurrence, built.vectors[:, -D:], S, kept)
    lengths = np.linalg.norm(built.vectors, axis=0)
    np.testing.assert_allclose(found.vectors * lengths, built.vectors, atol=1e-9)
    expected = lengths[:, None] * part(matrix, kept) / lengths
    np.testing.assert_allclose(in_basis(recurrence, found), expected, atol=1e-8)
    of_all = input_memories(exact_rnn(matrix, whole)[0], whole.vectors[:, -D:], S, kept)
    np.testing.assert_allclose(of_all.vectors, found.vectors, atol=1e-9)
    assert np.abs(variable_memories(recurrence, readout, S, kept).vectors - found.vectors).max() > 0.1


def test_where_what_is_written_is_what_is_read_both_grounds_are_one():
    matrix = transition("T3")
    kept, built = reduced(matrix), orthonormal_basis(90, 64)
    recurrence, readout = exact_rnn(matrix, built)
    by_input = input_memories(recurrence, readout.T, S, kept)
    np.testing.assert_allclose(by_input.vectors, variable_memories(recurrence, readout, S, kept).vectors, atol=1e-12)


def test_the_share_outside_depends_on_the_span_alone():
    rng = np.random.default_rng(10)
    found, hidden = basis(rng.normal(size=(9, 4))), rng.normal(size=(20, 9))
    within, beyond = hidden @ found.dual.T @ found.vectors.T, np.linalg.svd(found.vectors)[0][:, 4:]
    np.testing.assert_allclose(outside(within, found), 0, atol=1e-12)
    np.testing.assert_allclose(outside(rng.normal(size=(20, 5)) @ beyond.T, found), 1)
    shares = outside(hidden, found)
    # What is beyond the span is at right angles to it; another basis of it, and another scale, say the same.
    np.testing.assert_allclose(shares, np.square(hidden @ beyond).sum(1) / np.square(hidden).sum(1))
    mixed = basis(found.vectors @ rng.normal(size=(4, 4)))
    np.testing.assert_allclose(outside(-3 * hidden, mixed), shares)
    np.testing.assert_array_equal(outside(np.zeros((2, 9)), found), 0)


def test_repeat_copy_is_found_in_any_basis():
    matrix = transition("T1")
    recurrence, readout = exact_rnn(matrix, random_basis(np.random.default_rng(6), 100, S, D))
    found = in_basis(recurrence, variable_memories(recurrence, readout, S))
    np.testing.assert_allclose(found[matrix == 0], 0, atol=1e-8)
    loops = [np.prod([found[(k - D) % 64, k] for k in range(element, 64, D)]) for element in range(D)]
    np.testing.assert_allclose(loops, 1, rtol=1e-8)  # lengths cancel round a loop


def test_a_wave_read_in_several_columns_gives_the_companion_form():
    """x(t) is the sum of the last four: the oldest vector is sent to all, instead of all to the newest."""
    matrix = phi(fibonacci_operator(1, 4))
    recurrence, readout = exact_rnn(matrix, orthonormal_basis(6, 4), size=1)
    found = variable_memories(recurrence, readout, 4)
    companion = in_basis(recurrence, found)
    np.testing.assert_allclose(companion[:, 1:], np.eye(4)[:, :3] * companion[[0, 1, 2], [1, 2, 3]], atol=1e-9)
    assert (companion[:, 0] > 0.1).all()
    np.testing.assert_allclose(np.poly(companion), np.poly(matrix), atol=1e-9)


def test_vectors_have_length_one_and_the_dual_is_dual():
    rng = np.random.default_rng(7)
    kept = [3, 4, 7, 9, 10, 11]
    found = variable_memories(rng.normal(size=(20, 20)), rng.normal(size=(3, 20)), 4, kept)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=0), 1)
    np.testing.assert_allclose(found.dual @ found.vectors, np.eye(6), atol=1e-9)


@over_tasks
def test_the_hidden_state_shows_each_input_travel_column_by_column(task):
    operator = binding_operator(TASKS[task])
    kept, built = reduced(phi(operator)), orthonormal_basis(90, 64)
    recurrence, readout = exact_rnn(phi(operator), built)
    history = np.random.default_rng(8).choice([-1.0, 1.0], size=(S, D))
    inputs = np.vstack([writing_input(operator, history), np.zeros((30, D))])
    hidden, states = np.zeros(90), []
    for u in inputs:
        hidden = recurrence @ hidden + built.vectors[:, -D:] @ u
        states.append(hidden)
    variables = variables_over_time(states, variable_memories(recurrence, readout, S, kept), S, D, kept)
    dropped = ~np.isin(np.arange(S * D), kept).reshape(S, D)
    assert np.isnan(variables[:, dropped]).all()
    expected = substrates(operator, history, len(inputs))
    np.testing.assert_allclose(variables[:, ~dropped], expected[:, ~dropped], atol=1e-10)
    moving = ~dropped[:-1] & ~dropped[1:]
    np.testing.assert_allclose(variables[1:, :-1][:, moving], variables[:-1, 1:][:, moving], atol=1e-10)


# Refusals

RNN = (np.eye(4), np.eye(4)[:2])


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: reduced(np.zeros((2, 3))), r"phi\.shape"),
        (lambda: reduced(np.full((2, 2), np.nan)), "4 values NaN or infinite"),
        (lambda: linearised(elman(2), {}, 0), "input_size = 0"),
        (lambda: compare_spectra(np.zeros(3), np.eye(2)), r"matrix\.shape"),
        (lambda: compare_spectra(np.array([[np.inf]]), np.eye(2)), "1 values NaN or infinite"),
        (lambda: compare_spectra(np.eye(2), np.eye(2), threshold=0.0), "threshold"),
        (lambda: variable_memories(np.eye(4), np.eye(3), 2), r"readout\.shape"),
        (lambda: variable_memories(np.eye(4), np.ones((2, 4)), 2), r"a matrix of rank 1.*rank d = 2"),
        (lambda: input_memories(np.eye(4), np.eye(3), 2), r"encoder\.shape"),
        (
            lambda: input_memories(np.eye(4), np.ones((4, 2)), 2),
            "encoder = 'a matrix of rank 1': must be of rank d",
        ),
        (lambda: outside(np.zeros((5, 3)), basis(np.eye(4))), r"hidden\.shape"),
        (lambda: variable_memories(*RNN, 0), "columns = 0"),
        (lambda: variable_memories(*RNN, 2, [1, 4]), "from 0 to 3"),
        (lambda: variable_memories(*RNN, 2, [2, 1]), "ascending"),
        (lambda: variable_memories(*RNN, 2, []), "at least one"),
        (lambda: variable_memories(*RNN, 2, [0.5]), "indices"),
        (lambda: variable_memories(0 * RNN[0], RNN[1], 2), "maps a memory to 0"),
        (lambda: variable_memories(*RNN, 2), "rank = 2.*linearly independent"),
        (lambda: variable_memories(np.eye(3), np.eye(3)[:2], 2), "neurons = 3"),
        (lambda: variables_over_time(np.zeros((5, 3)), basis(np.eye(4)), 2, 2), r"hidden\.shape"),
        (lambda: variables_over_time(np.zeros((5, 4)), basis(np.eye(4)), 2, 2, [0, 1]), "4 vectors.*of 2"),
    ],
)
def test_what_cannot_be_read_is_refused(read, message):
    with pytest.raises(InvalidValue, match=message):
        read()
