"""The linear wave as a Flax layer against the pure one: same parameters, same numbers, same gradients, in parts too."""

import dataclasses
import functools
import inspect
import re

import flax.linen
import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax import layers
from wrnn_jax.layers import Variables
from wrnn_jax.nn import linen, nnx, wave_layer_of

B, T, D, N = 2, 12, 3, 5
OPTIONS = {
    "default": {},
    "taps": {"scheme": "taps", "speed": [0.25, 0.5, 1.0], "turn": 2.0, "length": 9, "use_bias": False},
    "strided": {"scheme": "delay", "stride": 3, "use_skip": False},
}
over_options = pytest.mark.parametrize("name", OPTIONS)
STARTS = np.isin(np.arange(T), [4, 8]) & (np.arange(T) > [[0], [4]])


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(params=["linen", "nnx"])
def api(request):
    return request.param


def normal(*shape):
    return jnp.asarray(np.random.default_rng(7).normal(size=shape), jnp.float32)


XS = normal(B, T, D)


def functions(api, **options):
    """Of a Flax layer: what it gives of a whole, and of a part, as functions of the pure layer's parameters."""
    if api == "linen":
        layer = linen.WaveLayer(N, **options)

        def call(params, *operands, **method):
            return layer.apply({"params": params}, *operands, **method)

        return layer, call, functools.partial(call, method="stream")
    layer = nnx.WaveLayer(D, N, **options, rngs=flax.nnx.Rngs(0))
    graph, state = flax.nnx.split(layer)

    def with_params(params):
        made = flax.nnx.merge(graph, state, copy=True)
        flax.nnx.update(made, params)
        return made

    return (
        layer,
        lambda params, *operands: with_params(params)(*operands),
        lambda params, *operands: with_params(params).stream(*operands),
    )


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(run, params, xs):
    def loss(params, xs):
        ys = run(params, xs)
        return jnp.sum(jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)) * ys.ravel() ** 2), ys

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, xs)


def assert_close(actual, desired, rtol=1e-5, atol=1e-5):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, desired)


@over_options
def test_both_are_the_pure_layer_in_value_and_gradient(name):
    pure = layers.wave(D, N, **OPTIONS[name])
    params = pure.init(jax.random.key(1), D).params
    expected = loss_and_gradient(lambda params, xs: pure.apply(Variables(params), xs)[0], params, XS)
    for api in ("linen", "nnx"):
        _, call, _ = functions(api, **OPTIONS[name])
        assert_close(loss_and_gradient(call, params, XS), expected)


@over_options
def test_parameters_are_the_pure_layers_tree(api, name):
    """Of one draw of its ``init``, by one key."""
    pure = layers.wave(D, N, **OPTIONS[name])
    layer, call, _ = functions(api, **OPTIONS[name])
    if api == "linen":
        with jax.debug_key_reuse(True):
            params = jax.jit(layer.init)(jax.random.key(0), XS)["params"]
    else:
        params = layer.params
        assert_close(flax.nnx.to_pure_dict(flax.nnx.state(layer, flax.nnx.Param)), params, 0, 0)
    expected = jax.eval_shape(lambda: pure.init(jax.random.key(0), D)).params
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )
    assert_close(call(params, XS), pure.apply(Variables(params), XS)[0])


@pytest.mark.parametrize("name", ["default", "taps"])
def test_a_sequence_in_parts_is_the_whole(api, name):
    """Of one step and of several, from the same parameters; packed sequences are each as by itself."""
    layer, call, stream = functions(api, **OPTIONS[name])
    params = layers.wave(D, N, **OPTIONS[name]).init(jax.random.key(1), D).params
    call, stream = jax.jit(call), jax.jit(stream)
    carry, parts = layer.initialize_carry((B, D)), []
    assert carry.shape == (B, D, N)
    for start, end in ((0, 1), (1, 2), (2, 7), (7, T)):
        carry, ys = stream(params, carry, XS[:, start:end])
        parts.append(ys)
    assert_close(jnp.concatenate(parts, 1), call(params, XS))
    packed = call(params, XS, STARTS)
    for b in range(B):
        first, *others = np.flatnonzero(STARTS[b])
        for start, end in zip((0, first, *others), (first, *others, T), strict=True):
            assert_close(packed[b, start:end], call(params, XS[b : b + 1, start:end])[0])


def test_modules_of_the_same_options_are_one_pure_layer(api):
    """So that what is compiled for it is compiled once; options that are but equal in Python are told apart."""
    speed = [0.25, 0.5, 1.0]
    made = [wave_layer_of(functions(api, speed=kind(speed))[0], D) for kind in (list, tuple, np.array)]
    assert made[0] is made[1] is made[2]
    with pytest.raises(ValueError, match=r"^use_skip = 1: must be True or False$"):
        functions(api, use_skip=1)


@pytest.mark.parametrize("dtypes", [{"dtype": jnp.bfloat16}, {"param_dtype": jnp.bfloat16}])
def test_rings_and_impulse_responses_are_float32_at_least(api, dtypes):
    """Inputs and outputs have 8 bits, and what is between them no fewer than ever."""
    layer, call, stream = functions(api, **dtypes)
    made = layer.init(jax.random.key(0), XS)["params"] if api == "linen" else layer.params
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype(dtypes.get("param_dtype", jnp.float32))}
    rounded = XS.astype(jnp.bfloat16)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), made)
    exact = layers.wave(D, N).apply(Variables(wide), rounded.astype(jnp.float32))[0]
    ys = call(made, XS)
    assert ys.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ys, exact.astype(jnp.bfloat16))
    carry, ys = stream(made, layer.initialize_carry((B, D)), XS)
    assert (carry.dtype, ys.dtype) == (jnp.float32, jnp.bfloat16)


class Between(flax.linen.Module):
    """A user's model."""

    @flax.linen.compact
    def __call__(self, xs, carry=None):
        wave, xs = linen.WaveLayer(N), flax.linen.Dense(D)(xs)
        carry, ys = (None, wave(xs)) if carry is None else wave.stream(carry, xs)
        ys = flax.linen.Dense(2)(flax.linen.gelu(ys))
        return ys if carry is None else (carry, ys)


@pytest.mark.usefixtures("standard_promotion")
def test_between_dense_layers_of_a_users_model_step_by_step():
    """Compact in linen, where the same module is whole or streamed; under ``lax.scan`` over steps."""
    xs, model = normal(B, T, 1), Between()
    variables = jax.jit(model.init)(jax.random.key(0), xs)
    assert set(variables["params"]) == {"Dense_0", "Dense_1", "WaveLayer_0"}

    @jax.jit
    def stepwise(variables, xs):
        def body(carry, x):
            return model.apply(variables, x[:, None], carry)

        return jax.lax.scan(body, linen.WaveLayer(N).initialize_carry((B, D)), jnp.swapaxes(xs, 0, 1))[1]

    assert_close(jnp.swapaxes(stepwise(variables, xs)[:, :, 0], 0, 1), jax.jit(model.apply)(variables, xs))


@pytest.mark.parametrize("module", [linen.WaveLayer, nnx.WaveLayer])
def test_fields_are_the_options_of_the_pure_layer(module):
    fields = {field.name: field for field in dataclasses.fields(module)}
    options = {name: option for name, option in inspect.signature(layers.wave).parameters.items() if name != "features"}
    for name, option in options.items():
        default = inspect.Parameter.empty if fields[name].default is dataclasses.MISSING else fields[name].default
        assert default == option.default
        assert fields[name].type == option.annotation
    assert set(fields) - set(options) <= {"in_features", "dtype", "param_dtype", "parent", "name"}


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "fft"},
        {"speed": 0.0},
        {"speed": 1.5},
        {"speed": (1.0, 0.5)},
        {"turn": -1.0},
        {"stride": 0},
        {"use_bias": None},
    ],
)
def test_bad_options_raise_what_the_pure_layer_raises(api, options):
    """When the module is made; in linen, speeds for another number of features when that is known."""
    with pytest.raises(ValueError, match="must be") as expected:
        layers.wave(D, N, **options)

    def make():
        layer = functions(api, **options)[0]
        assert options == {"speed": (1.0, 0.5)}
        layer.init(jax.random.key(0), XS)

    with pytest.raises(ValueError, match=f"^{re.escape(str(expected.value))}(\n|$)"):
        make()


def test_other_axes_are_refused_in_a_line(api):
    layer, call, stream = functions(api)
    params = layers.wave(D, N).init(jax.random.key(1), D).params
    for refused in (lambda: call(params, XS[0]), lambda: stream(params, normal(B, D, N), XS[:, 0])):
        with pytest.raises(ValueError, match=r"^xs.shape = \(\d+, 3\): must be \(B, T, D\)(\n|$)"):
            refused()
    with pytest.raises(ValueError, match=r"^input_shape = \(2, 12, 3\): must be \(B, D\), of one step$"):
        layer.initialize_carry(XS.shape)
    with pytest.raises(ValueError, match=r"^carry.shape = \(2, 3, 4\): must be \(2, 3, 5\)"):
        stream(params, normal(B, D, N - 1), XS)
    with pytest.raises(ValueError, match="in_features = 0"):
        nnx.WaveLayer(0, N, rngs=flax.nnx.Rngs(0))
