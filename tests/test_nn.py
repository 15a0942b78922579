"""The Flax cells against the pure ones: same parameters, same numbers, same gradients."""

import dataclasses
import functools
import inspect
import re

import flax.linen
import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from user_cells import antisymmetric, unitary

from wrnn_jax.cells import Cell, elman, first_carry, lstm, unroll, wave
from wrnn_jax.nn import linen, nnx
from wrnn_jax.readouts import linear, with_readout

B, T, D, C, N = 3, 7, 4, 2, 5
LENGTHS = (3, 7, 3)
DENSE = {"kernel_init": "random", "encoder_init": "dense", "bias_init": "random"}
TANH = {"taps": 5, "activation": "tanh", "form": "conv", "freeze_encoder": True, **DENSE}
LOCAL = {"activation": "identity", "local": True, "freeze_recurrence": True, **DENSE}
BARE = {**DENSE, "bias_init": "zeros", "use_bias": False}
ROW = {"encoder_kind": "conv", "encoder_taps": 1, "encoder_colors": 2}
LOW_RANK = {"encoder_kind": "low-rank", "encoder_rank": 2, "encoder_init": "uniform"}
APIS = ("linen", "nnx")


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def leaky(neurons):
    """A user's own cell: a tuple carry of unlike leaves (a counter too), and parameters that are no dict.

    h' = h/2 + V x,  n' = n + 1,  y = h'·n'
    """

    def step(params, carry, x):
        hidden, count = carry
        hidden = hidden / 2 + jnp.tensordot(x.astype(hidden.dtype), params[0].astype(hidden.dtype), axes=1)
        return (hidden, count + 1), hidden * (count + 1)[..., None].astype(hidden.dtype)

    return Cell(
        init=lambda key, input_size: (jax.random.normal(key, (input_size, neurons)),),
        initial_carry=lambda batch=(), dtype=jnp.float32: (jnp.zeros((*batch, neurons), dtype), jnp.zeros(batch, int)),
        step=step,
        hidden=lambda carry: carry[0][..., None, :],
        output_size=neurons,
    )


# A pure cell, and the options of the WaveRNNCell that should be it (None: the AdaptedCell should). Between them they
# give each option a value that is not the default, have a tuple for a carry, parameters that are no dict, a parameter
# named like an attribute of the module, a trained start, and work that ``unroll`` does once a sequence.
CELLS = {
    "dense": (wave(C, N, **DENSE), DENSE),
    "tanh": (wave(C, N, **TANH), TANH),
    "local": (wave(C, N, **LOCAL), LOCAL),
    "no biases": (wave(C, N, **BARE), BARE),
    "conv encoder": (wave(C, N, **ROW), ROW),
    "low-rank encoder": (wave(C, N, **LOW_RANK), LOW_RANK),
    "lstm": (lstm(N), None),
    "leaky": (leaky(N), None),
    "composed": (with_readout(elman(N), linear(3)), None),
    "unitary": (unitary(N), None),
    "antisymmetric": (antisymmetric(N), None),
}


def make(api, cell, options, **dtypes):
    """The Flax cell of a pair of ``CELLS``."""
    if api == "linen":
        return linen.AdaptedCell(cell, **dtypes) if options is None else linen.WaveRNNCell(C, N, **options, **dtypes)
    dtypes["rngs"] = flax.nnx.Rngs(0)
    return nnx.AdaptedCell(cell, D, **dtypes) if options is None else nnx.WaveRNNCell(D, C, N, **options, **dtypes)


def named(api, params):
    """The pure cell's parameters as a Flax cell has them; nnx numbers the entries of a tuple."""
    if isinstance(params, tuple):
        return {"tree": params if api == "linen" else dict(enumerate(params))}
    return {"tree": params} if api == "nnx" and "cell" in params else params


def rnn(api, module, **options):
    """Flax's RNN over a Flax cell, as a compiled function of the pure cell's parameters."""
    if api == "linen":
        layer = flax.linen.RNN(module, **options)

        def apply(params, xs, **call):
            return layer.apply({"params": {"cell": named(api, params)}}, xs, **call)

    else:
        graph, state = flax.nnx.split(flax.nnx.RNN(module, **options))

        def apply(params, xs, **call):
            layer = flax.nnx.merge(graph, state, copy=True)
            flax.nnx.update(layer.cell, named(api, params))
            return layer(xs, **call)

    return jax.jit(apply)


@functools.partial(jax.jit, static_argnums=0)
def pure(cell, params, xs):
    """(carry, ys) of the pure unroll."""
    return unroll(cell, params, xs)[:2]


def draw(cell, seed=0):
    """Random parameters and inputs ``(B, T, D)``."""
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    normal = np.random.default_rng(seed).normal
    return jax.tree.map(lambda leaf: jnp.array(0.4 * normal(size=leaf.shape), jnp.float32), shapes), inputs(B, T, D)


def inputs(*shape):
    return jnp.array(np.random.default_rng(7).normal(size=shape), jnp.float32)


def assert_close(actual, desired, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    assert dtypes(actual) == dtypes(desired)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, desired)


def dtypes(tree):
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


@pytest.fixture(params=APIS)
def api(request):
    return request.param


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(run, params, xs):
    def loss(params, xs):
        carry, ys = run(params, xs)
        return jnp.sum((ys - 1) ** 2), (carry, ys)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, xs)


@pytest.mark.parametrize("name", ["tanh", "local", "leaky", "unitary", "antisymmetric"])
def test_both_equal_the_pure_unroll_in_value_and_gradient(name):
    cell, options = CELLS[name]
    params, xs = draw(cell)
    expected = loss_and_gradient(functools.partial(pure, cell), params, xs)
    for api in APIS:
        run = rnn(api, make(api, cell, options), return_carry=True)
        assert_close(loss_and_gradient(run, params, xs), expected, atol=1e-4)


def test_carry_is_taken_at_each_sequences_end(api):
    cell, options = CELLS["unitary"]
    params, xs = draw(cell)
    run = rnn(api, make(api, cell, options), return_carry=True)
    carry, ys = run(params, xs, seq_lengths=jnp.array(LENGTHS))
    for b, length in enumerate(LENGTHS):
        alone = pure(cell, params, xs[b : b + 1, :length])
        assert_close((jax.tree.map(lambda leaf, b=b: leaf[b : b + 1], carry), ys[b : b + 1, :length]), alone)


def test_options_of_flax_and_any_number_of_batch_axes(api):
    cell, options = CELLS["dense"]
    params, xs = draw(cell)[0], inputs(T, 2, 1, 3, D)
    run = rnn(
        api, make(api, cell, options), return_carry=True, time_major=True, reverse=True, keep_order=True, unroll=3
    )
    carry, ys = run(params, xs)
    assert carry.shape == (2, 1, 3, C, N)
    last, backwards = pure(cell, params, xs[::-1].reshape(T, 6, D).swapaxes(0, 1))
    assert_close((carry.reshape(6, C, N), ys.reshape(T, 6, C * N)), (last, backwards.swapaxes(0, 1)[::-1]))


def test_bidirectional_joins_two_unrolls(api):
    cell, options = CELLS["unitary"]
    (forward, xs), (backward, _) = draw(cell, 0), draw(cell, 1)
    if api == "linen":
        layer = flax.linen.Bidirectional(*(flax.linen.RNN(make(api, cell, options)) for _ in range(2)))
        params = {"forward_rnn": {"cell": forward}, "backward_rnn": {"cell": backward}}
        carry, ys = layer.apply({"params": params}, xs, return_carry=True)
    else:
        layer = flax.nnx.Bidirectional(*(flax.nnx.RNN(make(api, cell, options)) for _ in range(2)))
        flax.nnx.update(layer.forward_rnn.cell, forward)
        flax.nnx.update(layer.backward_rnn.cell, backward)
        carry, ys = layer(xs, return_carry=True)
    (last, there), (first, back) = pure(cell, forward, xs), pure(cell, backward, xs[:, ::-1])
    assert_close((carry, ys), ((last, first), jnp.concatenate([there, back[:, ::-1]], axis=-1)))


@pytest.mark.parametrize(("dtype", "carry_dtype"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_computes_in_dtype_and_keeps_the_carrys(api, dtype, carry_dtype):
    cell, options = CELLS["dense"]
    params, xs = draw(cell)
    first = cell.initial_carry((B,), jnp.dtype(carry_dtype))
    module = make(api, cell, options, dtype=None if dtype == "float32" else jnp.bfloat16)
    carry, ys = rnn(api, module, return_carry=True)(params, xs, initial_carry=first)
    assert ys.dtype == dtype
    assert carry.dtype == carry_dtype
    # Every step's arithmetic in dtype, every carry between steps rounded to carry_dtype.
    state = first
    for t in range(T):
        state, y = cell.step(params, state.astype(dtype), xs[:, t])
        state = state.astype(carry_dtype)
        np.testing.assert_allclose(ys[:, t].astype("float32"), y.astype("float32"), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(carry.astype("float32"), state.astype("float32"), rtol=0.02, atol=0.02)


def test_a_trained_start_is_the_carry_of_a_module_that_has_its_parameters(api):
    """In their dtype, and in linen's first pass, which makes them; without them it is refused."""
    cell, _ = CELLS["unitary"]
    module = make(api, cell, None, param_dtype=jnp.bfloat16)
    if api == "nnx":
        params, carry = module.params, module.initialize_carry((B, D))
    else:
        start, key = functools.partial(module.initialize_carry, jax.random.key(0)), jax.random.key(1)
        with pytest.raises(
            ValueError, match=r"^initialize_carry = 'a module without its parameters': must be one that"
        ):
            start((B, D))
        layer, xs = flax.linen.RNN(module), draw(cell)[1]
        ys, variables = jax.jit(layer.init_with_output)(key, xs)
        assert_close(ys, jax.jit(layer.apply)(variables, xs))
        params = variables["params"]["cell"]
        carry = module.apply({"params": params}, key, (B, D), method="initialize_carry")
    assert_close(carry, first_carry(cell, params, (B,), jnp.bfloat16))
    assert all(np.abs(leaf).max() > 0.1 for leaf in carry)


def test_param_dtype_is_that_of_parameters_first_carry_and_outputs(api):
    cell, options = CELLS["dense"]
    module = make(api, cell, options, param_dtype=jnp.bfloat16)
    carry = module.initialize_carry(*([jax.random.key(0)] if api == "linen" else []), (B, D))
    assert carry.shape == (B, C, N)
    assert carry.dtype == jnp.bfloat16
    x = jnp.ones((B, D))
    if api == "linen":
        (carry, y), variables = module.init_with_output(jax.random.key(0), carry, x)
        params = variables["params"]
    else:
        (carry, y), params = module(carry, x), module.params
    assert set(dtypes((params, carry, y))) == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("name", ["dense", "no biases", "lstm", "leaky", "composed"])
def test_parameters_are_the_pure_cells_tree(api, name):
    cell, options = CELLS[name]
    module, carry, x = make(api, cell, options), cell.initial_carry((B,)), jnp.ones((B, D))
    if api == "linen":
        with jax.debug_key_reuse(True):
            attributes = jax.jit(module.init)(jax.random.key(0), carry, x)["params"]
        params = attributes.get("tree", attributes)
        _, y = module.apply({"params": attributes}, carry, x)
    else:
        params = module.params
        attributes = flax.nnx.to_pure_dict(flax.nnx.state(module, flax.nnx.Param))
        _, y = module(carry, x)
    assert_close(attributes, named(api, params))
    expected = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    assert_close(y, cell.step(params, carry, x)[1])


def test_the_start_is_one_draw_of_init(api):
    """Parts that the pure cell draws together stay together: a tied start stays tied. No key is used twice."""

    def init(key, input_size):
        drawn = jax.random.normal(key, (input_size,))
        return {"a": drawn, "b": drawn}

    def step(params, carry, x):
        return carry, x * params["a"].reshape((1,) * (x.ndim - 1) + (-1,))

    tied = leaky(N)._replace(init=init, step=step)
    carry, x = tied.initial_carry((B,)), jnp.ones((B, D))

    def start(seed):
        with jax.debug_key_reuse(True):
            if api == "linen":
                return linen.AdaptedCell(tied).init(jax.random.key(seed), carry, x)["params"]
            return nnx.AdaptedCell(tied, D, rngs=flax.nnx.Rngs(seed)).params

    np.testing.assert_array_equal(start(0)["a"], start(0)["b"])
    np.testing.assert_array_equal(start(0)["a"], start(0)["a"])
    assert not np.allclose(start(0)["a"], start(1)["a"])


@pytest.mark.parametrize(
    "options",
    [
        {"taps": 4},
        {"taps": N + 2},
        {"activation": "relU"},
        {"kernel_init": "Shift"},
        {"encoder_init": "random"},
        {"encoder_kind": "sparse"},
        {"encoder_rank": 2},
        {"bias_init": "none"},
        {"form": "fft"},
        {"local": True, "form": "conv"},
        {"use_bias": False, "bias_init": "random"},
    ],
)
def test_bad_options_raise_what_the_pure_cell_raises(api, options):
    with pytest.raises(ValueError, match="must be") as expected:
        wave(C, N, **options)
    with pytest.raises(ValueError, match=f"^{re.escape(str(expected.value))}$") as raised:
        make(api, None, options)
    assert "\n" not in str(raised.value)


def test_nnx_refuses_bad_sizes():
    with pytest.raises(ValueError, match="in_features = 0"):
        nnx.WaveRNNCell(0, C, N, rngs=flax.nnx.Rngs(0))


@pytest.mark.parametrize("module", [linen.WaveRNNCell, nnx.WaveRNNCell])
def test_fields_are_the_options_of_the_pure_cell(module):
    fields = {field.name: field for field in dataclasses.fields(module)}
    for name, option in inspect.signature(wave).parameters.items():
        default = inspect.Parameter.empty if fields[name].default is dataclasses.MISSING else fields[name].default
        assert default == option.default
        assert fields[name].type == option.annotation
    others = {"in_features", "dtype", "param_dtype", "parent", "name"}
    assert set(fields) - set(inspect.signature(wave).parameters) <= others


def test_equal_options_make_equal_modules():
    assert linen.WaveRNNCell(C, N) == linen.WaveRNNCell(C, N)
    assert hash(linen.WaveRNNCell(C, N)) == hash(linen.WaveRNNCell(C, N))
    graphs = [flax.nnx.split(nnx.WaveRNNCell(D, C, N, rngs=flax.nnx.Rngs(seed)))[0] for seed in range(2)]
    assert graphs[0] == graphs[1]


def test_linen_transforms():
    """nn.scan over layers with their own parameters, and nn.vmap over an ensemble."""
    cell, options = CELLS["dense"]
    x, carries = inputs(B, C * N), inputs(4, B, C, N)
    lifted = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}

    def layer(module, x, carry):
        return module(carry, x)[::-1]

    class Deep(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x, carries):
            return flax.linen.scan(layer, **lifted)(linen.WaveRNNCell(C, N, **options), x, carries)

    variables = jax.jit(Deep().init)(jax.random.key(0), x, carries)
    top, new_carries = jax.jit(Deep().apply)(variables, x, carries)
    (params,) = variables["params"].values()
    y = x
    for i in range(4):
        carry, y = cell.step(jax.tree.map(lambda leaf, i=i: leaf[i], params), carries[i], y)
        assert_close(new_carries[i], carry)
    assert_close(top, y)

    ensemble = flax.linen.vmap(linen.WaveRNNCell, in_axes=(0, None), axis_size=4, **lifted)(C, N, **options)
    variables = jax.jit(ensemble.init)(jax.random.key(0), carries, x)
    assert not np.allclose(*variables["params"]["recurrence"]["kernel"][:2])
    expected = jax.vmap(cell.step, in_axes=(0, 0, None))(variables["params"], carries, x)
    assert_close(ensemble.apply(variables, carries, x), expected)


def test_nnx_vmapped_construction():
    cell, options = CELLS["dense"]

    @flax.nnx.jit
    @flax.nnx.vmap
    def build(key):
        return nnx.WaveRNNCell(D, C, N, **options, rngs=flax.nnx.Rngs(key))

    ensemble, xs = build(jax.random.split(jax.random.key(0), 3)), draw(cell)[1]
    ys = flax.nnx.jit(flax.nnx.vmap(lambda module: flax.nnx.RNN(module)(xs)))(ensemble)
    for i in range(3):
        assert_close(ys[i], pure(cell, jax.tree.map(lambda leaf, i=i: leaf[i], ensemble.params), xs)[1])


def first_symbol(key, symbols=4, steps=10):
    """Sequences of random symbols; the target is the first."""
    tokens = jax.random.randint(key, (32, steps), 0, symbols)
    return jax.nn.one_hot(tokens, symbols), tokens[:, 0]


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def test_nnx_model_learns():
    class Remember(flax.nnx.Module):
        def __init__(self, rngs):
            self.rnn = flax.nnx.RNN(nnx.WaveRNNCell(4, channels=8, neurons=12, rngs=rngs))
            self.readout = flax.nnx.Linear(96, 4, rngs=rngs)

        def __call__(self, xs):
            return self.readout(self.rnn(xs)[:, -1])

    model = Remember(flax.nnx.Rngs(0))
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))
    optimizer = flax.nnx.Optimizer(model, clipped, wrt=flax.nnx.Param)

    @flax.nnx.jit
    def train_step(model, optimizer, key):
        xs, labels = first_symbol(key)
        loss, gradient = flax.nnx.value_and_grad(lambda model: cross_entropy(model(xs), labels))(model)
        with jax.numpy_dtype_promotion("standard"):  # as above
            optimizer.update(model, gradient)
        return loss

    losses = [train_step(model, optimizer, key) for key in jax.random.split(jax.random.key(1), 150)]
    assert np.median(losses[-20:]) < 0.1 * losses[0]
