"""Cells and readouts without biases, and the orthogonal start: nothing is added, and nothing is lost."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax import unroll
from wrnn_jax.cells import elman, irnn, wave
from wrnn_jax.cells.base import Engines
from wrnn_jax.interop import to_authors
from wrnn_jax.readouts import linear, mlp, with_readout
from wrnn_jax.validation import InvalidValue

MAKERS = {
    "roll": partial(wave, 2, 5),
    "conv": partial(wave, 2, 5, form="conv"),
    "local": partial(wave, 2, 5, local=True),
    "elman": partial(elman, 5, channels=2),
}
over_makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def kernels_of(params):
    return {name: {"kernel": part["kernel"]} for name, part in params.items()}


@over_makers
def test_a_cell_without_biases_is_the_one_whose_biases_are_zero(random_params, make):
    """At its start, bit for bit, and in every step; and at rest without input it stays there."""
    options = {"kernel_init": "random", "encoder_init": "dense", "activation": "tanh"}
    bare, full = make(use_bias=False, **options), make(**options)
    zeros = jax.tree.map(jnp.zeros_like, random_params(full, 3))
    xs = normal(2, 6, 3)

    @jax.jit
    def both(params):
        key = jax.random.key(3)
        filled = {name: part | params[name] for name, part in zeros.items()}
        rest = unroll(bare, params, jnp.zeros_like(xs)).outputs
        return [cell.init(key, 3) for cell in (bare, full)], unroll(full, filled, xs).outputs, rest

    params = random_params(bare, 3, scale=0.5)
    states = unroll(bare, params, xs).outputs
    (bare_start, full_start), expected, rest = both(params)
    jax.tree.map(np.testing.assert_array_equal, bare_start, kernels_of(full_start))
    np.testing.assert_allclose(states, expected, rtol=1e-5, atol=1e-6)
    assert np.all(states != 0)
    assert not np.any(rest)


def test_a_readout_without_bias_is_linear():
    """y = W h in NumPy, W the same draw as with a bias."""
    key, h = jax.random.key(0), normal(2, 4, 7)
    params = linear(3, use_bias=False).init(key, 7)
    jax.tree.map(np.testing.assert_array_equal, params, kernels_of(linear(3).init(key, 7)))
    y = linear(3, use_bias=False).apply(params, h)
    np.testing.assert_allclose(y, h @ np.asarray(params["output"]["kernel"]).T, rtol=1e-5, atol=1e-6)


def test_an_mlp_without_biases_is_homogeneous():
    """y = W₂ ReLU(W₁ h) in NumPy, the same draws as with biases."""
    key, h, readout = jax.random.key(0), normal(2, 4, 7), mlp(3, 5, use_bias=False)
    params = readout.init(key, 7)
    jax.tree.map(np.testing.assert_array_equal, params, kernels_of(mlp(3, 5).init(key, 7)))
    first, second = (np.asarray(params[name]["kernel"]) for name in ("hidden", "output"))
    expected = np.maximum(h @ first.T, 0) @ second.T
    np.testing.assert_allclose(readout.apply(params, h), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_linear_readout_goes_the_engines_fast_way(use_bias):
    """It is named to them, with a bias to add: what they are given for one that has none is zero."""
    seen = []

    def engine(params, carry, xs, last, readout, readout_params):
        seen.append((readout, readout_params["output"]))
        return carry, jnp.zeros((*xs.shape[:2], 3))

    # Not pure: its engine writes down what it is given.
    cell = with_readout(elman(4)._replace(engines=Engines(fused=engine), pure=False), linear(3, use_bias=use_bias))
    params = cell.init(jax.random.key(0), 2)
    with jax.disable_jit():
        unroll(cell, params, normal(2, 5, 2), backend="fused")
    ((readout, output),) = seen
    assert readout == "linear"
    np.testing.assert_array_equal(output["kernel"], params["readout"]["output"]["kernel"])
    np.testing.assert_array_equal(output["bias"], params["readout"]["output"].get("bias", np.zeros(3)))


def of_every_part(cell, xs, params, backend, outputs):
    """Value, last carry, and gradients by parameters and inputs, of a loss that sees every number its own way."""

    def loss(params, xs):
        carry, ys, _ = unroll(cell, params, xs, backend=backend, outputs=outputs)
        return jnp.mean(ys * jnp.cos(ys)) + jnp.mean(jnp.sin(carry)), (carry, ys)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, xs)


@pytest.mark.parametrize(
    ("backend", "name", "cell_bias", "readout_bias", "outputs"),
    [
        ("fused", "roll", False, False, "all"),
        ("fused", "elman", False, False, "all"),
        ("fused", "elman", False, True, "last"),
        ("fused", "roll", True, False, "last"),
        ("parallel", "roll", False, False, "all"),
        ("parallel", "roll", False, True, "last"),
    ],
)
def test_engines_agree_with_the_scan(random_params, backend, name, cell_bias, readout_bias, outputs):
    """Where cell and readout have none, or one of them; the native engine's own tests have such a cell too."""
    activation = "identity" if backend == "parallel" else "tanh"
    cell = MAKERS[name](activation=activation, encoder_init="dense", use_bias=cell_bias)
    cell = with_readout(cell, linear(3, use_bias=readout_bias))
    params, xs = random_params(cell, 3, scale=0.3), normal(2, 7, 3)
    scan, engine = (of_every_part(cell, xs, params, way, outputs) for way in ("scan", backend))

    def assert_close(actual, expected):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))

    jax.tree.map(assert_close, engine, scan)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(engine[1]))


@pytest.mark.parametrize("neurons", [1, 2, 16])
def test_orthogonal_start_is_an_isometry(neurons):
    """U Uᵀ = 1, all eigenvalues on the unit circle: a linear RNN keeps |h| through 300 steps."""
    cell = elman(neurons, kernel_init="orthogonal", activation="identity", use_bias=False)
    params = cell.init(jax.random.key(1), 1)
    kernel = np.asarray(params["recurrence"]["kernel"], np.float64)
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(neurons), atol=1e-6)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(kernel)), 1, atol=1e-6)
    start = normal(3, neurons)
    states = unroll(cell, params, np.zeros((3, 300, 1), np.float32), carry=jnp.asarray(start)).outputs
    norms = np.linalg.norm(states, axis=-1) / np.linalg.norm(start, axis=-1)[:, None]
    np.testing.assert_allclose(norms, 1, atol=1e-4)


def test_orthogonal_start_is_uniform_over_the_group():
    """Haar: over many draws the entries of U have mean 0 and variance 1/N, and half the determinants are −1."""
    neurons, draws = 3, 2000
    cell = elman(neurons, kernel_init="orthogonal")
    start = jax.jit(jax.vmap(lambda key: cell.init(key, 1)["recurrence"]["kernel"]))
    kernels = np.asarray(start(jax.random.split(jax.random.key(0), draws)))
    tolerance = 5 / np.sqrt(draws)
    np.testing.assert_allclose(kernels.mean(0), 0, atol=tolerance)
    np.testing.assert_allclose((kernels**2).mean(0), 1 / neurons, atol=tolerance)
    np.testing.assert_allclose(np.linalg.det(kernels).mean(), 0, atol=tolerance)


NO_RANDOM_BIAS = "bias_init = 'random': must be zeros for use_bias = False"


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        *((make, {"use_bias": "no"}, "use_bias = 'no': must be True or False") for make in MAKERS.values()),
        *(
            (make, {"use_bias": 0}, "use_bias = 0: must be True or False")
            for make in (partial(linear, 3), partial(mlp, 3))
        ),
        *(
            (
                make,
                {"use_bias": False, "bias_init": "random"},
                "bias_init = 'random': must be zeros for use_bias = False",
            )
            for make in (*MAKERS.values(), partial(irnn, 5))
        ),
        (
            MAKERS["roll"],
            {"kernel_init": "orthogonal"},
            "kernel_init = 'orthogonal': must be one of shift, identity, random",
        ),
    ],
)
def test_bad_options_are_refused_in_a_line(make, options, message):
    with pytest.raises(InvalidValue, match="^" + re.escape(message) + "$"):
        make(**options)


def test_the_authors_program_has_no_cell_without_biases():
    cell = with_readout(elman(4, use_bias=False), linear(3))
    with pytest.raises(InvalidValue, match=r"^params = .*: must be the parameters .* with biases$"):
        to_authors(None, cell.init(jax.random.key(0), 2))
