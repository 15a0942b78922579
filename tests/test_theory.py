"""Operators and their triples, the transition Φ, bases, and the RNN that needs no training."""

import itertools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wrnn_jax import cells, readouts, theory, unroll
from wrnn_jax.validation import InvalidValue

TASKS = sorted(theory.TASKS)


def decode(triple, d, s):
    """The list of (component, sign) of a triple, transcribed from the definition by lists and strings."""
    id1, id2, id3 = triple
    entries = [k for k, bit in enumerate(reversed(format(id1, f"0{s * d}b"))) if bit == "1"]
    for j in range(d):
        id2, digit = divmod(id2, d)
        entries[j], entries[j + digit] = entries[j + digit], entries[j]
    return [(entry, (-1) ** (id3 // 2**i % 2)) for i, entry in enumerate(entries)]


def encode(components, digits, signs):
    """The triple of a choice of components, of the permutation's digits and of the signs' bits."""
    d = len(digits)
    bits = sum(2**i for i, sign in enumerate(signs) if sign)
    return sum(2**k for k in components), sum(digit * d**j for j, digit in enumerate(digits)), bits


@st.composite
def triples(draw):
    """(d, s, a valid triple)."""
    d, s = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    components = draw(st.permutations(range(s * d)))[:d]
    digits = [draw(st.integers(0, d - j - 1)) for j in range(d)]
    return d, s, encode(components, digits, draw(st.lists(st.booleans(), min_size=d, max_size=d)))


def series(f, history, steps):
    """x(0) … x(s + steps − 1), (…, s + steps, d): the definition of a history-dependent system, vector by vector."""
    s = history.shape[-2]
    xs = [history[..., t, :] for t in range(s)]
    for _ in range(steps):
        xs.append(f(np.stack(xs[-s:], axis=-2)))
    return np.stack(xs, axis=-2)


def linear(operator):
    """f(H) for H (…, s, d), in whatever numbers H has."""
    return lambda substrate: substrate.reshape(*substrate.shape[:-2], -1) @ operator.T.astype(substrate.dtype)


# Operators


@given(triples())
def test_a_triple_is_decoded_as_defined(case):
    d, s, triple = case
    operator = theory.binding_operator(triple, d, s)
    assert operator.shape == (d, s * d)
    expected = np.zeros_like(operator)
    for i, (component, sign) in enumerate(decode(triple, d, s)):
        expected[i, component] = sign
    np.testing.assert_array_equal(operator, expected)


@given(triples())
def test_one_sign_an_output_and_no_component_twice(case):
    d, s, triple = case
    operator = theory.binding_operator(triple, d, s)
    np.testing.assert_array_equal(operator @ operator.T, np.eye(d))
    assert set(np.unique(operator)) <= {-1.0, 0.0, 1.0}


def test_triples_are_all_operators_once():
    """C(sd, d) choices, d! orders and 2^d signs: each valid triple another operator."""
    d, s = 3, 2
    choices = [sum(2**k for k in chosen) for chosen in itertools.combinations(range(s * d), d)]
    orders = [encode((), digits, ())[1] for digits in itertools.product(range(3), range(2), range(1))]
    operators = {
        theory.binding_operator(triple, d, s).tobytes() for triple in itertools.product(choices, orders, range(2**d))
    }
    assert len(operators) == math.comb(6, 3) * math.factorial(3) * 2**3


def test_the_published_tasks():
    oldest_first = np.arange(64.0).reshape(8, 8)
    copied = theory.binding_operator(theory.TASKS["T1"]) @ oldest_first.ravel()
    np.testing.assert_array_equal(copied, oldest_first[0])
    composed = theory.binding_operator(theory.TASKS["T2"]) @ oldest_first.ravel()
    np.testing.assert_array_equal(composed, np.diag(oldest_first))
    # By hand, from octal 1001024 and 113355 and the bits of 189 and 145.
    assert np.argmax(np.abs(theory.binding_operator(theory.TASKS["T3"])), 1).tolist() == [36, 27, 18, 0, 9, 45, 63, 54]
    assert theory.binding_operator(theory.TASKS["T3"]).sum(1).tolist() == [-1, 1, -1, -1, -1, -1, 1, -1]
    assert np.argmax(np.abs(theory.binding_operator(theory.TASKS["T4"])), 1).tolist() == [45, 54, 0, 9, 18, 27, 36, 63]
    assert theory.binding_operator(theory.TASKS["T4"]).sum(1).tolist() == [-1, 1, 1, 1, -1, 1, 1, -1]


def test_numpy_integers_make_a_triple():
    triple = np.array(theory.TASKS["T4"], np.uint64)
    np.testing.assert_array_equal(theory.binding_operator(triple), theory.binding_operator(theory.TASKS["T4"]))


@pytest.mark.parametrize(
    ("triple", "sizes", "message"),
    [
        ((255, 0), (8, 8), r"triple = \(255, 0\): must be three whole numbers \(id1, id2, id3\), 0 or more"),
        ((255, 0, 0.5), (8, 8), "triple = .*three whole numbers"),
        ((255, 0, -1), (8, 8), "triple = .*three whole numbers"),
        ((255, 0, True), (8, 8), "triple = .*three whole numbers"),
        ("255", (8, 8), "triple = '255': must be three whole numbers"),
        (255, (8, 8), "triple = 255: must be three whole numbers"),
        ((2**64 + 127, 0, 0), (8, 8), r"id1 = 18446744073709551743: must be below 2\^64: a bit for each of 8·8 "),
        ((64, 0, 0), (2, 3), r"id1 = 64: must be below 2\^6: a bit for each of 3·2 components"),
        ((7, 0, 0), (2, 3), r"id1 = 7: .*exactly 2 bits set, one for each output \(it has 3\)"),
        ((0, 0, 0), (1, 1), r"id1 = 0: .*exactly 1 bits set, .*\(it has 0\)"),
        ((3, 4, 0), (2, 3), r"id2 = 4: must be below 2\^2: 2 digits in base 2"),
        ((1, 1, 0), (1, 1), r"id2 = 1: must be below 1\^1: 1 digits in base 1"),
        ((255, 7 * 8, 0), (8, 8), r"id2 = 56: .*digit 1 in base 8 is below 8 − 1 = 7 \(it is 7\)"),
        ((255, 8**7, 0), (8, 8), r"id2 = 2097152: .*digit 7 in base 8 is below 8 − 7 = 1 \(it is 1\)"),
        ((255, 0, 256), (8, 8), r"id3 = 256: must be below 2\^8: a bit for each of 8 outputs"),
        ((255, 0, 0), (0, 8), "size = 0: must be a whole number, 1 or more"),
        ((255, 0, 0), (8, 1.5), "columns = 1.5: must be a whole number, 1 or more"),
    ],
)
def test_a_triple_that_is_none_is_refused_with_the_reason(triple, sizes, message):
    with pytest.raises(InvalidValue, match=message):
        theory.binding_operator(triple, *sizes)


def test_of_all_permutation_numbers_as_many_are_taken_as_there_are_permutations():
    taken = 0
    for id2 in range(4**4):
        try:
            theory.binding_operator((15, id2, 0), 4, 1)
        except InvalidValue:
            continue
        taken += 1
    assert taken == math.factorial(4)


def test_fibonacci():
    assert series(linear(theory.fibonacci_operator(1, 2)), np.ones((2, 1)), 8)[:, 0].tolist() == [
        1, 1, 2, 3, 5, 8, 13, 21, 34, 55,
    ]  # fmt: skip
    history = np.random.default_rng(0).normal(size=(4, 5, 3))
    np.testing.assert_allclose(linear(theory.fibonacci_operator(3, 5))(history), history.sum(-2), atol=1e-14)


@given(st.integers(1, 6))
def test_compose_copy(size):
    history = np.random.default_rng(size).normal(size=(size, size))
    np.testing.assert_array_equal(linear(theory.compose_copy_operator(size))(history), np.diag(history))
    # Element i comes back after d − i steps, for ever.
    xs = series(linear(theory.compose_copy_operator(size)), history, 20)
    for i in range(size):
        np.testing.assert_array_equal(xs[size:, i], xs[i : len(xs) - size + i, i])


@pytest.mark.parametrize("make", [theory.fibonacci_operator, lambda size, _: theory.compose_copy_operator(size)])
def test_operators_of_no_size_are_refused(make):
    with pytest.raises(InvalidValue, match="size = 0: must be a whole number, 1 or more"):
        make(0, 3)


# Φ


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_phi_is_one_step_of_the_substrate(d, s, seed):
    rng = np.random.default_rng(seed)
    operator, substrate = rng.normal(size=(d, s * d)), rng.normal(size=(s, d))
    stepped = np.vstack([substrate[1:], linear(operator)(substrate)])
    np.testing.assert_allclose(theory.phi(operator) @ substrate.ravel(), stepped.ravel(), atol=1e-13)
    # Apart from the boundary it is the shift alone, whose power s is zero.
    boundary = theory.phi(operator) - theory.phi(np.zeros_like(operator))
    assert np.linalg.matrix_rank(boundary) == d
    assert not np.linalg.matrix_power(theory.phi(np.zeros_like(operator)), s).any()


@given(st.integers(1, 6), st.integers(0, 99))
def test_eigenvalues_of_one_wave_are_the_roots_of_its_polynomial(s, seed):
    """λ^s = f_1 + f_2 λ + … + f_s λ^{s−1}."""
    operator = np.random.default_rng(seed).normal(size=(1, s))
    roots = np.roots([1.0, *-operator[0, ::-1]])
    assert np.max(np.abs(roots)) == pytest.approx(theory.spectral_radius(theory.phi(operator)), rel=1e-9)
    np.testing.assert_allclose(np.poly(theory.phi(operator)), [1.0, *-operator[0, ::-1]], atol=1e-9)


@pytest.mark.parametrize("shape", [(3, 8), (3,), (2, 2, 2), (0, 4), (2, 0), (3, 2)])
def test_an_operator_of_another_shape_is_refused(shape):
    for use in (theory.phi, theory.warn_if_unstable, lambda operator: theory.writing_input(operator, np.ones((2, 2)))):
        with pytest.raises(InvalidValue, match=r"operator.shape = \(.*\): must be \(d, s·d\)") as refused:
            use(np.ones(shape))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("task", TASKS)
def test_the_published_tasks_are_stable(task):
    """They neither grow nor fade: no warning, and a spectral radius of 1."""
    operator = theory.binding_operator(theory.TASKS[task])
    assert theory.spectral_radius(theory.phi(operator)) == pytest.approx(1.0, abs=1e-9)
    theory.warn_if_unstable(operator)


def test_an_unstable_boundary_is_told_with_its_radius():
    golden = (1 + 5**0.5) / 2
    with pytest.warns(UserWarning, match=rf"spectral radius of Φ = {golden:.5f}\d? > 1"):
        theory.warn_if_unstable(theory.fibonacci_operator(2, 2))
    theory.warn_if_unstable((1 + 1e-7) * np.eye(2))
    with pytest.warns(UserWarning, match=r"spectral radius of Φ = 1.00001 > 1"):
        theory.warn_if_unstable((1 + 1e-5) * np.eye(2))


# Bases


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 6), st.integers(0, 99))
def test_a_basis_and_its_dual(s, d, more, seed):
    basis = theory.random_basis(np.random.default_rng(seed), s * d + more, s, d)
    assert basis.vectors.shape == basis.dual.shape[::-1] == (s * d + more, s * d)
    bound = 1e-13 * np.linalg.cond(basis.vectors)
    np.testing.assert_allclose(basis.dual @ basis.vectors, np.eye(s * d), atol=bound)
    projection = basis.vectors @ basis.dual
    np.testing.assert_allclose(projection, projection.T, atol=bound)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.eye(4, 5), "neurons = 4: must be 5 or more, as many as the basis has vectors"),
        (np.ones((6, 2)), "rank = 1: must be 2, the number of vectors: a basis is linearly independent"),
        (np.vander(np.arange(6.0), 4) @ np.diag([1, 1, 1, 0]), "rank = 3: must be 4, the number of vectors"),
        (np.ones(3), r"vectors = 'an array of shape \(3,\)': must be a finite matrix"),
        (np.ones((3, 0)), r"vectors = .*\(3, 0\).*: must be a finite matrix"),
        (np.full((2, 2), np.nan), r"vectors = .*\(2, 2\).*: must be a finite matrix"),
    ],
)
def test_what_is_no_basis_is_refused(vectors, message):
    with pytest.raises(InvalidValue, match=message):
        theory.basis(vectors)


def test_random_bases_are_drawn_from_their_generator():
    first, again, other = (theory.random_basis(np.random.default_rng(seed), 400, 2, 3) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert np.abs(first.vectors - other.vectors).min() > 0
    # 6 vectors of 400 neurons: of length 1 ± 0.2, and nearly orthogonal.
    np.testing.assert_allclose(first.vectors.T @ first.vectors, np.eye(6), atol=0.2)
    with pytest.raises(InvalidValue, match="neurons = 5: must be 6 or more"):
        theory.random_basis(np.random.default_rng(0), 5, 2, 3)
    with pytest.raises(InvalidValue, match="columns = 0: must be a whole number"):
        theory.random_basis(np.random.default_rng(0), 5, 0, 3)


# What to feed it


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_the_writing_input_writes_the_history(d, s, seed):
    rng = np.random.default_rng(seed)
    operator, history = rng.normal(size=(d, s * d)), rng.normal(size=(3, 2, s, d))
    inputs = theory.writing_input(operator, history)
    assert inputs.shape == history.shape
    substrate = np.zeros((3, 2, s * d))
    for t in range(s):
        substrate = substrate @ theory.phi(operator).T
        substrate[..., -d:] += inputs[..., t, :]
    np.testing.assert_allclose(substrate.reshape(history.shape), history, rtol=1e-12, atol=1e-12)


def test_only_a_boundary_that_reads_the_oldest_column_is_fed_with_the_history():
    history = np.random.default_rng(0).choice([-1.0, 1.0], size=(8, 8))
    fed = {task: theory.writing_input(theory.binding_operator(theory.TASKS[task]), history) for task in TASKS}
    np.testing.assert_array_equal(fed["T1"], history)
    assert not any(np.array_equal(fed[task], history) for task in ("T2", "T3", "T4"))


@pytest.mark.parametrize("shape", [(8,), (7, 8), (3, 8, 7)])
def test_a_history_of_another_shape_is_refused(shape):
    with pytest.raises(InvalidValue, match=r"history.shape = .*: must be \(…, 8, 8\): s columns of d neurons"):
        theory.writing_input(theory.compose_copy_operator(8), np.ones(shape))


def weights_by_lag(operator, steps):
    """For every pair of elements and every lag: the weights that x(s + t) gives to x(τ) over all s + t − τ = lag."""
    d, components = operator.shape
    s = components // d
    responses = series(linear(operator), np.eye(components).reshape(components, s, d), steps)[:, s:]
    weights = {}
    for t, (tau, element) in itertools.product(range(steps), np.ndindex(s, d)):
        for output, weight in enumerate(responses[tau * d + element, t]):
            weights.setdefault((output, element, s + t - tau), set()).add(float(weight))
    return weights


def test_no_time_invariant_network_repeats_t2_from_its_plain_inputs():
    """It would weigh an input by its age alone. T1 does; T2, and all that read newer columns, do not."""
    single_valued = {
        task: all(len(values) == 1 for values in weights_by_lag(theory.binding_operator(triple), 9).values())
        for task, triple in theory.TASKS.items()
    }
    assert single_valued == {"T1": True, "T2": False, "T3": False, "T4": False}
    # The argument as documented: the last element, 2 steps ago.
    assert weights_by_lag(theory.compose_copy_operator(8), 2)[7, 7, 2] == {0.0, 1.0}


# The RNN that needs no training


def rnn_model(neurons, size):
    cell = cells.elman(neurons, activation="identity", use_bias=False)
    return readouts.with_readout(cell, readouts.linear(size, use_bias=False))


def run_rnns(operators, bases, inputs, dtype):
    """What RNNs with as many neurons each answer to their inputs ``(M, B, T, d)``, all in one program."""
    model = rnn_model(len(bases[0].vectors), inputs.shape[-1])
    with warnings.catch_warnings(), jax.enable_x64(True):
        warnings.simplefilter("ignore", UserWarning)
        params = [theory.rnn(operator, basis) for operator, basis in zip(operators, bases, strict=True)]
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves).astype(dtype), *params)
        answers = jax.vmap(lambda params, xs: unroll(model, params, xs).outputs)(params, jnp.asarray(inputs, dtype))
        assert answers.dtype == dtype
        return np.asarray(answers, np.float64)


def error_bound(operator, basis, targets, inputs, dtype):
    """Of the answers, at every step ``(T,)``, relative to the largest target there, for targets ``(B, T, d)``.

    A step rounds h by at most e = 2 ε (‖W‖ ‖h‖ + ‖Ψ_s‖ ‖u‖), norms of Frobenius: once for the weights, once for the
    sums, whose errors are of either sign. In the substrate that is at most ‖Ψ⁺‖ e, which Φ^k carries on.
    """
    batch, steps, size = targets.shape
    phi, eps = theory.phi(operator), np.finfo(dtype).eps
    recurrence = np.linalg.norm(basis.vectors @ phi @ basis.dual)
    columns = len(phi) // size
    past = np.concatenate([np.zeros((batch, columns, size)), targets], 1)
    substrates = np.stack([past[:, t : t + columns].reshape(batch, -1) for t in range(steps + 1)])
    hidden = np.hypot.reduce(substrates @ basis.vectors.T, axis=2).max(1)  # A norm that does not overflow.
    driven = np.linalg.norm(basis.vectors[:, -size:]) * np.linalg.norm(inputs, axis=2).max(0)
    rounded = 2 * eps * np.linalg.norm(basis.dual, 2) * (recurrence * hidden[:-1] + driven)
    powers = [np.eye(len(phi))]
    for _ in range(steps - 1):
        powers.append(phi @ powers[-1])
    carried = np.linalg.norm(powers, 2, axis=(1, 2))
    in_substrate = np.array([np.dot(carried[: t + 1], rounded[t::-1]) for t in range(steps)])
    read_out = 2 * eps * np.linalg.norm(basis.dual[-size:]) * hidden[1:]
    return (in_substrate + read_out) / np.abs(targets).max((0, 2))


def conditioned_basis(rng, neurons, count, condition):
    """A random basis whose singular values go from 1 to ``condition``."""
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (neurons, count))
    return theory.basis(left[:, :count] * np.geomspace(1, condition, count) @ right)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("neurons", [64, 100])
def test_an_untrained_rnn_solves_the_published_tasks(neurons, dtype):
    """T1 to T4 in three bases each, over the paper's horizon of 200 steps."""
    rng = np.random.default_rng(neurons)
    operators, bases = [], []
    for triple in theory.TASKS.values():
        # As many normal vectors as neurons are too ill-conditioned for float32 to hold anything for 200 steps.
        normal = dtype == np.float64 or neurons > 64
        drawn = theory.random_basis(rng, neurons, 8, 8) if normal else conditioned_basis(rng, neurons, 64, 3)
        bases += [conditioned_basis(rng, neurons, 64, 1), conditioned_basis(rng, neurons, 64, 6), drawn]
        operators += 3 * [theory.binding_operator(triple)]
    history = rng.choice([-1.0, 1.0], size=(len(operators), 3, 8, 8))
    targets = np.stack([series(linear(f), x, 200) for f, x in zip(operators, history, strict=True)])
    inputs = np.stack([theory.writing_input(f, x) for f, x in zip(operators, history, strict=True)])
    inputs = np.concatenate([inputs, np.zeros_like(targets[:, :, 8:])], 2)
    answers = run_rnns(operators, bases, inputs, dtype)
    errors = np.abs(answers - targets).max(axis=(1, 3))
    for operator, basis, target, fed, error in zip(operators, bases, targets, inputs, errors, strict=True):
        bound = error_bound(operator, basis, target, fed, dtype)
        assert np.all(bound < 0.5)  # It tells a vector from any other.
        assert np.all(error <= bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_untrained_rnn_adds_up_fibonacci_as_long_as_numbers_last(dtype):
    """Relative to the series in whole numbers of any length, until a state or a partial sum may overflow."""
    s, d = 3, 2
    operator, rng, largest = theory.fibonacci_operator(d, s), np.random.default_rng(0), float(np.finfo(dtype).max)
    steps = int(math.log(largest) / math.log(theory.spectral_radius(theory.phi(operator))))
    history = rng.integers(1, 9, size=(2, s, d)).astype(object)
    exact = series(linear(operator.astype(int)), history, steps)
    for neurons in (s * d, 2 * s * d):
        basis = conditioned_basis(rng, neurons, s * d, 4)
        growth = np.linalg.norm(basis.vectors @ theory.phi(operator) @ basis.dual) * np.linalg.norm(basis.vectors)
        room = math.log(largest / (growth * math.sqrt(s * d)))
        targets = exact[:, [math.log(max(x.ravel())) < room for x in exact.swapaxes(0, 1)]].astype(np.float64)
        assert targets[:, -1].max() > largest / 1e3
        inputs = np.zeros_like(targets)
        inputs[:, :s] = theory.writing_input(operator, history.astype(np.float64))
        (answers,) = run_rnns([operator], [basis], inputs[None], dtype)
        error = (np.abs(answers - targets) / targets.max((0, 2))[None, :, None]).max((0, 2))
        bound = error_bound(operator, basis, targets, inputs, dtype)
        assert np.all(bound < 0.01)
        assert np.all(error <= bound)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 5), st.integers(0, 99))
def test_the_rnn_is_the_substrate_in_its_basis(s, d, more, seed):
    """W Ψ = Ψ Φ: it acts on the basis as Φ on the substrate; on what is orthogonal to the basis, W = 0."""
    rng = np.random.default_rng(seed)
    operator = rng.normal(size=(d, s * d)) / (s * d)
    basis = theory.random_basis(rng, s * d + more, s, d)
    assume(np.linalg.cond(basis.vectors) < 1e4)
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        params = jax.tree.map(np.asarray, theory.rnn(operator, basis))
    recurrence, encoder = params["cell"]["recurrence"]["kernel"], params["cell"]["encoder"]["kernel"]
    np.testing.assert_allclose(recurrence @ basis.vectors, basis.vectors @ theory.phi(operator), atol=1e-7)
    projection = basis.vectors @ basis.dual
    np.testing.assert_allclose(recurrence @ projection, recurrence, atol=1e-7)
    np.testing.assert_allclose(params["readout"]["output"]["kernel"] @ encoder, np.eye(d), atol=1e-10)
    # It is a parameter tree of that very model.
    shapes = jax.eval_shape(lambda: rnn_model(s * d + more, d).init(jax.random.key(0), d))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)


def test_the_rnn_says_what_does_not_fit_and_what_grows():
    basis = theory.random_basis(np.random.default_rng(0), 9, 3, 2)
    with pytest.raises(InvalidValue, match="basis = '6 vectors': must be of 8, the operator's components"):
        theory.rnn(np.zeros((2, 8)), basis)
    with pytest.raises(InvalidValue, match=r"operator.shape = \(4, 6\)"):
        theory.rnn(np.zeros((4, 6)), basis)
    with pytest.warns(UserWarning, match="spectral radius of Φ = 1.8"):
        theory.rnn(theory.fibonacci_operator(2, 3), basis)
