"""The selective copy task against its definition, and the draws without repetition that it is made of."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import at_step
from wrnn_jax.tasks import SelectiveConfig, selective_batch, selective_task
from wrnn_jax.tasks.tokens import distinct

SIZES = ((1, 1, 4), (30, 4, 9))
"""T, tokens, vocabulary."""


def key(seed):
    """One that compiles several times faster than the default."""
    return jax.random.key(seed, impl="unsafe_rbg")


def solve(inputs, T):
    """What is due, of one sequence as the network sees it."""
    tokens = []
    for step, token in enumerate(inputs):
        if step < T and token != 0:
            tokens.append(int(token))
    return tokens


@pytest.mark.parametrize(("T", "tokens", "vocabulary"), SIZES)
def test_batch_is_the_definition(T, tokens, vocabulary):
    inputs, targets = map(np.asarray, selective_batch(key(T), 40, T, tokens, vocabulary))
    assert (inputs.dtype, targets.dtype) == (np.int32, np.int32)
    assert (inputs.shape, targets.shape) == ((40, T + tokens), (40, tokens))
    np.testing.assert_array_equal(inputs[:, T:], vocabulary - 1)
    assert ((targets >= 1) & (targets <= vocabulary - 2)).all()
    for row, due in zip(inputs, targets, strict=True):
        assert solve(row, T) == list(due), "the tokens in their order, and nothing but noise between them"


@settings(max_examples=2)
@given(st.integers(1, 12), st.data())
def test_the_answer_is_in_the_input(T, data):
    tokens, vocabulary = data.draw(st.integers(1, T)), data.draw(st.integers(4, 9))
    inputs, targets = map(np.asarray, selective_batch(key(tokens), 3, T, tokens, vocabulary))
    for row, due in zip(inputs, targets, strict=True):
        assert solve(row, T) == list(due)


def test_places_and_tokens_are_uniform():
    T, tokens, size = 6, 2, 6000
    inputs, targets = map(np.asarray, selective_batch(key(0), size, T, tokens, 5))
    places = np.array([np.flatnonzero(row) for row in inputs[:, :T]])
    pairs = np.bincount(places @ (T, 1), minlength=T * T).reshape(T, T)
    expected = size / math.comb(T, tokens)
    assert np.abs(pairs[np.triu_indices(T, 1)] - expected).max() < 5 * np.sqrt(expected), "each set of places"
    assert pairs.sum() == pairs[np.triu_indices(T, 1)].sum()
    kinds = np.bincount(targets.ravel(), minlength=5)
    assert kinds[0] == kinds[4] == 0
    assert np.abs(kinds[1:4] - 4000).max() < 5 * 52
    # Where the tokens stand says nothing about which they are.
    assert abs(np.corrcoef(places[:, 0], targets[:, 0])[0, 1]) < 5 / np.sqrt(size)


def test_a_draw_repeats_nothing():
    drawn = np.asarray(distinct(key(0), 500, 7, 7))
    np.testing.assert_array_equal(np.sort(drawn, axis=-1), np.broadcast_to(np.arange(7), (500, 7)))
    assert len(np.unique(drawn, axis=0)) > 400, "in a random order"


def test_a_weighted_draw_takes_what_is_left_by_its_weights():
    """The probability of a sequence of draws as it is worked out draw by draw."""
    weights, size = np.array([0.5, 0.3, 0.2]), 6000
    drawn = np.asarray(distinct(key(1), size, 3, 2, jnp.log(jnp.asarray(weights, jnp.float32))))
    for first in range(3):
        for second in range(3):
            share = 0.0 if first == second else weights[first] * weights[second] / (1 - weights[first])
            found = (drawn == (first, second)).all(axis=-1).mean()
            assert abs(found - share) < 5 * np.sqrt(0.25 / size)


def test_every_step_has_a_batch_of_its_own_and_the_test_set_is_fixed():
    task = selective_task(SelectiveConfig(T=10, tokens=3))
    first, again, other = (task.batch(task.source, key(3), at_step(step), 4)[0] for step in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()
    test = task.splits["test"]
    assert test.size == 1024
    examples = jax.jit(partial(test.examples, task.source))
    (inputs, targets), (again, _) = (examples(jnp.array(at)) for at in ((0, 1, 2), (2, 5, 0)))
    np.testing.assert_array_equal(inputs[2], again[0])
    np.testing.assert_array_equal(inputs[0], again[2])
    assert inputs.shape == (3, 13, 16)
    np.testing.assert_array_equal(inputs.sum(-1), 1.0)
    assert [solve(row, 10) for row in np.asarray(inputs).argmax(-1)] == np.asarray(targets).tolist()


def test_metrics_by_hand():
    T, tokens, vocabulary, size = 5, 3, 6, 20
    task = selective_task(SelectiveConfig(T, tokens, vocabulary))
    rng = np.random.default_rng(0)
    targets = jnp.asarray(rng.integers(1, vocabulary - 1, (size, tokens)), jnp.int32)
    logits = rng.normal(size=(size, T + tokens, vocabulary))
    given = jnp.asarray(logits, jnp.float32)
    metrics = task.splits["test"].metrics(given, targets)
    total, recalled = 0.0, 0
    for row, place in np.ndindex(size, tokens):
        target, scores = int(targets[row, place]), logits[row, T + place]
        total += math.log(np.exp(scores).sum()) - scores[target]
        recalled += int(np.argmax(scores)) == target
    np.testing.assert_allclose(metrics["test_loss"].mean(), total / (size * tokens), rtol=1e-5)
    np.testing.assert_allclose(metrics["recall"].mean(), recalled / (size * tokens), rtol=1e-6)
    np.testing.assert_allclose(task.loss(given, targets), total / (size * tokens), rtol=1e-5)


def test_chance_is_to_guess_among_the_kinds_of_token():
    task = selective_task(SelectiveConfig(8, 5, 7))
    guess = np.log([1e-30, *[0.2] * 5, 1e-30]).astype(np.float32)
    loss = task.loss(jnp.asarray(np.broadcast_to(guess, (1, 13, 7))), jnp.arange(1, 6)[None])
    np.testing.assert_allclose(loss, task.chance["test_loss"], rtol=1e-5)
    assert task.chance["recall"] == 1 / 5


def test_solved_is_nearly_all_recalled():
    solved = selective_task(SelectiveConfig(8, 2)).solved
    assert solved({"recall": 0.99, "test_loss": 0.1})
    assert not solved({"recall": 0.98, "test_loss": 0.0})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"T": 0}, "T = 0: must be a whole number, 1 or more"),
        ({"T": 8, "tokens": 9}, "tokens = 9: must be at most 8, the steps among which they stand"),
        ({"tokens": 0}, "tokens = 0: must be a whole number, 1 or more"),
        ({"vocabulary": 3}, "vocabulary = 3: must be a whole number, 4 or more"),
        ({"vocabulary": 2**16 + 1}, "vocabulary = 65537: must be a whole number, 65536 at most"),
    ],
)
def test_bad_config_is_refused_by_name(fields, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        SelectiveConfig(**fields)
