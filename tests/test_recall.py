"""Associative recall against its definitions."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import at_step
from wrnn_jax.tasks import RecallConfig, recall_batch, recall_task
from wrnn_jax.tasks.recall import Asked

SINGLE = RecallConfig(pairs=6, keys=3, values=4)
MULTI = RecallConfig("multi", pairs=3, keys=7, values=5, T=20)


def batch(config, size, seed=0):
    # This kind of key compiles several times faster than the default.
    inputs, asked = recall_batch(jax.random.key(seed, impl="unsafe_rbg"), size, config)
    assert {inputs.dtype, *(part.dtype for part in asked)} == {np.dtype(np.int32)}
    return np.asarray(inputs), np.asarray(asked.places), np.asarray(asked.due)


def look_up(inputs, place):
    """The token after the place's token where that stood first: the answer, of what the network has seen by then."""
    for step in range(place):
        if inputs[step] == inputs[place]:
            return inputs[step + 1]
    raise AssertionError("it has not stood before")


def check_pairs(row, config):
    """Keys and values in turn -> the keys."""
    pairs = row[: 2 * config.pairs].reshape(-1, 2)
    assert ((pairs[:, 0] >= 1) & (pairs[:, 0] <= config.keys)).all()
    assert ((pairs[:, 1] > config.keys) & (pairs[:, 1] <= config.keys + config.values)).all()
    return pairs


def check_single(config, inputs, places, due):
    assert inputs.shape == (len(inputs), config.T)
    assert 2 * config.pairs + 2 == config.T
    np.testing.assert_array_equal(places, config.T - 1)
    np.testing.assert_array_equal(inputs[:, -2], 0)
    for row, (answer,) in zip(inputs, due, strict=True):
        pairs = check_pairs(row, config)
        assert len(np.unique(pairs, axis=0)) == len(np.unique(pairs[:, 0])), "a key has one value"
        assert row[-1] in pairs[:, 0]
        assert look_up(row, config.T - 1) == answer


def check_multi(config, inputs, places, due):
    shown = 2 * config.pairs
    assert inputs.shape == (len(inputs), config.T)
    for row, asked, answers in zip(inputs, places, due, strict=True):
        pairs = check_pairs(row, config)
        assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == config.pairs, "no key and no value twice"
        np.testing.assert_array_equal(row[asked], pairs[:, 0])
        np.testing.assert_array_equal(answers, pairs[:, 1])
        assert len(set(asked)) == config.pairs
        assert ((asked >= shown) & (asked % 2 == 0)).all()
        assert (np.delete(row[shown:], asked - shown) == 0).all()
        assert [look_up(row, place) for place in asked] == list(answers)


def test_single_is_its_definition():
    check_single(SINGLE, *batch(SINGLE, 60))


def test_multi_is_its_definition():
    check_multi(MULTI, *batch(MULTI, 60))


@settings(max_examples=2)
@given(st.integers(1, 5), st.integers(2, 5), st.integers(2, 5))
def test_the_answer_is_in_the_input(pairs, keys, values):
    single = RecallConfig(pairs=pairs, keys=keys, values=values)
    check_single(single, *batch(single, 4, pairs))
    multi = RecallConfig("multi", pairs, keys + pairs, values + pairs, 4 * pairs + 2 * keys)
    check_multi(multi, *batch(multi, 4, pairs))


def test_single_draws_keys_values_and_the_question_evenly():
    size = 6000
    inputs, _, due = batch(SINGLE, size)
    pairs = inputs[:, :12].reshape(size, 6, 2)
    keys = np.bincount(pairs[..., 0].ravel(), minlength=4)[1:]
    assert np.abs(keys - 12_000).max() < 5 * np.sqrt(12_000)
    answers = np.bincount(due.ravel(), minlength=8)[4:]
    assert np.abs(answers - 1500).max() < 5 * np.sqrt(1500), "to know the key alone is to know nothing"
    # One of the keys that stood in the pairs, however often: of one that stood once and one that stood five times,
    # each in half of the sequences.
    uneven = [row for row in inputs if sorted(np.unique(row[:12:2], return_counts=True)[1]) == [1, 5]]
    once = [np.sum(row[:12:2] == row[-1]) == 1 for row in uneven]
    assert abs(np.mean(once) - 0.5) < 5 * np.sqrt(0.25 / len(once))


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_multi_asks_after_gaps_that_fall_by_a_power(power):
    """The first key's gap, which is drawn of all: p(g) ∝ g^(a − 1), g = 1, 2, …"""
    size, config = 6000, RecallConfig("multi", 2, 4, 4, 12, power)
    _, places, _ = batch(config, size)
    gaps = (places[:, 0] - 4) // 2 + 1
    weights = np.arange(1, 5) ** (power - 1)
    shares = np.bincount(gaps, minlength=5)[1:] / size
    assert np.abs(shares - weights / weights.sum()).max() < 5 * np.sqrt(0.25 / size)


def test_metrics_by_hand_of_the_questions_alone():
    size, rng = 12, np.random.default_rng(0)
    for config in (SINGLE, MULTI):
        task = recall_task(config)
        questions = 1 if config is SINGLE else config.pairs
        places = rng.permuted(np.tile(np.arange(config.T), (size, 1)), axis=1)[:, :questions]
        due = rng.integers(config.keys + 1, config.vocabulary, (size, questions))
        asked = Asked(jnp.asarray(places, jnp.int32), jnp.asarray(due, jnp.int32))
        shape = (size, config.vocabulary) if config is SINGLE else (size, config.T, config.vocabulary)
        logits = rng.normal(size=shape)
        given = jnp.asarray(logits, jnp.float32)
        total = right = 0.0
        for row, question in np.ndindex(due.shape):
            scores = logits[row] if config is SINGLE else logits[row, places[row, question]]
            total += math.log(np.exp(scores).sum()) - scores[due[row, question]]
            right += int(np.argmax(scores)) == due[row, question]
        metrics = {name: value.mean() for name, value in task.splits["test"].metrics(given, asked).items()}
        np.testing.assert_allclose(metrics["test_loss"], total / due.size, rtol=1e-5)
        np.testing.assert_allclose(metrics["test_acc"], right / due.size, rtol=1e-6)
        np.testing.assert_allclose(task.loss(given, asked), total / due.size, rtol=1e-5)


def test_every_step_has_a_batch_of_its_own_and_the_test_set_is_fixed():
    task, key = recall_task(MULTI), jax.random.key(3, impl="unsafe_rbg")
    first, again, other = (task.batch(task.source, key, at_step(step), 4)[0] for step in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()
    test = task.splits["test"]
    assert test.size == 1024
    examples = jax.jit(partial(test.examples, task.source))
    (inputs, asked), (again, _) = (examples(jnp.array(at)) for at in ((0, 1, 2), (2, 5, 0)))
    np.testing.assert_array_equal(inputs[2], again[0])
    np.testing.assert_array_equal(inputs[0], again[2])
    assert inputs.shape == (3, *MULTI.shape)
    np.testing.assert_array_equal(inputs.sum(-1), 1.0)
    check_multi(MULTI, np.asarray(inputs).argmax(-1), *map(np.asarray, asked))


def test_chance_is_to_guess_among_the_values():
    task = recall_task(SINGLE)
    guess = np.log([1e-30] * 4 + [0.25] * 4).astype(np.float32)
    asked = Asked(jnp.full((4, 1), SINGLE.T - 1), jnp.arange(4, 8)[:, None])
    loss = task.loss(jnp.asarray(np.broadcast_to(guess, (4, 8))), asked)
    np.testing.assert_allclose(loss, task.chance["test_loss"], rtol=1e-5)
    assert task.chance["test_acc"] == 1 / 4
    assert task.solved({"test_acc": 0.99})
    assert not task.solved({"test_acc": 0.989})


def test_sizes_are_the_papers_if_not_given():
    single, multi = RecallConfig(), RecallConfig("multi")
    assert (single.T, single.pairs, single.keys, single.values, single.power) == (22, 10, 4, 4, None)
    assert (multi.T, multi.pairs, multi.vocabulary, multi.power) == (64, 4, 8192, 0.01)
    for config in (single, multi):
        assert RecallConfig(**vars(config)) == config, "as a run's folder has it"
    assert (recall_task(single).signature.read, recall_task(MULTI).signature.read) == ("last", "all")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"variant": "both"}, "variant = 'both': must be one of single, multi"),
        ({"pairs": 0}, "pairs = 0: must be a whole number, 1 or more"),
        ({"keys": 1}, "keys = 1: must be a whole number, 2 or more"),
        ({"values": 2**17}, "values = 131072: must be a whole number, 65536 at most"),
        ({"power": 0.5}, "power = 0.5: must be left out: only for --variant multi"),
        ({"T": 30}, "T = 30: must be left out, or 22: two steps for each of 10 pairs, and two"),
        ({"variant": "multi", "keys": 3}, "keys = 3: must be 4 or more, as many as pairs: none stands in two of them"),
        (
            {"variant": "multi", "values": 3},
            "values = 3: must be 4 or more, as many as pairs: none stands in two of them",
        ),
        (
            {"variant": "multi", "T": 14},
            "T = 14: must be even, and 16 or more: the pairs, and as many pairs of steps again to ask in",
        ),
        (
            {"variant": "multi", "T": 17},
            "T = 17: must be even, and 16 or more: the pairs, and as many pairs of steps again to ask in",
        ),
        ({"variant": "multi", "power": 1.5}, "power = 1.5: must be above 0, and 1 at most"),
    ],
)
def test_bad_config_is_refused_by_name(fields, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        RecallConfig(**fields)
