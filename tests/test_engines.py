"""Every engine gives the scan's values and gradients, in every shape, with every readout, transformed in every way."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from wrnn_jax import Cell, cells, unroll
from wrnn_jax.cells.base import choose_backend
from wrnn_jax.kernels import fused
from wrnn_jax.kernels.native import native_unroll
from wrnn_jax.kernels.parallel import parallel_unroll
from wrnn_jax.readouts import Readout, linear, mlp, with_readout
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("native_kernels")

# nearly all of a test's time is compilation
OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = partial(jax.jit, compiler_options=OPTIONS)


class Case(NamedTuple):
    """A cell, and sizes of what it is given."""

    cell: Cell
    batch: int = 3
    steps: int = 7
    inputs: int = 2
    outputs: str = "all"
    stores_all: bool = False
    """Whether the fused engine stores every state, which it does where they are few, and not every ⌊√T⌋-th."""


def wave(*sizes, activation="identity", **options):
    return cells.wave(*sizes, activation=activation, kernel_init="random", encoder_init="dense", **options)


def boundary(kind, **options):
    return {"linear": cells.linear_boundary, "attention": cells.attention_boundary}[kind](2, 3, **options)


def two_speeds(units=4):
    """A user's own cell, of a carry of two arrays."""

    def step(params, carry, x):
        slow, fast = carry
        fast = jnp.tanh(fast @ params["A"] + x @ params["V"])
        return (slow + fast, fast), slow * fast

    def init(key, size):
        return {"A": jnp.zeros((units, units)), "V": jnp.zeros((size, units))}

    def initial_carry(batch=(), dtype=jnp.float32):
        return jnp.zeros((*batch, units), dtype), jnp.zeros((*batch, units), dtype)

    return Cell(init, initial_carry, step, lambda carry: carry[0][..., None, :], units)


TILED = 2 * fused.TILE
CASES = {
    "relu, in parts of tiles": Case(with_readout(wave(7, 10, 3, activation="relu"), linear(13)), 19, 11, 7),
    "tanh, five taps, states": Case(wave(3, 7, 5, activation="tanh"), 4, 11),
    "dense, relu": Case(with_readout(cells.elman(7, activation="relu"), linear(3)), 4, 11, stores_all=True),
    "dense, tanh, mlp": Case(with_readout(cells.elman(4, channels=2), mlp(3, 6)), 4, 7, 3),
    "dense, last, no biases": Case(
        with_readout(cells.elman(4, use_bias=False), linear(3, use_bias=False)), 3, 7, 3, "last"
    ),
    "identity, a step left over": Case(with_readout(wave(2, 5, 3), linear(3)), 4, 23, 3),
    "identity, mlp": Case(with_readout(wave(2, 5, 3), mlp(3, 4)), 2, 14),
    "identity, one tap, last": Case(with_readout(wave(2, 5, 1), linear(3)), 2, 14, outputs="last"),
    "one of everything": Case(wave(1, 1, 1), 1, 1, 1),
    "a tap a neuron, many inputs": Case(with_readout(wave(3, 5, 5), linear(1)), 16, 16, 20),
    "tiles": Case(with_readout(wave(2, 5, 3, activation="tanh"), linear(2)), TILED, 5),
    "tiles, many channels, last state": Case(wave(27, 6, 3, activation="relu"), TILED, 2, outputs="last"),
    "of the copy task": Case(with_readout(wave(6, 100, 3, activation="relu"), linear(10)), 32, 50, 10),
    "frozen": Case(cells.wave(2, 4, freeze_encoder=True, freeze_recurrence=True)),
    "twm": Case(with_readout(cells.twm(boundary("linear")), linear(2)), 4, 7, 3),
}
"""Of cells that have engines."""
TABLE = {name: CASES[name] for name in ("dense, tanh, mlp", "identity, a step left over", "twm")} | {
    "wave": Case(with_readout(wave(2, 5, 3, activation="tanh"), linear(2)), 4, 7, 3),
    "wave, conv encoder": Case(wave(2, 5, encoder_kind="conv", encoder_colors=2), 4, 5, 6),
    "wave, untied": Case(wave(2, 5, 3, local=True), 4, 5, 3),
    "wave, conv": Case(wave(2, 5, 3, form="conv"), 4, 5, 3),
    "lstm": Case(cells.lstm(4), 4, 5, 3, "last"),
    "gru": Case(cells.gru(4), 4, 5, 3),
    "twm, attention": Case(cells.twm(boundary("attention", projections="learned")), 4, 5, 3),
    "twm, input phase": Case(cells.twm(boundary("linear"), input_steps=2), 4, 5, 3),
    "two speeds": Case(two_speeds(), 4, 5, 3, "last"),
}
"""One of each cell, with a batch for two devices."""


def operands(case, seed=0, dtype=jnp.float32):
    """(params, xs (T, B, D), carry): random, of a recurrence that neither grows nor fades fast."""
    rng = np.random.default_rng(seed)

    def normal(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.ones(leaf.shape, leaf.dtype)
        return jnp.asarray(0.7 * rng.normal(size=leaf.shape) / np.prod(leaf.shape[1:]) ** 0.5, dtype)

    params = jax.eval_shape(lambda: case.cell.init(jax.random.key(0), case.inputs))
    xs = jnp.asarray(rng.normal(size=(case.steps, case.batch, case.inputs)), dtype)
    return jax.tree.map(normal, params), xs, jax.tree.map(normal, case.cell.initial_carry((case.batch,)))


def differentiated(case, backend):
    """(params, xs, carry) -> (gradients, (carry, outputs)): in all of them, in the carry if it is of real numbers; of a
    sum over the batch, so that those of its parts are its parts."""

    def loss(params, xs, carry):
        options = {"carry": carry, "outputs": case.outputs, "time_major": True, "backend": backend}
        result = unroll(case.cell, params, xs, **options)[:2]
        numbers = [leaf for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        waves = [jnp.sin(leaf).astype(np.promote_types(leaf.dtype, np.float32)) for leaf in numbers]
        return sum(map(jnp.sum, waves)), result

    start = jax.tree.leaves(case.cell.initial_carry((1,)))
    is_real = all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in start)
    return jax.grad(loss, (0, 1, 2) if is_real else (0, 1), has_aux=True)


@cache
def program(case, backend):
    """``differentiated``, compiled, the buffers of what it is given donated."""
    return jit(differentiated(case, backend), donate_argnums=(0, 1, 2))


def run(case, backend, seed=0, **options):
    return program(case, backend)(*operands(case, seed, **options))


@cache
def scanned(case, seed=0):
    return run(case, "scan", seed)


def assert_same(got, expected, tolerance=5e-5):
    """``tolerance`` is of the largest number in each array, or of 1."""

    def compare(a, b):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0.0)))

    jax.tree.map(compare, got, expected)


@pytest.mark.parametrize("name", CASES)
def test_value_and_every_gradient(name, monkeypatch):
    case = CASES[name]
    if not case.stores_all:
        monkeypatch.setattr(fused, "STORED_BYTES", 1)
    for engine in case.cell.engines.names:
        args = operands(case)
        assert_same(program(case, engine)(*args), scanned(case))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(args))


def draw_case(rng):
    """One of random sizes, all engines or all but the parallel one."""

    def one_of(*choices):
        return choices[rng.integers(len(choices))]

    def size(least, most):
        return int(rng.integers(least, most + 1))

    taps, activation = one_of(0, 1, 3, 5), one_of("relu", "tanh", "identity", "identity")
    options = {"activation": activation, "use_bias": one_of(True, False)}
    neurons = size(max(1, taps), 11)
    cell = wave(size(1, 13), neurons, taps, **options) if taps else cells.elman(neurons, channels=size(1, 3), **options)
    readout = one_of(None, linear(size(1, 14)), mlp(size(1, 3), size(1, 4)))
    sizes = size(1, 40), size(1, 40), size(1, 20), one_of("all", "last"), one_of(True, False)
    return Case(with_readout(cell, readout) if readout else cell, *sizes)


@pytest.mark.parametrize("draws", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_random_sizes(draws, monkeypatch):
    rng = np.random.default_rng(draws)
    for _ in range(draws):
        case = draw_case(rng)
        monkeypatch.setattr(fused, "STORED_BYTES", 2**24 if case.stores_all else 1)
        for engine in case.cell.engines.names:
            assert_same(run(case, engine), scanned(case))


def in_full_if_slow(*names):
    """Over these of the table; in the slow tests over the others."""
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in TABLE if name not in names]
    return pytest.mark.parametrize("name", [*names, *slow])


MEMBERS = 2
AXES = {"parameters": (0, None, None), "inputs": (None, 0, None), "everything": (0, 0, 0)}


@cache
def members(case):
    """Operands of several, stacked."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[operands(case, seed) for seed in range(MEMBERS)])


@cache
def one_by_one(case, over="everything"):
    """What the scan makes of every member, or of those operands of every member and the first one's others; stacked."""
    seeds = [[seed if axis == 0 else 0 for axis in AXES[over]] for seed in range(MEMBERS)]
    mixed = [[operands(case, seed)[place] for place, seed in enumerate(each)] for each in seeds]
    results = [program(case, "scan")(*args) for args in mixed]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)


def over_two_devices(function, case, lead=(), check_vma=True):
    """``differentiated`` with the batch halved over two devices; ``lead`` names axes before all of its operands'."""
    mesh = Mesh(jax.devices()[:2], ("batch",))
    params, xs, carry = P(), P(*lead, None, "batch"), P(*lead, "batch")
    outputs = xs if case.outputs == "all" else carry

    def local(*args):
        (d_params, *others), result = function(*args)
        if not check_vma:  # with it, the transpose of the parameters' broadcast is already the sum over devices
            d_params = jax.lax.psum(d_params, "batch")
        return (d_params, *others), result

    gradients, _ = jax.eval_shape(function, *(members(case) if lead else operands(case)))
    specs = ((params, xs, carry)[: len(gradients)], (carry, outputs))
    return jax.shard_map(local, mesh=mesh, in_specs=(params, xs, carry), out_specs=specs, check_vma=check_vma)


@in_full_if_slow("identity, a step left over", "lstm", "twm, input phase")
def test_vmap_within_shard_map(name):
    """Over all operands, as members of a grid are trained on several devices."""
    case = TABLE[name]
    for backend in ("scan", *case.cell.engines.names):
        together = over_two_devices(jax.vmap(differentiated(case, backend)), case, lead=(None,))
        assert_same(jit(together)(*members(case)), one_by_one(case))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in TABLE.items() if case.cell.engines.names])
def test_each_transformation_by_itself(name):
    """Over parameters or inputs alone, and over devices whose gradients the caller adds."""
    case = TABLE[name]
    (params, xs, carry), (stacked_params, stacked_xs, _) = operands(case), members(case)
    for backend in ("scan", *case.cell.engines.names):
        function = differentiated(case, backend)
        over_parameters = jit(jax.vmap(function, AXES["parameters"]))(stacked_params, xs, carry)
        assert_same(over_parameters, one_by_one(case, "parameters"))
        assert_same(jit(jax.vmap(function, AXES["inputs"]))(params, stacked_xs, carry), one_by_one(case, "inputs"))
        over_devices = over_two_devices(function, case, check_vma=False)
        assert_same(jit(over_devices)(params, xs, carry), scanned(case))


@in_full_if_slow("identity, a step left over")
def test_double_precision(name):
    """Where JAX has it: all in float64, but native, which is of float32 there too."""
    case = TABLE[name]
    with jax.enable_x64(True):
        double = partial(operands, case, dtype=jnp.float64)
        expected = program(case, "scan")(*double())
        assert {leaf.dtype for leaf in jax.tree.leaves(expected)} <= {jnp.dtype("float64"), jnp.dtype("int32")}
        assert_same(jax.tree.map(lambda leaf: leaf.astype(scanned_dtype(leaf)), expected), scanned(case), 1e-4)
        for backend in case.cell.engines.names:
            if backend == "native":
                assert_same(program(case, backend)(*operands(case)), scanned(case))
                with pytest.raises(InvalidValue, match=r"^carry.dtype = 'float64': must be float32"):
                    jax.eval_shape(differentiated(case, backend), *double())
            else:
                assert_same(program(case, backend)(*double()), expected, 1e-12)


def scanned_dtype(leaf):
    return jnp.float32 if leaf.dtype == jnp.float64 else leaf.dtype


def test_low_precision():
    """Near the float32 result of the same rounded operands, and in bfloat16; native refuses."""
    case = CASES["identity, mlp"]
    args = operands(case, dtype=jnp.bfloat16)
    expected = program(case, "scan")(*as_type(jnp.float32, args))
    for engine in ("fused", "parallel"):
        assert_same(run(case, engine, dtype=jnp.bfloat16), as_type(jnp.bfloat16, expected), 0.1)
    with pytest.raises(InvalidValue, match=r"^carry.dtype = 'bfloat16': must be float32"):
        jax.eval_shape(differentiated(case, "native"), *args)


def as_type(dtype, tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype), tree)


def test_nan_is_not_swallowed():
    """It stays in its sequence, in compiled code too."""
    for activation in ("relu", "tanh", "identity"):
        case = Case(wave(2, 5, 3, activation=activation), 3, 2, outputs="last")
        params, xs, _ = operands(case)
        for engine in ("fused", "native"):
            state, _, _ = unroll(case.cell, params, xs.at[0, 1].set(jnp.nan), time_major=True, backend=engine)
            assert np.isnan(state).all(axis=(1, 2)).tolist() == [False, True, False]


def test_only_what_is_asked_for_is_differentiated():
    """The gradient in one operand is the same whether or not the others are constants, of the last state or outputs."""
    case = TABLE["wave"]

    def gradients(backend, args):
        def loss(part, place, operand):
            changed = [operand if index == place else arg for index, arg in enumerate(args)]
            result = unroll(case.cell, changed[0], changed[1], carry=changed[2], time_major=True, backend=backend)
            return jnp.sum(jnp.sin(result[part]))

        return [jax.grad(partial(loss, part, place))(args[place]) for part in (0, 1) for place in range(3)]

    expected, *got = (jit(partial(gradients, b))(operands(case)) for b in ("scan", "fused", "native"))
    for each in got:
        assert_same(each, expected)


def own_readouts(weight):
    """Two of a user's own: one that looks across the batch, closes over a trained weight, and has whole numbers, a mask
    and a key among its parameters; and one that reads rows, with whole numbers."""
    own = {"places": jnp.arange(2), "mask": jnp.array([True, False, True]), "key": jax.random.key(0)}

    def across(params, y):
        noise = jax.random.normal(params["key"], y.shape, y.dtype)
        return jnp.where(params["mask"][None], (y - y.mean(0, keepdims=True) + noise) @ weight, 0)[:, params["places"]]

    def rows(params, y):
        return y[:, params["places"]]

    places = {"places": own["places"]}
    return [
        (own, Readout(lambda key, size: own, across, 2)),
        (places, Readout(lambda key, size: places, rows, 2, rowwise=True)),
    ]


def test_readouts_of_ones_own_mean_what_they_mean_to_the_scan():
    """Of every engine, with the outputs of all steps and of the last."""
    inner = wave(2, 5, 3)
    case = Case(inner, 2, 4, 3)
    params, xs, carry = operands(case)
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(10, 3)), jnp.float32)

    def loss(weight, params, xs, carry, backend):
        total = 0.0
        for (own, readout), outputs in zip(own_readouts(weight), ("all", "last"), strict=True):
            cell, both = with_readout(inner, readout), {"cell": params, "readout": own}
            options = {"carry": carry, "outputs": outputs, "time_major": True, "backend": backend}
            total += jnp.sum(jnp.sin(unroll(cell, both, xs, **options).outputs))
        return total

    def gradients(backend):
        return jit(jax.value_and_grad(partial(loss, backend=backend), (0, 1, 2, 3)))(weight, params, xs, carry)

    expected = gradients("scan")
    for engine in inner.engines.names:
        assert_same(gradients(engine), expected)


def test_what_auto_takes():
    """The engine that ``choose_backend`` names, and the very same program."""
    for name, outputs, batch, dtype, chosen in [
        ("wave", "all", 8, jnp.float32, "native"),
        ("wave", "all", 2, jnp.float32, "fused"),
        ("wave", "all", 8, jnp.bfloat16, "fused"),
        ("identity, a step left over", "last", 8, jnp.float32, "parallel"),
        ("identity, a step left over", "all", 8, jnp.float32, "native"),
        ("lstm", "all", 8, jnp.float32, "scan"),
    ]:
        case = TABLE[name]._replace(batch=batch, outputs=outputs)
        assert choose_backend(case.cell, "auto", outputs, batch, dtype) == chosen
        args = operands(case, dtype=dtype)
        auto, named = (str(jax.make_jaxpr(differentiated(case, backend))(*args)) for backend in ("auto", chosen))
        assert auto == named
    with pytest.raises(InvalidValue, match=r"^backend = 'parallel': must be one of auto, scan, fused, native$"):
        choose_backend(TABLE["wave"].cell, "parallel")


def test_forward_mode_in_parallel():
    case = TABLE["identity, a step left over"]
    args, tangents = operands(case), operands(case, seed=1)

    def push(backend):
        def run(params, xs, carry):
            return unroll(case.cell, params, xs, carry=carry, time_major=True, backend=backend)[:2]

        return jit(lambda args, tangents: jax.jvp(run, args, tangents))(args, tangents)

    assert_same(push("parallel"), push("scan"))


def kernel_operands(channels, neurons, taps, batch, steps, inputs, outputs):
    """What the kernels are given, of 1s."""
    shapes = (channels, channels, taps), (channels, neurons, inputs), (channels, neurons), (outputs, channels * neurons)
    kernel, weights, bias, readout = map(jnp.ones, shapes)
    readout = {"output": {"kernel": readout, "bias": jnp.ones(outputs)}}
    carry, xs = jnp.ones((batch, channels, neurons)), jnp.ones((steps, batch, inputs))
    return kernel, {"kernel": weights, "bias": bias}, readout, carry, xs


def stored(function, *args):
    """Sizes in bytes of what is kept for the way back."""
    _, residuals = jax.eval_shape(lambda *args: jax.vjp(function, *args), *args)
    return [(leaf.ndim, leaf.size * leaf.dtype.itemsize) for leaf in jax.tree.leaves(residuals)]


def test_what_fused_stores_grows_as_the_square_root():
    """Besides operands and outputs: T / S states, and S while it runs."""
    batch = 8191  # no whole number of tiles
    state_bytes = batch * 2 * 16 * 4
    unroll_last = partial(fused.fused_unroll, activation="relu", readout="linear", last=True)

    def kept_bytes(steps):
        args = jax.eval_shape(lambda: kernel_operands(2, 16, 3, batch, steps, 1, 1))
        states = max(size for ndim, size in stored(unroll_last, *args) if ndim == 4)
        return states + fused.default_segment(steps, state_bytes) * state_bytes

    assert kept_bytes(10) <= 11 * state_bytes  # all of them: there is room
    for steps in (100, 10_000, 90_000):
        assert kept_bytes(steps) <= max(fused.STORED_BYTES, steps**0.5 * state_bytes) + (steps**0.5 + 2) * state_bytes


@pytest.mark.parametrize("last", [False, True])
def test_what_parallel_stores_grows_as_the_square_root(last):
    """About √T states: on large rings, all else is little."""

    def kept_bytes(steps):
        args = jax.eval_shape(lambda: kernel_operands(2, 400, 3, 2, steps, 1, 3))
        return sum(size for _, size in stored(partial(parallel_unroll, readout="linear", last=last), *args))

    assert kept_bytes(10_000) < 13 * kept_bytes(100)


def test_kernels_refuse_what_they_do_not_take():
    names = ("recurrence", "encoder", "readout_params", "carry", "xs")
    given = dict(zip(names, kernel_operands(1, 3, 3, 1, 2, 1, 1), strict=True))
    given |= {"activation": "relu", "readout": None, "last": True}
    wrong = {
        "activation": {"activation": "swish"},
        "recurrence.shape": {"recurrence": jnp.zeros((1, 1, 5))},
    }
    of_fused = {"segment": {"segment": 0}}
    of_native = {
        "readout": {"readout": lambda params, states: states},
        "carry.dtype": {"carry": jnp.zeros((1, 1, 3), jnp.bfloat16)},
    }
    for kernel, own in ((fused.fused_unroll, of_fused), (native_unroll, of_native)):
        for field, changed in (wrong | own).items():
            with pytest.raises(InvalidValue, match=f"^{field} = "):
                kernel(**given | changed)


def frequency_by_frequency(kernel, carry, drives):
    """The states ``(T, C, N)``, in float64: ĥ_{t+1}(f) = Û(f) ĥ_t(f) + d̂_t(f)."""
    neurons, taps = carry.shape[-1], kernel.shape[-1]
    angles = 2j * np.pi * np.outer(np.arange(neurons // 2 + 1), np.arange(taps) - taps // 2) / neurons
    power = np.einsum("ojk,fk->foj", kernel, np.exp(angles))
    state, states = np.fft.rfft(carry).T, []
    for drive in np.fft.rfft(drives).swapaxes(1, 2):
        state = np.einsum("foj,fj->fo", power, state) + drive
        states.append(state.T)
    return np.fft.irfft(np.array(states), neurons)


def kernels_of_radius_1(channels, neurons):
    """A shift, and a random one."""
    yield np.eye(channels)[:, :, None] * np.array([0.0, 0.0, 1.0])
    kernel = np.random.default_rng(0).normal(size=(channels, channels, 3))
    angles = 2j * np.pi * np.outer(np.arange(neurons // 2 + 1), np.arange(-1, 2)) / neurons
    transfer = np.einsum("ojk,fk->foj", kernel, np.exp(angles))
    yield kernel / np.abs(np.linalg.eigvals(transfer)).max()


@pytest.mark.parametrize("steps", [100, 10_000])
def test_errors_in_parallel_grow_as_the_square_root(steps):
    """At most ε √T of the largest state, at every step: of waves left alone, and of driven ones."""
    channels, neurons = 2, 23
    rng = np.random.default_rng(1)
    carry, drives = rng.normal(size=(2, channels, neurons)), rng.normal(size=(steps, channels))
    # input c is added to position 0 of ring c
    encoder = np.zeros((channels, neurons, channels))
    encoder[range(channels), 0, range(channels)] = 1.0
    xs = np.stack([np.zeros_like(drives), drives], 1)

    @jit
    def both(*operands):
        return [parallel_unroll(*operands, readout=None, last=last) for last in (False, True)]

    for kernel in kernels_of_radius_1(channels, neurons):
        operands = kernel, {"kernel": encoder, "bias": encoder[:, :, 0] * 0}, (), carry, xs
        single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), operands)
        (after_all, states), (after_last, _) = jax.tree.map(np.float64, both(*single))
        kernel, _, _, first, inputs = jax.tree.map(np.float64, single)
        for member in range(2):
            drive = np.einsum("cnd,td->tcn", encoder, inputs[:, member])
            expected = frequency_by_frequency(kernel, first[member], drive)
            bound = np.finfo(np.float32).eps * np.sqrt(steps) * np.abs(expected).max()
            assert np.abs(states[:, member].reshape(expected.shape) - expected).max() < bound
            for state in (after_all, after_last):
                assert np.abs(state[member] - expected[-1]).max() < bound


def test_gradients_in_parallel_through_many_steps():
    """Through which the start, a shift, neither grows nor fades."""
    case = Case(with_readout(cells.wave(2, 7, activation="identity"), linear(3)), 2, 1_000, 1)

    def results(backend):
        params, xs, carry = operands(case)
        shift = case.cell.init(jax.random.key(0), 1)["cell"]  # without biases, which would add up
        return program(case, backend)(params | {"cell": shift}, 0.1 * xs, carry)

    assert_same(results("parallel"), results("scan"), 1e-4)


def test_a_shift_in_parallel_carries_a_pulse_around_the_ring():
    """One neuron a step, against the index, undistorted."""
    steps, neurons = 1_000, 97
    cell = cells.wave(1, neurons, activation="identity")
    carry = jnp.zeros((1, 1, neurons)).at[0, 0, 5].set(1.0)
    options = {"carry": carry, "time_major": True, "backend": "parallel"}
    states = unroll(cell, cell.init(jax.random.key(0), 1), jnp.zeros((steps, 1, 1)), **options).outputs
    expected = np.eye(neurons)[(5 - np.arange(1, steps + 1)) % neurons]
    np.testing.assert_allclose(states[:, 0], expected, atol=2e-6)
