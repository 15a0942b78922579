"""Symbols that a model goes on with: drawn as softmax(logits / temperature) has them, of what it makes of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax.layers import Variables
from wrnn_jax.models import configure, stateless
from wrnn_jax.models.generation import generate, sample
from wrnn_jax.typing import Signature
from wrnn_jax.validation import InvalidValue

KINDS = 7
MODELS = {
    "wrnn": {"n_hid": 5, "n_ch": 2, "encoder_init": "dense", "backend": "scan"},
    "wrnn deep": {"n_hid": 5, "n_ch": 2, "n_layers": 2, "norm": "layer", "residual": True, "backend": "scan"},
    "lstm": {"n_hid": 5},
    "gru": {"n_hid": 5},
    "wave-ssm": {"n_ch": 4, "n_layers": 2},
}
draw = jax.jit(jax.vmap(sample, (0, None, None)))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_frequencies_are_softmax_of_logits_over_temperature(temperature):
    logits, draws = np.array([0.5, -1.0, 2.0, 0.0]), 40_000
    shares = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    drawn = draw(jax.random.split(jax.random.key(0), draws), jnp.float32(logits), jnp.float32(temperature))
    found = np.bincount(np.asarray(drawn), minlength=4) / draws
    assert (np.abs(found - shares) < 4 * np.sqrt(shares * (1 - shares) / draws) + 1e-4).all()


@pytest.mark.parametrize("temperature", [0.0, 1e-38, 1e-3])
def test_at_temperature_0_and_near_it_the_likeliest_is_drawn(temperature):
    logits = jnp.float32([[1e4, 3.0, 1e4 + 8], [-2.0, -1.0, -3.0]])
    for seed in range(5):
        found = sample(jax.random.key(seed), logits, jnp.float32(temperature))
        np.testing.assert_array_equal(found, [2, 1])


def test_a_great_temperature_draws_evenly():
    drawn = draw(jax.random.split(jax.random.key(0), 9000), jnp.float32([5.0, -5.0, 0.0]), jnp.float32(3e38))
    assert np.abs(np.bincount(np.asarray(drawn), minlength=3) - 3000).max() < 250


@pytest.mark.parametrize("name", MODELS)
def test_each_symbol_is_drawn_from_what_the_model_makes_of_all_before_it_at_once(name, standard_promotion):
    """Teacher forcing: of prompt and generated symbols as one sequence, in parallel, the same logits."""
    T, P, length = 12, 4, 9
    model = configure(name.split()[0], **MODELS[name]).build(Signature(KINDS, KINDS, T))
    rng = np.random.default_rng(0)
    # Its start, changed so that no two logits are alike.
    start = jax.jit(model.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + np.float32(0.3 * rng.normal(size=leaf.shape)), start.params)
    variables, prompt = start._replace(params=params), jnp.int32(rng.integers(0, KINDS, (3, P)))

    @jax.jit
    def go_on(temperature):
        return generate(model, variables, prompt, KINDS, length, jax.random.key(5), temperature)

    keys = jax.random.split(jax.random.key(5), length)
    apply = jax.jit(lambda symbols: model.apply(variables, jax.nn.one_hot(symbols, KINDS))[0])
    texts = []
    for temperature in (0.0, 0.7):
        found = go_on(jnp.float32(temperature))
        assert (found.shape, found.dtype) == ((3, length), jnp.int32)
        # A network whose filters are as long as its T hears no more: of the steps up to there.
        logits = apply(jnp.concatenate([prompt, found], axis=1)[:, :T])[:, P - 1 :]
        for step in range(T - P + 1):
            np.testing.assert_array_equal(found[:, step], sample(keys[step], logits[:, step], temperature))
        texts.append(np.asarray(found))
    assert (texts[0] != texts[1]).any()


def test_a_model_that_has_to_be_given_sequences_whole_is_refused():
    model = stateless(lambda key: {}, lambda params, xs: xs)
    with pytest.raises(InvalidValue, match="one with a stream"):
        generate(model, Variables({}), jnp.zeros((1, 2), int), 3, 4, jax.random.key(0), 1.0)
