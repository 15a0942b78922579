"""Traveling-wave working memory: the theorem, its boundaries, its waves, and its parallel unroll."""

import functools
import math

import flax.linen
import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from wrnn_jax import cells, readouts, theory, unroll
from wrnn_jax.cells.base import choose_backend
from wrnn_jax.nn import linen, nnx
from wrnn_jax.validation import InvalidValue

KEY = jax.random.key(0)
few = settings(max_examples=4, phases=[Phase.explicit, Phase.generate])
"""Every example is compiled anew."""
OPTIONS = ("outputs", "backend", "time_major", "return_hidden")
compiled_unroll = functools.partial(jax.jit, static_argnums=0, static_argnames=OPTIONS)(unroll)


def history_system(f, history, steps):
    """x(0) … x(s + steps − 1) of single vectors (s, d): a growing list, f of its last s."""
    xs = list(history)
    for _ in range(steps):
        xs.append(f(xs[-len(history) :]))
    return np.array(xs)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def with_silence(history, steps):
    """(…, s, d) and zeros after it: (…, s + steps, d)."""
    return np.concatenate([history, np.zeros((*history.shape[:-2], steps, history.shape[-1]), history.dtype)], axis=-2)


def linear_twm(operator, input_steps=0, freeze=False):
    size, components = operator.shape
    boundary = cells.linear_boundary(components // size, size, freeze=freeze)
    return cells.twm(boundary, input_steps=input_steps), {"operator": jnp.asarray(operator)}


# The theorem


@few
@given(s=st.integers(1, 5), d=st.integers(1, 4), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_history_dependent_system_is_a_twm(s, d, width, seed):
    """For random f of two layers: f(x) = B tanh(A x + a) + b."""
    rng = np.random.default_rng(seed)
    inner, outer = rng.normal(size=(width, s * d)) / np.sqrt(s * d), rng.normal(size=(d, width))
    shift, offset = rng.normal(size=width), rng.normal(size=d)

    def f(substrate):
        flat = substrate.reshape(*substrate.shape[:-2], s * d)
        hidden = jnp.tanh(jnp.einsum("wk,...k->...w", inner, flat) + jnp.broadcast_to(shift, (*flat.shape[:-1], width)))
        return jnp.einsum("dw,...w->...d", outer, hidden) + jnp.broadcast_to(offset, (*flat.shape[:-1], d))

    def plain(vectors):
        return [sum(outer[i] * np.tanh(inner @ np.concatenate(vectors) + shift)) + offset[i] for i in range(d)]

    history = rng.normal(size=(3, s, d))
    with jax.enable_x64(True):
        inputs = jnp.asarray(with_silence(history, 25))
        outputs = compiled_unroll(cells.history_system(f, s, d), {}, inputs).outputs
        np.testing.assert_allclose(outputs, [history_system(plain, x, 25) for x in history], rtol=1e-9, atol=1e-9)


def test_the_published_tasks_exactly():
    """One cell, vmapped over the operators of T1 to T4; a selection of ±1 rounds nothing, in 200 steps."""
    operators = np.stack([theory.binding_operator(triple) for triple in theory.TASKS.values()])
    history = np.random.default_rng(0).choice([-1.0, 1.0], size=(4, 2, 8, 8))
    cell, _ = linear_twm(operators[0], input_steps=8)

    def answer(operator, xs):
        return unroll(cell, {"operator": operator}, xs).outputs

    inputs = jnp.asarray(with_silence(history, 200), jnp.float32)
    outputs = jax.jit(jax.vmap(answer))(jnp.asarray(operators, jnp.float32), inputs)
    for operator, of_task, answers in zip(operators, history, outputs, strict=True):
        for x, y in zip(of_task, answers, strict=True):
            np.testing.assert_array_equal(y, history_system(lambda xs, f=operator: f @ np.concatenate(xs), x, 200))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fibonacci_up_to_the_largest_number(dtype):
    """Against whole numbers of any length: off by at most a rounding for each sum; the next number is inf."""
    s, d, largest = 3, 2, int(np.finfo(dtype).max)
    history = np.random.default_rng(1).integers(1, 9, size=(s, d)).astype(object)
    # A component at a time: they overflow at different steps.
    exact = history_system(sum, history, math.ceil(math.log(largest) / math.log(1.839)) + 1)
    with pytest.warns(UserWarning, match="spectral radius of Φ = 1.839"):
        cell = cells.twm(cells.linear_boundary(s, d, theory.fibonacci_operator(d, s)), input_steps=s)
    with jax.enable_x64(True):
        inputs = with_silence(history.astype(dtype), len(exact) - s)
        outputs = np.asarray(compiled_unroll(cell, cell.init(KEY, d), jnp.asarray(inputs), time_major=True).outputs)
    assert outputs.dtype == dtype
    for series, answers in zip(exact.T, outputs.T, strict=True):
        (finite,) = np.nonzero([x <= largest for x in series])
        assert np.isinf(answers[len(finite)])
        assert len(finite) > (130 if dtype == np.float32 else 1100)
        error = [abs(float(y) / x - 1) for x, y in zip(series[finite].astype(float), answers[finite], strict=True)]
        assert np.all(error <= 2 * np.finfo(dtype).eps * np.arange(1, len(finite) + 1))


def test_an_open_boundary_wants_the_writing_input():
    """Without an input phase the boundary acts from the start: f + u is written, so u has to leave f out."""
    operator = theory.binding_operator(theory.TASKS["T4"])
    history = normal(2, 8, 8)
    with jax.enable_x64(True):
        (phased, params), (always, _) = linear_twm(operator, input_steps=8), linear_twm(operator)
        expected = compiled_unroll(phased, params, jnp.asarray(with_silence(history, 30))).outputs
        fed = jnp.asarray(with_silence(theory.writing_input(operator, history), 30))
        np.testing.assert_allclose(compiled_unroll(always, params, fed).outputs, expected, atol=1e-13)
        plain = compiled_unroll(always, params, jnp.asarray(with_silence(history, 30))).outputs
        assert np.abs(plain[:, 8:] - expected[:, 8:]).min(axis=0).max() > 0.1


# Waves


def boundaries(s=5, d=4):
    return {
        "linear": cells.linear_boundary(s, d),
        "attention": cells.attention_boundary(s, d, heads=2, projections="learned"),
        "function": cells.function_boundary(s, d, lambda substrate: jnp.tanh(substrate).sum(-2)),
    }


@pytest.mark.parametrize("name", boundaries())
def test_along_the_wave_gradients_neither_vanish_nor_mix(name):
    """For k < s steps ∂H_i(t+k)/∂H_{i+k}(t) is the identity, and of no other column: norm 1."""
    s, d = 5, 4
    cell = cells.twm(boundaries()[name])
    params, carry = cell.init(KEY, d), jnp.asarray(normal(s, d), jnp.float32)

    @jax.jit
    @functools.partial(jax.jacfwd, argnums=0)
    def jacobian(flat, steps):
        def step(_, carry):
            return cell.step(params, carry, jnp.zeros(d))[0]

        return jax.lax.fori_loop(0, steps, step, flat.reshape(s, d)).ravel()

    for k in range(1, s):
        surviving = np.asarray(jacobian(carry.ravel(), k))[: (s - k) * d]
        np.testing.assert_array_equal(surviving, np.eye(s * d)[k * d :])
        assert np.linalg.norm(surviving, 2) == 1.0


def test_what_leaves_never_returns():
    """With a closed start boundary the substrate is empty after s steps; H_1 has no say in the next."""
    s, d = 5, 3
    cell, params = linear_twm(np.zeros((d, s * d), np.float32))
    carry = jnp.asarray(normal(2, s, d), jnp.float32)
    hidden = np.asarray(compiled_unroll(cell, params, jnp.zeros((2, s, d)), carry=carry, return_hidden=True).hidden)
    assert np.all(np.any(hidden[:, :-1] != 0, axis=(2, 3)))
    assert not hidden[:, -1].any()
    newest_only, params = linear_twm(np.eye(d, s * d, (s - 1) * d, dtype=np.float32))
    others = carry.at[:, 0].set(9.0)
    stepped = [newest_only.step(params, start, jnp.ones((2, d)))[0] for start in (carry, others)]
    np.testing.assert_array_equal(*stepped)


def test_waves_travel_down_the_index():
    """Element c of what was put in at t stands in wave c at column s − 1 − k after k more steps; then it is gone."""
    s, d, steps = 4, 2, 9
    cell, params = linear_twm(np.zeros((d, s * d), np.float32))
    xs = jnp.asarray(normal(steps, d), jnp.float32)
    result = compiled_unroll(cell, params, xs, time_major=True, return_hidden=True)
    assert result.hidden.shape == (steps, d, s)
    np.testing.assert_array_equal(result.outputs, xs)
    for t in range(steps):
        for k in range(min(s, steps - t)):
            np.testing.assert_array_equal(result.hidden[t + k, :, s - 1 - k], xs[t])


def test_the_input_phase_writes_what_it_is_given_and_nothing_else():
    """Then the boundary is added; a sequence in two halves goes on where it was."""
    s, d, closed = 3, 2, 5
    boundary = cells.function_boundary(s, d, lambda substrate: 1.0 + substrate[..., 0, :])
    cell = cells.twm(boundary, input_steps=closed)
    xs = jnp.asarray(normal(2, 4, 9, d), jnp.float32)
    result = compiled_unroll(cell, {}, xs)
    np.testing.assert_array_equal(result.outputs[..., :closed, :], xs[..., :closed, :])
    expected = xs[..., closed, :] + 1 + xs[..., closed - s, :]
    np.testing.assert_allclose(result.outputs[..., closed, :], expected, rtol=1e-6)
    leaves = jax.tree.leaves(result.carry)
    assert [(leaf.shape, leaf.dtype) for leaf in leaves] == [((2, 4, s, d), jnp.float32), ((2, 4), jnp.int32)]
    first = compiled_unroll(cell, {}, xs[..., :3, :])
    second = compiled_unroll(cell, {}, xs[..., 3:, :], carry=first.carry)
    jax.tree.map(np.testing.assert_array_equal, second.carry, result.carry)
    np.testing.assert_array_equal(second.outputs, result.outputs[..., 3:, :])


# Boundaries


def attend(vectors, heads, project):
    """Attention of the last vector to all, head by head and vector by vector, in plain Python and NumPy."""
    d = len(vectors[0])
    query = np.split(project["query"] @ vectors[-1], heads)
    answer = []
    for head in range(heads):
        keys = [np.split(project["key"] @ x, heads)[head] for x in vectors]
        values = [np.split(project["value"] @ x, heads)[head] for x in vectors]
        weights = np.exp([query[head] @ key / math.sqrt(d / heads) for key in keys])
        answer.append(sum(w * value for w, value in zip(weights, values, strict=True)) / weights.sum())
    return project["output"] @ np.concatenate(answer)


@pytest.mark.parametrize(
    ("s", "d", "heads", "projections"),
    [(4, 6, 1, "identity"), (4, 6, 3, "identity"), (5, 4, 2, "learned"), (1, 2, 1, "learned"), (3, 3, 3, "learned")],
)
def test_the_attention_boundary_is_an_autoregressive_transformer_loop(s, d, heads, projections):
    """Prompted, then on its own, each vector attention's answer in a window of s: at first partly of zero vectors."""
    cell = cells.twm(cells.attention_boundary(s, d, heads=heads, projections=projections))
    with jax.enable_x64(True):
        rng = np.random.default_rng(heads)
        params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / math.sqrt(d)), cell.init(KEY, d))
        kernels = {name: np.asarray(part["kernel"]) for name, part in params.items()}
        project = kernels or dict.fromkeys(("query", "key", "value", "output"), np.eye(d))
        prompt = normal(2, s + 2, d)
        outputs = compiled_unroll(cell, params, jnp.asarray(with_silence(prompt, 12))).outputs
    for inputs, got in zip(with_silence(prompt, 12), outputs, strict=True):
        vectors = [np.zeros(d) for _ in range(s)]
        for u in inputs:
            vectors.append(attend(vectors[-s:], heads, project) + u)
        np.testing.assert_allclose(got, vectors[s:], rtol=1e-9, atol=1e-9)


def test_attention_learns_through_all_its_projections():
    cell = cells.twm(cells.attention_boundary(3, 4, heads=2, projections="learned"))
    params, xs = cell.init(KEY, 4), jnp.asarray(normal(2, 7, 4), jnp.float32)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(unroll(cell, params, xs).outputs[:, -1])))(params)
    assert set(gradient) == {"query", "key", "value", "output"}
    assert all(np.abs(leaf).max() > 1e-5 for leaf in jax.tree.leaves(gradient))
    assert cells.attention_boundary(3, 4).init(KEY) == {}


def test_a_linear_boundary_starts_as_given_or_stable():
    operator = theory.binding_operator(theory.TASKS["T3"])
    given = cells.linear_boundary(8, 8, operator).init(KEY)
    np.testing.assert_array_equal(given["operator"], operator)
    for s, d in ((8, 8), (2, 1), (20, 3)):
        keys = jax.random.split(KEY, 20)
        starts = np.asarray(jax.vmap(cells.linear_boundary(s, d).init)(keys)["operator"])
        assert starts.shape == (20, d, s * d)
        assert 0.8 < np.abs(starts).max() * np.sqrt(s * d) <= 1.0
        radii = [theory.spectral_radius(theory.phi(start)) for start in starts]
        assert np.mean(radii) < 1
        assert max(radii) < 1.2  # At most 60 times as large after 8·8 steps.


def test_freezing_stops_the_operators_gradient_alone():
    operator = normal(2, 6) / 4
    xs = jnp.asarray(normal(3, 7, 2), jnp.float32)

    def gradients(freeze, backend):
        cell, params = linear_twm(operator.astype(np.float32), freeze=freeze)

        def loss(params, xs):
            return jnp.sum(unroll(cell, params, xs, backend=backend).outputs ** 2)

        return jax.jit(jax.grad(loss, (0, 1)))(params, xs)

    for backend in ("scan", "parallel"):
        (trained, to_inputs), (frozen, same) = (gradients(freeze, backend) for freeze in (False, True))
        assert np.all(trained["operator"] != 0)
        assert not frozen["operator"].any()
        np.testing.assert_array_equal(to_inputs, same)


# The parallel unroll

READOUTS = {
    "none": None,
    "linear": readouts.linear(3),
    "no bias": readouts.linear(3, use_bias=False),
    "mlp": readouts.mlp(3, 4),
}


def assert_parallel_is_the_scan(s, d, steps, batch, readout, last, seed=0):
    """In value, and in what random cotangents pull back to parameters, carry and inputs."""
    rng = np.random.default_rng(seed)
    cell, _ = linear_twm(np.zeros((d, s * d)))
    if READOUTS[readout]:
        cell = readouts.with_readout(cell, READOUTS[readout])

    def run(backend):
        def apply(params, carry, xs):
            options = {"carry": carry, "outputs": "last" if last else "all", "time_major": True, "backend": backend}
            return unroll(cell, params, xs, **options)[:2]

        @jax.jit
        def both(args, cotangents):
            value, pull_back = jax.vjp(apply, *args)
            return value, pull_back(cotangents)

        return both

    with jax.enable_x64(True):
        shapes = jax.eval_shape(lambda: cell.init(KEY, d))
        params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes)
        inner = params["cell"] if READOUTS[readout] else params
        inner["operator"] = inner["operator"] / (s * d)
        args = params, jnp.asarray(rng.normal(size=(batch, s, d))), jnp.asarray(rng.normal(size=(steps, batch, d)))
        out = () if last else (steps,)
        cotangents = rng.normal(size=(batch, s, d)), rng.normal(size=(*out, batch, cell.output_size))
        cotangents = jax.tree.map(jnp.asarray, cotangents)
        got, expected = (run(backend)(args, cotangents) for backend in ("parallel", "scan"))
        assert jax.tree.map(np.shape, got) == jax.tree.map(np.shape, expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), got, expected)


@few
@given(
    s=st.integers(1, 4),
    d=st.integers(1, 4),
    steps=st.integers(1, 20),
    batch=st.integers(1, 3),
    readout=st.sampled_from(sorted(READOUTS)),
    last=st.booleans(),
)
def test_the_parallel_unroll_is_the_scan(s, d, steps, batch, readout, last):
    assert_parallel_is_the_scan(s, d, steps, batch, readout, last)


@pytest.mark.parametrize(("steps", "readout", "last"), [(1, "linear", True), (2, "no bias", True), (13, "mlp", False)])
def test_the_parallel_unroll_for_each_readout(steps, readout, last):
    assert_parallel_is_the_scan(3, 2, steps, 2, readout, last)


def test_the_parallel_unroll_keeps_the_dtype_of_the_carry():
    """In bfloat16 too, where it computes in float32: nearer to exact than the scan is."""
    cell, params = linear_twm((normal(2, 6) / 6).astype(np.float32))
    xs = jnp.asarray(normal(3, 40, 2), jnp.bfloat16)
    exact = np.asarray(compiled_unroll(cell, cast_down(params), xs.astype(jnp.float32)).outputs)
    carry, outputs, _ = compiled_unroll(cell, params, xs, backend="parallel")
    assert carry.dtype == outputs.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(outputs, np.float32), exact, atol=2**-8 * np.abs(exact).max())


def cast_down(params):
    """The values that bfloat16 has, as float32."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)


def test_a_selection_is_exact_in_parallel():
    operator = theory.binding_operator(theory.TASKS["T3"]).astype(np.float32)
    cell, params = linear_twm(operator)
    xs = jnp.asarray(with_silence(np.random.default_rng(0).choice([-1.0, 1.0], size=(2, 8, 8)), 100), jnp.float32)
    scan, parallel = (compiled_unroll(cell, params, xs, backend=backend) for backend in ("scan", "parallel"))
    np.testing.assert_array_equal(scan.outputs, parallel.outputs)


def test_who_has_a_parallel_unroll():
    linear, attention = cells.linear_boundary(3, 2), cells.attention_boundary(3, 2)
    assert cells.twm(linear).engines.names == ("parallel",)
    assert choose_backend(cells.twm(linear), "auto", "last") == "scan"
    for cell in (cells.twm(attention), cells.twm(linear, input_steps=3)):
        with pytest.raises(InvalidValue, match="backend = 'parallel': must be one of auto, scan"):
            compiled_unroll(cell, cell.init(KEY, 2), jnp.zeros((1, 4, 2)), backend="parallel")


# In Flax, and what is refused

IN_FLAX = {
    "linear": cells.twm(cells.linear_boundary(3, 2)),
    "attention": cells.twm(cells.attention_boundary(3, 2, heads=2, projections="learned")),
    "no parameters": cells.twm(cells.attention_boundary(3, 2)),
    "input phase": cells.twm(cells.linear_boundary(3, 2), input_steps=3),
}


@pytest.mark.parametrize("name", IN_FLAX)
def test_adapted_cells_are_the_pure_one(name):
    cell, xs = IN_FLAX[name], jnp.asarray(normal(3, 7, 2), jnp.float32)
    params = cell.init(KEY, 2)
    expected = compiled_unroll(cell, params, xs)
    rnn = flax.linen.RNN(linen.AdaptedCell(cell), return_carry=True)
    drawn = rnn.init(KEY, xs).get("params", {}).get("cell", {})
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, params)
    of_linen = jax.jit(rnn.apply)({"params": {"cell": params}}, xs)
    module = nnx.AdaptedCell(cell, 2, rngs=flax.nnx.Rngs(0))
    flax.nnx.update(module, params)
    of_nnx = flax.nnx.RNN(module, return_carry=True)(xs)
    for got in (of_linen, of_nnx):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected[:2])


def test_a_flax_carry_is_that_of_each_sequences_end():
    """The count of the input phase is taken there as well."""
    cell, xs, lengths = IN_FLAX["input phase"], jnp.asarray(normal(3, 7, 2), jnp.float32), (2, 7, 4)
    params = cell.init(KEY, 2)
    rnn = flax.linen.RNN(linen.AdaptedCell(cell), return_carry=True)
    carry, _ = rnn.apply({"params": {"cell": params}}, xs, seq_lengths=jnp.array(lengths))
    assert carry.remaining.tolist() == [1, 0, 0]
    for b, length in enumerate(lengths):
        alone = compiled_unroll(cell, params, xs[b, :length], time_major=True).carry
        np.testing.assert_allclose(carry.substrate[b], alone.substrate, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cells.linear_boundary(0, 2), "columns = 0: must be a whole number, 1 or more"),
        (lambda: cells.linear_boundary(2, 1.0), "size = 1.0: must be a whole number, 1 or more"),
        (
            lambda: cells.linear_boundary(3, 2, np.ones((2, 5))),
            r"operator.shape = \(2, 5\): must be \(d, s·d\) = \(2, 6\) for 3 columns of size 2",
        ),
        (lambda: cells.linear_boundary(1, 1, [[np.nan]]), "operator = 'an array with inf or nan': must be finite"),
        (lambda: cells.linear_boundary(1, 1, freeze="no"), "freeze = 'no': must be True or False"),
        (lambda: cells.attention_boundary(3, 4, heads=3), "heads = 3: must be a divisor of size = 4"),
        (lambda: cells.attention_boundary(3, 4, heads=0), "heads = 0: must be a whole number, 1 or more"),
        (
            lambda: cells.attention_boundary(3, 4, projections="random"),
            "projections = 'random': must be one of identity, learned",
        ),
        (lambda: cells.function_boundary(3, 4, None), "f = None: must be a function of the substrate"),
        (lambda: cells.twm(cells.linear_boundary(3, 2), input_steps=-1), "input_steps = -1: must be a whole number"),
        (
            lambda: cells.twm(cells.linear_boundary(3, 2)).init(KEY, 3),
            "input_size = 3: must be d = 2, the size of the boundary's columns",
        ),
        (
            lambda: unroll(cells.history_system(lambda h: h[..., 0, :], 3, 2), {}, jnp.zeros((5, 4, 1))),
            r"^xs.shape = \(5, 4, 1\): must be of D features, D being d = 2",
        ),
        (
            lambda: unroll(*linear_twm(np.zeros((2, 6))), jnp.zeros((5, 4, 1)), backend="parallel"),
            r"^xs.shape = \(5, 4, 1\): must be of D features, D being d = 2",
        ),
        (
            lambda: unroll(cells.history_system(lambda h: h[..., 0, :1], 3, 2), {}, jnp.zeros((5, 4, 2))),
            r"f\(substrate\).shape = \(5, 1\): must be \(\*batch, d\) = \(5, 2\)",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(InvalidValue, match=message):
        make()
