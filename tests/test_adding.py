"""The adding task against its definition, position by position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import at_step
from wrnn_jax.tasks import AddingConfig, adding_batch, adding_task

LENGTHS = (2, 3, 10, 101)


@pytest.mark.parametrize("T", LENGTHS)
def test_batch_is_the_definition(T):
    inputs, targets = map(np.asarray, adding_batch(jax.random.key(T), 40, T))
    assert inputs.shape == (40, T, 2)
    assert targets.shape == (40, 1)
    for (values, markers), target in zip(inputs.transpose(0, 2, 1), targets[:, 0], strict=True):
        assert ((values >= 0) & (values < 1)).all()
        marked = [t for t in range(T) if markers[t] == 1]
        assert [t for t in range(T) if markers[t] not in (0, 1)] == []
        first, second = marked
        assert first < T // 2 <= second
        assert target == pytest.approx(values[first] + values[second], rel=1e-6)


def test_markers_and_values_are_uniform():
    inputs, _ = map(np.asarray, adding_batch(jax.random.key(0), 6000, 10))
    counts = inputs[..., 1].sum(axis=0)
    # Five positions a half: 1,200 each, with a standard deviation of about 31.
    assert np.abs(counts - 1200).max() < 5 * 31
    histogram = np.histogram(inputs[..., 0], bins=10, range=(0, 1))[0]
    assert np.abs(histogram - 6000).max() < 5 * 74
    # Where the one stands says nothing about the other, nor about the values.
    first, second = inputs[:, :5, 1].argmax(axis=1), inputs[:, 5:, 1].argmax(axis=1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(6000)
    assert abs(np.corrcoef(first, inputs[:, 0, 0])[0, 1]) < 5 / np.sqrt(6000)


def test_every_step_has_a_batch_of_its_own_and_the_test_set_is_fixed():
    task = adding_task(AddingConfig(T=6))
    key = jax.random.key(3)
    first, again, other = (task.batch(task.source, key, at_step(step), 4)[0] for step in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()
    test = task.splits["test"]
    assert test.size == 1000
    whole = np.asarray(test.examples(task.source, jnp.arange(1000))[0])
    part = np.asarray(test.examples(task.source, jnp.array([7, 993]))[0])
    np.testing.assert_array_equal(whole[[7, 993]], part)
    assert len(np.unique(whole[..., 0])) > 5900, "a thousand sequences, all different"


def test_chance_is_the_error_of_always_answering_one():
    task = adding_task(AddingConfig(T=20))
    _, targets = task.batch(task.source, jax.random.key(0), at_step(0), 20_000)
    error = np.mean((np.asarray(targets) - 1.0) ** 2)
    # The fourth moment of the triangular density gives a standard deviation of 0.0014.
    assert error == pytest.approx(task.chance["test_mse"], abs=0.006)
    np.testing.assert_allclose(task.loss(jnp.ones((20_000, 1)), targets), error, rtol=1e-5)


def test_the_metric_is_the_squared_error_and_solved_from_the_papers_bound_on():
    task = adding_task(AddingConfig(T=4))
    metrics = task.splits["test"].metrics(jnp.array([[1.0], [0.5]]), jnp.array([[1.5], [0.5]]))
    np.testing.assert_allclose(metrics["test_mse"], [0.25, 0.0])
    assert task.solved({"test_mse": 5e-2})
    assert not task.solved({"test_mse": 5.1e-2})


@pytest.mark.parametrize("T", [-1, 0, 1, 2.5])
def test_too_short_for_two_markers_is_refused(T):
    with pytest.raises(ValueError, match=f"^T = {T}: must be"):
        AddingConfig(T=T)
