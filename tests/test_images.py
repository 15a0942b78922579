"""Images as sequences: every pixel where the definition wants it, exact splits, whole epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import at_step
from wrnn_jax.datasets import Images
from wrnn_jax.tasks import NoisyRowsConfig, PermutedConfig, PixelConfig, noisy_rows_task, permuted_task, pixel_task
from wrnn_jax.tasks.images import VALIDATION_SIZES
from wrnn_jax.tasks.shuffle import shuffled

TRAIN, TEST = 230, 11
VALIDATION = VALIDATION_SIZES["digits"]


def numbered(shape=(3, 4, 1), seed=0):
    """Random images, the first pixel of which is their number: it says which image a sequence is of."""
    rng = np.random.default_rng(seed)

    def images(count):
        pixels = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        pixels[:, 0, 0, 0] = np.arange(count)
        return pixels

    labels = [rng.integers(0, 10, count).astype(np.uint8) for count in (TRAIN, TEST)]
    return Images(images(TRAIN), labels[0], images(TEST), labels[1], classes=10, peak=255, note="")


IMAGES = numbered()
CONFIG = PixelConfig(dataset="digits")


def first_pixels(inputs):
    return np.rint(np.asarray(inputs)[:, 0, 0] * 255).astype(int)


@pytest.mark.parametrize("shape", [(3, 4, 1), (2, 5, 3)])
def test_pixels_come_row_by_row(shape):
    images = numbered(shape)
    task = pixel_task(CONFIG, images)
    assert task.signature == (shape[2], 10, shape[0] * shape[1], "last", shape[2])
    inputs, labels = task.splits["test"].examples(task.source, jnp.array([4, 0]))
    for sequence, label, index in zip(np.asarray(inputs), labels, (4, 0), strict=True):
        assert label == images.test_labels[index]
        step = 0
        for row in range(shape[0]):
            for column in range(shape[1]):
                np.testing.assert_allclose(sequence[step], images.test_images[index, row, column] / 255, rtol=1e-6)
                step += 1
        assert step == len(sequence)


def test_permuted_pixels_are_the_same_pixels_in_one_order_for_all():
    plain, permuted = pixel_task(CONFIG, IMAGES), permuted_task(PermutedConfig(dataset="digits"), IMAGES)
    order = np.asarray(permuted.source.fixed["permutation"])
    np.testing.assert_array_equal(np.sort(order), np.arange(12))
    assert (order != np.arange(12)).any()
    for split in ("val", "test"):
        indices = jnp.arange(9)
        straight, _ = plain.splits[split].examples(plain.source, indices)
        mixed, _ = permuted.splits[split].examples(permuted.source, indices)
        for step in range(12):
            np.testing.assert_array_equal(mixed[:, step], straight[:, order[step]])


def test_the_order_is_the_seeds_and_is_taken_from_where_the_run_keeps_it():
    orders = [
        permuted_task(PermutedConfig(dataset="digits", permutation_seed=seed), IMAGES).source.fixed["permutation"]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any()
    task = permuted_task(PermutedConfig(dataset="digits"), IMAGES)
    elsewhere = task.source._replace(fixed={"permutation": orders[2]})
    other = permuted_task(PermutedConfig(dataset="digits", permutation_seed=1), IMAGES)
    np.testing.assert_array_equal(
        task.splits["test"].examples(elsewhere, jnp.arange(5))[0],
        other.splits["test"].examples(other.source, jnp.arange(5))[0],
    )


def test_rows_come_first_and_then_one_noise_for_all():
    images = numbered((3, 4, 3))
    task = noisy_rows_task(NoisyRowsConfig(dataset="digits", T=500), images)
    assert task.signature.inputs == 12
    inputs, _ = task.splits["test"].examples(task.source, jnp.arange(TEST))
    inputs = np.asarray(inputs)
    assert inputs.shape == (TEST, 500, 12)
    for row in range(3):
        expected = images.test_images[:, row].reshape(TEST, 12) / np.float32(255)
        np.testing.assert_allclose(inputs[:, row], expected, rtol=1e-6)
    noise = inputs[:, 3:]
    assert (noise == noise[:1]).all()
    np.testing.assert_array_equal(noise[0], task.source.fixed["noise"])
    # N(0, 1): 5,964 draws.
    assert abs(noise[0].mean()) < 5 / np.sqrt(5964)
    assert noise[0].std() == pytest.approx(1, abs=5 / np.sqrt(2 * 5964))
    exact = noisy_rows_task(NoisyRowsConfig(dataset="digits", T=3), images)
    assert exact.splits["test"].examples(exact.source, jnp.arange(2))[0].shape == (2, 3, 12)
    with pytest.raises(ValueError, match=r"^T = 2: must be 3 or more: digits has 3 rows"):
        noisy_rows_task(NoisyRowsConfig(dataset="digits", T=2), images)


def test_splits_are_exact_disjoint_and_the_same_for_all():
    task = pixel_task(CONFIG, IMAGES)
    assert (task.train_size, task.splits["val"].size, task.splits["test"].size) == (
        TRAIN - VALIDATION,
        VALIDATION,
        TEST,
    )
    parts = {part: task.source.data[part][0][:, 0, 0, 0].tolist() for part in ("train", "val", "test")}
    assert sorted(parts["train"] + parts["val"]) == list(range(TRAIN))
    assert parts["test"] == list(range(TEST)), "the test set is left as it is"
    assert parts["val"] != list(range(TRAIN - VALIDATION, TRAIN)), "drawn, not the last ones"
    again = pixel_task(CONFIG, IMAGES)
    np.testing.assert_array_equal(task.source.data["val"][0], again.source.data["val"][0])
    images, labels = task.source.data["train"]
    np.testing.assert_array_equal(labels, IMAGES.train_labels[images[:, 0, 0, 0]])
    assert images.dtype == np.uint8, "a byte a pixel on the device"


def test_the_papers_splits():
    assert (60_000 - VALIDATION_SIZES["mnist"], 50_000 - VALIDATION_SIZES["cifar10"]) == (57_000, 47_000)


def test_an_epoch_goes_through_every_image_once_in_an_order_of_its_own():
    task = pixel_task(CONFIG, IMAGES)
    of_training = set(task.source.data["train"][0][:, 0, 0, 0].tolist())
    size, key = 10, jax.random.key(0)
    orders = []
    for epoch in range(3):
        steps = range(epoch * 5, epoch * 5 + 5)
        seen = np.concatenate([first_pixels(task.batch(task.source, key, at_step(step), size)[0]) for step in steps])
        assert set(seen) == of_training
        assert len(seen) == len(of_training) == task.epoch_steps(size) * size
        orders.append(seen.tolist())
    assert orders[0] != orders[1] != orders[2]
    other = first_pixels(task.batch(task.source, jax.random.key(1), at_step(0), size)[0])
    assert other.tolist() != orders[0][:size]


def test_what_does_not_fill_a_batch_waits_for_another_epoch():
    task = pixel_task(CONFIG, IMAGES)
    assert task.epoch_steps(15) == 3
    seen = [first_pixels(task.batch(task.source, jax.random.key(0), at_step(step), 15)[0]) for step in range(3)]
    assert len(set(np.concatenate(seen))) == 45


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**31 - 1))
def test_shuffled_is_a_permutation(size, seed):
    order = np.asarray(jax.jit(shuffled, static_argnums=2)(jax.random.key(seed), jnp.arange(size), size))
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_shuffled_orders_are_uniform():
    """Where an item goes, and where its neighbour goes then, against the chi-square of even chances."""
    keys = jax.vmap(jax.random.key)(jnp.arange(6000))
    orders = np.asarray(jax.vmap(lambda key: shuffled(key, jnp.arange(10), 10))(keys))
    for item in range(10):
        counts = np.bincount(orders[:, item], minlength=10)
        assert ((counts - 600) ** 2 / 600).sum() < 40, "9 degrees of freedom: exceeded once in 10^5"
    pairs = np.bincount(orders[:, 0] * 10 + orders[:, 1], minlength=100).reshape(10, 10)
    assert (np.diag(pairs) == 0).all()
    off = pairs[~np.eye(10, dtype=bool)]
    assert ((off - 6000 / 90) ** 2 / (6000 / 90)).sum() < 160, "89 degrees of freedom: exceeded once in 10^5"


def test_shuffled_gives_a_batch_what_it_gives_the_whole():
    key = jax.random.key(5)
    whole = np.asarray(shuffled(key, jnp.arange(57_000), 57_000))
    np.testing.assert_array_equal(
        shuffled(key, jnp.array([[0, 56_999], [128, 7]]), 57_000), whole[[[0, 56_999], [128, 7]]]
    )


def test_loss_and_metrics_by_hand():
    task = pixel_task(CONFIG, IMAGES)
    logits = np.random.default_rng(1).normal(size=(6, 10)).astype(np.float32)
    labels = np.array([3, 1, 4, 1, 5, 9])
    logits[2, 4] = 9.0
    cross_entropy = [
        np.log(np.exp(row.astype(float)).sum()) - row[label] for row, label in zip(logits, labels, strict=True)
    ]
    correct = [float(row.argmax() == label) for row, label in zip(logits, labels, strict=True)]
    metrics = task.splits["val"].metrics(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(metrics["val_loss"], cross_entropy, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(metrics["val_acc"], correct)
    np.testing.assert_allclose(task.loss(jnp.asarray(logits), jnp.asarray(labels)), np.mean(cross_entropy), rtol=1e-5)
    assert list(task.splits["train"].metrics(jnp.asarray(logits), jnp.asarray(labels))) == ["train_acc"]
    assert task.chance == {"val_loss": pytest.approx(np.log(10)), "val_acc": 0.1}


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (PixelConfig, "dataset", "imagenet"),
        (PermutedConfig, "permutation_seed", -1),
        (NoisyRowsConfig, "T", 0),
        (NoisyRowsConfig, "noise_seed", -3),
    ],
)
def test_bad_config_is_refused_by_name(config, field, value):
    with pytest.raises(ValueError, match=f"^{field} = {value!r}: must be"):
        config(**{field: value})
