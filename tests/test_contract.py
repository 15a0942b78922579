"""What ``unroll`` is given must fit the cell, whatever the backend."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax import cells, unroll
from wrnn_jax.cells.base import _loop
from wrnn_jax.kernels.fused import fused_unroll
from wrnn_jax.kernels.native import native_unroll
from wrnn_jax.kernels.parallel import parallel_unroll
from wrnn_jax.readouts import Readout, linear, mlp, with_readout
from wrnn_jax.validation import InvalidValue

WAVE = cells.wave(2, 5, 3, activation="tanh", kernel_init="random", encoder_init="dense")
LINEAR_WAVE = cells.wave(2, 5, 3, activation="identity", kernel_init="random", encoder_init="dense")
CELLS = {
    "wave": with_readout(WAVE, linear(2)),
    "linear wave": with_readout(LINEAR_WAVE, linear(2)),
    "elman": with_readout(cells.elman(4), mlp(2, 3)),
    "lstm": cells.lstm(4),
    "twm": cells.twm(cells.linear_boundary(2, 3)),
}


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def change(rng, shape):
    """Another shape."""
    shape = list(shape)
    match rng.integers(4):
        case 0 if shape:
            shape[rng.integers(len(shape))] += rng.choice([-1, 1, 2])
        case 1 if len(set(shape)) > 1:
            shape = shape[::-1]
        case 2 if shape:
            del shape[rng.integers(len(shape))]
        case _:
            shape.insert(rng.integers(len(shape) + 1), rng.integers(1, 4))
    return tuple(int(size) for size in shape)


def refusal(function, *args):
    """The line that says what does not fit. Nothing is computed."""
    with pytest.raises(InvalidValue) as error:
        jax.eval_shape(function, *args)
    return str(error.value)


@pytest.mark.parametrize("name", CELLS)
def test_no_wrong_shape_or_dtype_is_taken(name):
    """Of one array each time, on every backend alike, in value and gradient."""
    cell, rng = CELLS[name], np.random.default_rng(0)
    params = jax.eval_shape(lambda key: cell.init(key, 3), jax.random.key(0))
    carry = jax.eval_shape(lambda: cell.initial_carry((2,)))
    xs = jax.ShapeDtypeStruct((2, 4, 3), jnp.float32)
    leaves, tree = jax.tree.flatten((params, carry, xs))
    backends = ["scan", "auto", *(name for name in cell.engines.names if name != "native")]
    for _ in range(100):
        place, wrong = rng.integers(len(leaves)), list(leaves)
        dtype = jnp.complex64 if rng.random() < 0.2 and place < len(leaves) - 1 else jnp.float32
        shape = leaves[place].shape if dtype == jnp.complex64 else change(rng, leaves[place].shape)
        if shape == leaves[place].shape and dtype == jnp.float32:
            continue
        if place == len(leaves) - 1 and len(shape) == 3 and shape[::2] == (2, 3) and shape[1] > 0:
            continue  # another T
        wrong[place] = jax.ShapeDtypeStruct(shape, dtype)
        args = jax.tree.unflatten(tree, wrong)

        def run(params, carry, xs, backend):
            return unroll(cell, params, xs, carry=carry, backend=backend).outputs.sum()

        (said,) = {refusal(partial(run, backend=backend), *args) for backend in backends}
        if dtype == jnp.float32:
            assert refusal(jax.grad(partial(run, backend="auto"), argnums=2), *args) == said


@pytest.mark.parametrize("kernel", [fused_unroll, native_unroll, parallel_unroll])
def test_kernels_called_by_themselves_refuse_too(kernel):
    rng = np.random.default_rng(1)
    shapes = {"kernel": (2, 2, 3), "V": (2, 5, 4), "b": (2, 5), "W": (3, 10), "c": (3,), "carry": (6, 2, 5)}
    shapes |= {"xs": (7, 6, 4)}
    for _ in range(150):
        name = rng.choice(list(shapes))
        wrong = change(rng, shapes[name])
        if wrong == shapes[name] or (name == "xs" and len(wrong) == 3 and wrong[1:] == (6, 4) and wrong[0]):
            continue
        if name == "kernel" and wrong[:2] == (2, 2) and wrong[2:] in ((1,), (3,), (5,)):
            continue
        s = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in (shapes | {name: wrong}).items()}
        readout = {"output": {"kernel": s["W"], "bias": s["c"]}}
        args = s["kernel"], {"kernel": s["V"], "bias": s["b"]}, readout, s["carry"], s["xs"]
        options = {} if kernel is parallel_unroll else {"activation": "identity"}
        refusal(partial(kernel, readout="linear", last=False, **options), *args)


def test_a_readout_of_ones_own_means_what_it_means_to_the_scan(random_params):
    """One that looks across the batch, has whole numbers and a key for parameters, and closes over a trained weight."""
    inner = random_params(WAVE, 3, scale=0.3)
    own = {"places": jnp.arange(3), "key": jax.random.key(0)}

    def run(w, xs, backend):
        def apply(params, y):
            noise = jax.random.normal(params["key"], y.shape)
            return ((y - y.mean(0, keepdims=True) + noise) @ w)[:, params["places"]]

        cell = with_readout(WAVE, Readout(lambda key, size: own, apply, 3))
        return jnp.sum(unroll(cell, {"cell": inner, "readout": own}, xs, backend=backend).outputs ** 2)

    for args in [(normal(10, 3), normal(2, 4, 3))]:
        expected, got = (jax.value_and_grad(run, argnums=(0, 1))(*args, backend) for backend in ("scan", "fused"))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, expected)


def test_an_empty_batch_gives_nothing_on_every_backend():
    cell = CELLS["linear wave"]
    params = cell.init(jax.random.key(0), 3)
    for backend in ("scan", "fused", "parallel", "auto"):
        assert unroll(cell, params, jnp.zeros((0, 4, 3)), backend=backend).outputs.shape == (0, 4, 2)


def test_outside_of_jit_it_is_compiled_once():
    cell = cells.elman(3)
    params = cell.init(jax.random.key(0), 2)
    for backend in ("scan", "fused"):
        for _ in range(3):
            unroll(cell, params, normal(2, 3, 2), backend=backend)
        assert _loop(cell, backend, False, False, False)._cache_size() == 1


def test_a_carry_from_a_checkpoint_is_taken(random_params):
    cell = CELLS["lstm"]
    params, xs = random_params(cell, 3), normal(2, 4, 3)
    carry = unroll(cell, params, xs).carry
    expected = unroll(cell, params, xs, carry=carry).outputs
    for form in (carry._asdict(), tuple(carry), list(carry), {"0": carry.hidden, "1": carry.cell}):
        np.testing.assert_array_equal(unroll(cell, params, xs, carry=form).outputs, expected)
    for wrong in ({"hidden": carry.hidden}, carry[:1], carry.hidden):
        with pytest.raises(
            InvalidValue, match=r"^carry = .*: must be of hidden, cell, as cell.initial_carry gives it$"
        ):
            unroll(cell, params, xs, carry=wrong)
    assert cell.initial_carry(8).hidden.shape == (8, 4)
    doubles = np.ones((4, 2, 3))
    assert unroll(cell, params, doubles, time_major=True).outputs.dtype == jnp.float32
    assert cells.wave(2, 5, use_bias=np.bool_(True)).output_size == 10
