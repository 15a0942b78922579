"""What ``unroll`` is given must fit the cell, whatever the backend; and whatever the backend, it does all that the scan
does."""

import re
from functools import partial

import chex
import flax.linen
import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_cell import CELLS
from jax.sharding import AxisType, PartitionSpec

from wrnn_jax import cells, unroll
from wrnn_jax.cells.base import _loop
from wrnn_jax.kernels.fused import fused_unroll
from wrnn_jax.kernels.native import native_unroll
from wrnn_jax.kernels.parallel import parallel_unroll
from wrnn_jax.nn import linen, nnx
from wrnn_jax.validation import InvalidValue

KEY = jax.eval_shape(lambda: jax.random.key(0)).dtype
LOW = (jnp.float16, jnp.bfloat16, jnp.float8_e5m2)
DTYPES = (*LOW, jnp.float32, jnp.int32, jnp.int8, jnp.uint8, jnp.int4, jnp.bool_, jnp.complex64, KEY)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def change(rng, shape):
    """Another shape."""
    shape = list(shape)
    match rng.integers(5):
        case 0 if shape:
            shape[rng.integers(len(shape))] += rng.choice([-1, 1, 2])
        case 1 if len(set(shape)) > 1:
            shape = shape[::-1]
        case 2 if shape:
            del shape[rng.integers(len(shape))]
        case 3 if shape:
            shape[rng.integers(len(shape))] = rng.integers(2)
        case _:
            shape.insert(rng.integers(len(shape) + 1), rng.integers(1, 4))
    return tuple(max(0, int(size)) for size in shape)


def refusal(function, *args):
    """The line that says what does not fit. Nothing is computed."""
    with pytest.raises(InvalidValue) as error:
        jax.eval_shape(function, *args)
    return str(error.value)


def draw_call(rng, cell):
    """Shapes and dtypes for ``unroll``, and options. Any batch axes, with an empty batch and T = 0 among them; up to
    three arrays then have another shape or dtype, or all of them low precision."""

    def one_of(*choices):
        return choices[rng.integers(len(choices))]

    batch = one_of((2,), (2,), (2,), (8,), (0,), (), (2, 2), (0, 3))
    time_major, steps = batch == () or one_of(True, False), one_of(1, 3, 3, 3, 3, 0)
    options = one_of({}, {}, {}, {}, {}, {}, {}, {"remat": True}, {"return_hidden": True})
    options = options | {"time_major": time_major, "outputs": one_of("all", "last")}
    params = jax.eval_shape(lambda key: cell.init(key, 3), jax.random.key(0))
    carry = one_of(None, jax.eval_shape(lambda: cell.initial_carry(batch)))
    xs = jax.ShapeDtypeStruct((steps, *batch, 3) if time_major else (*batch, steps, 3), jnp.float32)
    leaves, tree = jax.tree.flatten((params, carry, xs))
    if rng.random() < 0.1:
        low = one_of(*LOW)
        leaves = [leaf.update(dtype=low) if leaf.dtype == jnp.float32 else leaf for leaf in leaves]
    for _ in range(rng.integers(4)):
        place = rng.integers(len(leaves))
        shape, dtype = change(rng, leaves[place].shape), one_of(*DTYPES)
        leaves[place] = leaves[place].update(**one_of({"shape": shape}, {"dtype": dtype}))
    return jax.tree.unflatten(tree, leaves), options


def outcome(cell, args, options, backend, derive):
    """The shapes and dtypes of what a call gives, and of its gradients; or the line that refuses it."""

    def run(params, carry, xs):
        result = unroll(cell, params, xs, carry=carry, backend=backend, **options)
        numbers = [leaf for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return sum(leaf.astype(jnp.float32).sum() for leaf in numbers), result

    def run_back(*args):
        loss, pull_back, result = jax.vjp(run, *args, has_aux=True)
        return result, jax.tree.leaves(pull_back(jnp.ones_like(loss)))

    try:
        shapes = jax.eval_shape(run_back if derive else run, *args)
    except InvalidValue as error:
        return str(error)
    except Exception as error:
        error.add_note(f"backend = {backend!r}, {options}, {args}")
        raise
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes)


OF_ITS_OWN = (
    r"(backend = '{}': must be 'scan' or 'auto' for more batch axes"
    r"|carry.dtype = '(b?float16|float8_\w+)': must be float32)"
)
"""What an engine that was asked for by name may say to what the scan takes."""


@pytest.mark.parametrize("calls", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_engines_take_and_refuse_what_the_scan_does(native_kernels, calls):
    """Random calls, of all cells: the same shapes and dtypes, in value and gradient, or the same line."""
    rng, refused = np.random.default_rng(0), 0
    for index in range(calls):
        cell = list(CELLS.values())[index % len(CELLS)]
        args, options = draw_call(rng, cell)
        of = partial(outcome, cell, args, options, derive=index % 4 == 0)
        expected = of("scan")
        refused += isinstance(expected, str)
        assert of("auto") == expected, (options, args)
        for engine in cell.engines.names:
            got = of(engine)
            special = isinstance(got, str) and re.match(OF_ITS_OWN.format(engine), got)
            assert got == expected or (special and not isinstance(expected, str)), (engine, options, args)
    assert 0.3 * calls < refused < 0.9 * calls


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


def everything(cell, params, xs, backend):
    """A gradient, forward mode, a second derivative, and a derivative by vmap."""

    def f(params, xs):
        return jnp.sum(jnp.sin(unroll(cell, params, xs, backend=backend).outputs))

    ones = jax.tree.map(jnp.ones_like, params)
    gradient, second = jax.jvp(jax.grad(f), (params, xs), (ones, xs))
    _, forward = jax.jvp(f, (params, xs), (ones, xs))
    penalty = jax.grad(lambda xs: jnp.sum(jax.grad(f, argnums=1)(params, xs) ** 2))(xs)
    each = jax.vmap(jax.grad(f), (None, 0))(params, jnp.stack([xs, -xs]))
    return gradient, second, forward, penalty, each


@pytest.mark.parametrize("native_too", [False, True])
def test_every_derivative_is_the_scans(random_params, native_too, request):
    if native_too:
        request.getfixturevalue("native_kernels")
    cell = CELLS["wave"]
    params, xs = random_params(cell, 3, scale=0.3), normal(2, 4, 3)
    backends = ("scan", "native") if native_too else ("scan", "fused")
    expected, got = (jax.jit(partial(everything, cell, backend=b))(params, xs) for b in backends)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), got, expected)
    exported = jax.export.export(jax.jit(lambda xs: unroll(cell, params, xs, backend=backends[1]).outputs))
    assert exported(xs).fun_name
    (batch,) = jax.export.symbolic_shape("b")
    symbolic = jax.ShapeDtypeStruct((batch, 4, 3), jnp.float32)
    exported = jax.export.export(jax.jit(lambda xs: unroll(cell, params, xs, backend="auto").outputs))
    assert exported(symbolic).out_avals[0].shape == (batch, 4, 2)


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


def test_words_for_arrays_are_refused():
    params = CELLS["wave"].init(jax.random.key(0), 3)
    for xs, line in [
        ("word", "xs = 'a str': must be an array of numbers"),
        (None, "xs = 'a NoneType': must be an array of"),
    ]:
        assert refusal(lambda xs=xs: unroll(CELLS["wave"], params, xs)).startswith(line)


def test_flax_cells_refuse_a_carry_that_is_not_theirs():
    """Which some would broadcast: by themselves, and over time."""
    x, gates = jnp.ones((2, 3)), {"hidden": jnp.zeros((2, 4)), "cell": jnp.zeros((2, 4))}
    cases = {
        "wave, conv": [
            (jnp.zeros((1, 2, 5)), "carry.shape = (1, 2, 5): must be (2, 2, 5), for inputs (2, 3)"),
            (jnp.zeros((2, 2, 5), int), "carry.dtype = 'int32': must be a floating one"),
            (None, "carry = 'a NoneType': must be what initialize_carry gives"),
        ],
        "lstm": [
            (gates["cell"], "carry = 'an array (2, 4)': must be of hidden, cell, as cell.initial_carry gives it"),
            (gates, "carry = 'a dict': must be what initialize_carry gives"),
        ],
    }
    for name, wrongs in cases.items():
        cell = CELLS[name]
        by_nnx = nnx.AdaptedCell(cell, 3, rngs=flax.nnx.Rngs(0))
        params = {"params": by_nnx.params}
        for wrong, line in wrongs:
            over_time = partial(flax.nnx.RNN(by_nnx), jnp.ones((2, 4, 3)), initial_carry=wrong)
            calls = [partial(linen.AdaptedCell(cell).apply, params, wrong, x), partial(by_nnx, wrong, x)]
            for call in [*calls, *[over_time] * isinstance(wrong, jax.Array)]:
                with pytest.raises(InvalidValue) as error:
                    call()
                assert str(error.value).replace("a DynamicJaxprTracer", "an array (2, 4)") == line


def test_on_a_mesh_of_explicit_axes_every_cell_keeps_its_batch_there():
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    for name, cell in CELLS.items():
        params, xs = cell.init(jax.random.key(0), 3), normal(4, 5, 3)

        def value(params, xs, cell=cell):
            return jnp.sum(unroll(cell, params, xs, backend="auto").outputs ** 2)

        with jax.set_mesh(mesh):
            there = jax.reshard(xs, PartitionSpec("batch"))
            ys = jax.eval_shape(partial(unroll, cell, backend="auto"), params, there).outputs
            assert ys.sharding.spec[0] == "batch", name
            if name in ("wave", "twm"):
                got = jax.jit(jax.value_and_grad(value))(jax.reshard(params, PartitionSpec()), there)
                expected = jax.device_get(got)
        if name in ("wave", "twm"):
            chex.assert_trees_all_close(jax.value_and_grad(value)(params, xs), expected, rtol=1e-4, atol=1e-5)


def test_an_engine_does_without_jit():
    cell, xs = CELLS["wave"], normal(2, 3, 3)
    params = cell.init(jax.random.key(0), 3)
    fused = partial(unroll, cell, params, backend="fused")
    with jax.disable_jit():
        got = fused(xs).outputs
    np.testing.assert_allclose(got, fused(xs).outputs, rtol=1e-5, atol=1e-6)
