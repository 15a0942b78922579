"""The copy task against its definition, position by position."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.experiment import resolved
from helpers import at_step
from wrnn_jax.tasks import CopyConfig, copy_batch, copy_task
from wrnn_jax.training.config import TrainConfig

LENGTHS = (0, 1, 10, 80)


def generate(task, key, size):
    return task.batch(task.source, key, at_step(0), size)


def by_definition(symbols, T, variant):
    """One sequence, written down step by step. "authors": their length is T + 10 in their own count."""
    length = T + 20
    inputs, targets = [0] * length, [0] * length
    for position, symbol in enumerate(symbols):
        inputs[position] = symbol
    if variant == "paper":
        inputs[10 + T] = 9
    else:
        inputs[length - 11] = 9
    for position in range(10):
        targets[length - 10 + position] = inputs[position]
    return inputs, targets


@pytest.mark.parametrize("variant", ["paper", "authors"])
@pytest.mark.parametrize("T", LENGTHS)
def test_batch_is_the_definition(T, variant):
    key = jax.random.key(T)
    inputs, targets = map(np.asarray, copy_batch(key, 17, T, variant))
    # The symbols do not depend on the variant, and the paper's are never overwritten.
    symbols = np.asarray(copy_batch(key, 17, T, "paper")[0])[:, :10]
    for row in range(17):
        expected_inputs, expected_targets = by_definition(symbols[row], T, variant)
        np.testing.assert_array_equal(inputs[row], expected_inputs)
        np.testing.assert_array_equal(targets[row], expected_targets)


def test_paper_recall_begins_at_the_delimiter_and_the_authors_one_step_later():
    for variant, delay in (("paper", 0), ("authors", 1)):
        inputs, targets = copy_batch(jax.random.key(0), 5, 30, variant)
        first_recall = np.argmax(np.asarray(targets) > 0, axis=1)
        delimiter = np.argmax(np.asarray(inputs) == 9, axis=1)
        np.testing.assert_array_equal(first_recall - delimiter, delay)


def test_shortest_authors_batch_loses_its_tenth_symbol():
    inputs, targets = copy_batch(jax.random.key(0), 8, 0, "authors")
    np.testing.assert_array_equal(inputs[:, 9], 9)
    np.testing.assert_array_equal(targets[:, -1], 9)
    assert (np.asarray(copy_batch(jax.random.key(0), 8, 0, "paper")[1])[:, -1] < 9).all()


def test_symbols_are_uniform_over_eight():
    inputs, _ = copy_batch(jax.random.key(0), 4000, 0)
    counts = np.bincount(np.asarray(inputs)[:, :10].ravel(), minlength=10)
    assert counts[0] == counts[9] == 0
    # 40,000 draws: the standard deviation of a count is about 66.
    assert np.abs(counts[1:9] - 5000).max() < 400


def test_batches_differ_by_key_and_only_by_key():
    first, again, other = (copy_batch(jax.random.key(seed), 4, 5)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


@pytest.mark.parametrize("variant", ["paper", "authors"])
@pytest.mark.parametrize("T", LENGTHS)
def test_memoryless_loss_is_that_of_the_best_memoryless_guesser(T, variant):
    """Sure of all that is not random, even over the eight symbols where it is."""
    task = copy_task(CopyConfig(T, variant))
    _, targets = generate(task, jax.random.key(0), 6)
    targets = np.asarray(targets)
    probabilities = np.full((*targets.shape, 10), 1e-30)
    for row, position in np.ndindex(targets.shape):
        if 1 <= targets[row, position] <= 8:
            probabilities[row, position, 1:9] = 1 / 8
        else:
            probabilities[row, position, targets[row, position]] = 1.0
    loss = task.loss(jnp.log(jnp.asarray(probabilities, jnp.float32)), jnp.asarray(targets))
    np.testing.assert_allclose(loss, task.chance["test_loss"], rtol=1e-5)


def test_memoryless_recall_is_one_in_eight():
    assert copy_task(CopyConfig(30)).chance["recall"] == 1 / 8
    assert copy_task(CopyConfig(0, "authors")).chance["recall"] == pytest.approx((9 / 8 + 1) / 10)


def test_metrics_by_hand():
    task = copy_task(CopyConfig(7))
    _, targets = generate(task, jax.random.key(1), 50)
    logits = np.random.default_rng(0).normal(size=(50, 27, 10)).astype(np.float32)
    metrics = {name: value.mean() for name, value in task.splits["test"].metrics(jnp.asarray(logits), targets).items()}
    total, recalled = 0.0, 0
    for row, position in np.ndindex(50, 27):
        target, scores = int(targets[row, position]), logits[row, position].astype(float)
        total += math.log(np.exp(scores).sum()) - scores[target]
        recalled += position >= 17 and int(np.argmax(scores)) == target
    np.testing.assert_allclose(metrics["test_loss"], total / (50 * 27), rtol=1e-5)
    np.testing.assert_allclose(metrics["authors_loss"], total / (50 * 27) / 50, rtol=1e-5)
    np.testing.assert_allclose(metrics["recall"], recalled / 500, rtol=1e-6)


def test_the_authors_variant_trains_on_their_loss():
    """The cross-entropy divided by the batch, unless another divisor is asked for; evaluated is the loss itself."""
    paper, authors = (copy_task(CopyConfig(3, variant)) for variant in ("paper", "authors"))
    assert resolved(paper, TrainConfig(batch=48)).loss_divisor is None, "as runs have it that know no such field"
    for asked, divisor in ((None, 48.0), (7.0, 7.0), (1.0, None)):
        assert resolved(authors, TrainConfig(batch=48, loss_divisor=asked)).loss_divisor == divisor
    assert resolved(authors, TrainConfig(batch=48)).hparams(None).loss_divisor == 48
    _, targets = generate(authors, jax.random.key(0), 6)
    np.testing.assert_allclose(authors.loss(jnp.zeros((6, 23, 10)), targets), math.log(10), rtol=1e-5)


def test_inputs_are_one_hot():
    task = copy_task(CopyConfig(3))
    inputs, _ = generate(task, jax.random.key(0), 9)
    np.testing.assert_array_equal(jnp.argmax(inputs, -1), copy_batch(jax.random.fold_in(jax.random.key(0), 0), 9, 3)[0])
    np.testing.assert_array_equal(inputs.sum(-1), 1.0)


def test_solved_needs_both_full_recall_and_a_small_loss():
    solved = copy_task(CopyConfig(3)).solved
    assert solved({"recall": 1.0, "test_loss": 9e-5})
    assert not solved({"recall": 0.9999, "test_loss": 9e-5})
    assert not solved({"recall": 1.0, "test_loss": 1e-4})


@pytest.mark.parametrize(("field", "value"), [("T", -1), ("variant", "other")])
def test_bad_config_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field} = {value!r}: must be"):
        CopyConfig(**{field: value})
