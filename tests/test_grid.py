"""A grid is its members, whichever way and on however many devices they are computed."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import linear_map
from wrnn_jax.grids import grid
from wrnn_jax.layers import Training
from wrnn_jax.nn.linen import WaveRNNCell, as_model
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.members import members_mesh, over_members
from wrnn_jax.training.optimizer import Hparams
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("standard_promotion")

TASK = copy_task(CopyConfig(T=2))
MODEL = linear_map(TASK.signature)


@functools.cache
def trainer_of(members, how):
    """On two devices; tests share what is compiled."""
    return make_trainer(MODEL, TASK, 4, schedule="plateau", members=members, how=how)


@functools.cache
def alone():
    return make_trainer(MODEL, TASK, 4, jax.devices()[:1], "plateau")


def all_hparams(rates, clips=np.inf):
    """Of members with these learning rates, and a schedule that never drops."""
    return Hparams(*np.broadcast_arrays(np.float32(rates), *np.float32([clips, 10, 99, 0])))


def of_member(m, tree):
    return jax.tree.map(lambda leaf: leaf[m], tree)


@pytest.mark.parametrize("how", ["auto", "vmap", "map"])
def test_each_member_is_the_function_of_its_own(how):
    def function(a, tree):
        return {"sum": a + tree["x"].sum(), "steps": jax.lax.while_loop(lambda n: n < a, lambda n: n + 1, 0.0)}

    a, tree = jnp.arange(5.0), {"x": jnp.arange(10.0).reshape(5, 2)}
    got = jax.jit(over_members(function, how))(a, tree)
    for m in range(5):
        chex.assert_trees_all_close(of_member(m, got), function(a[m], of_member(m, tree)))


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match=r"^how = 'pmap': must be one of auto, vmap, map$"):
        over_members(lambda x: x, "pmap")


@pytest.mark.parametrize(
    ("devices", "members", "batch", "how", "shape"),
    [
        (4, 1, 128, "map", (1, 4)),
        (4, 1, 6, "map", (1, 3)),
        (4, 27, 128, "map", (4, 1)),
        (2, 3, 128, "map", (1, 2)),  # three half batches in turn are sooner done than two whole ones
        (2, 3, 7, "map", (2, 1)),
        (2, 27, 128, "map", (2, 1)),
        (8, 3, 128, "vmap", (3, 2)),
        (8, 9, 128, "vmap", (8, 1)),
        (8, 1, 128, "vmap", (1, 8)),
    ],
)
def test_devices_are_shared_out(devices, members, batch, how, shape):
    mesh = members_mesh([f"device {number}" for number in range(devices)], members, batch, how)
    assert (mesh.shape["grid"], mesh.shape["batch"]) == shape


@pytest.mark.parametrize(("devices", "batch", "parts"), [(16, 128, 16), (32, 128, 16), (16, 64, 8), (4, 6, 1)])
def test_a_batch_is_split_no_further_than_pays(devices, batch, parts):
    assert members_mesh(range(devices), 1, batch, "map", least=8).shape["batch"] == parts


def test_a_batch_keeps_its_shards_however_few_members_are_left():
    for members in (1, 2, 3, 8):
        assert members_mesh(["one", "other"], members, 16, shards=1).shape == {"grid": min(members, 2), "batch": 1}
        assert members_mesh(["one", "other"], members, 16, shards=2).shape == {"grid": 1, "batch": 2}


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_members_train_as_they_do_alone(how):
    """Seeds, learning rates and clips of their own; one diverges, which leaves the others as they are."""
    trainer, members = alone(), trainer_of(4, how)
    numbers = [[1e-2, 3e38, 3e-3, 1e-3], [1.0, np.inf, 0.1, 1.0], [10.0, 2.0, 3.0, 2.0], [1.0, 3.0, 2.0, 9.0]]
    hparams = Hparams(*np.array(numbers, np.float32), np.array([0, 0, 1e-2, 0], np.float32))
    until = np.array([6, 6, 6, 3])
    states = members.advance(members.init(jnp.arange(4)), hparams, until)
    assert states.step.sharding.spec == jax.P("grid")
    metrics = members.evaluate(states, "test")
    seen = members.observe(members.observe(states, hparams, metrics), hparams, metrics)
    assert list(seen.plateau.drops) == [1, 0, 0, 0], "each waits for its own period"
    np.testing.assert_array_equal(seen.plateau.lowest[::2], metrics["test_loss"][::2])
    states, losses, metrics = jax.device_get((*members.drain(states), metrics))
    for m in range(4):
        single = trainer.advance(trainer.init(m), of_member(m, hparams), until[m])
        assert (int(states.step[m]), bool(states.finite[m])) == (int(single.step), bool(single.finite))
        np.testing.assert_allclose(metrics["test_loss"][m], trainer.evaluate(single, "test")["test_loss"], rtol=1e-4)
        if m != 1:
            chex.assert_trees_all_close(of_member(m, states.params), single.params, atol=1e-5)
            np.testing.assert_allclose(losses[m], trainer.drain(single)[1], rtol=1e-4)
    assert list(states.finite) == [True, False, True, True]


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_a_member_that_diverges_changes_no_bit_of_the_others(how):
    members, until = trainer_of(4, how), np.full(4, 5)
    calm, wild = (
        members.advance(members.init(np.arange(4)), all_hparams(rates), until)
        for rates in ([1e-2] * 4, [1e-2, 3e38, 1e-2, 1e-2])
    )
    assert list(wild.finite) == [True, False, True, True]
    for m in (0, 2, 3):
        chex.assert_trees_all_equal(of_member(m, calm), of_member(m, wild))


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_members_that_are_not_due_are_passed_over(how):
    members = trainer_of(4, how)
    states, due = members.init(np.arange(4)), np.array([False, True, False, True])
    metrics, all_metrics = members.evaluate(states, "test", due), members.evaluate(states, "test")
    np.testing.assert_array_equal(metrics["test_loss"], np.where(due, all_metrics["test_loss"], 0))
    seen = members.observe(states, all_hparams([1.0] * 4), metrics, due)
    np.testing.assert_array_equal(seen.plateau.lowest, np.where(due, all_metrics["test_loss"], np.inf))


class Recall(nn.Module):
    """A user's own network, with running means and dropout."""

    @nn.compact
    def __call__(self, xs, train):
        ys = nn.RNN(WaveRNNCell(channels=2, neurons=6))(xs)
        ys = nn.BatchNorm(use_running_average=not train)(ys)
        return nn.Dense(10)(nn.Dropout(0.3, deterministic=not train)(ys))


def test_a_user_s_own_flax_model_trains_in_a_grid():
    """With statistics and dropout, of which evaluation has none."""
    xs = np.ones((2, 22, 10), np.float32)
    hparams = Hparams(np.array([1e-2, 1e-3], np.float32), np.ones(2, np.float32))
    model = as_model(Recall(), xs, train="train")
    members = make_trainer(model, TASK, 4, members=2, how="map")
    states = jax.device_get(members.advance(members.init(np.arange(2)), hparams, np.full(2, 2)))
    single = make_trainer(model, TASK, 4, jax.devices()[:1])  # Flax's means are of a device's part of a batch.
    for m in range(2):
        expected = jax.device_get(single.advance(single.init(m), of_member(m, hparams), 2))
        chex.assert_trees_all_close(of_member(m, states.variables), expected.variables, atol=1e-4)
    once, stats = jax.jit(model.apply)(expected.variables, xs)
    chex.assert_trees_all_equal(stats, expected.stats)
    train = jax.jit(lambda seed: model.apply(expected.variables, xs, Training(jax.random.key(seed)))[0])
    drawn = [train(seed) for seed in (0, 1)]
    assert not np.allclose(once, drawn[0])
    assert not np.allclose(*drawn)


MEMBERS = {"a": np.arange(7.0, dtype=np.float32), "b": (np.arange(14, dtype=np.float32).reshape(7, 2),)}


def member(tree):
    return {"sum": tree["a"] * tree["b"][0].sum(), "row": tree["b"][0] ** 2}


@pytest.mark.parametrize("how", ["vmap", "map"])
@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 7, 50])
def test_a_grid_is_its_members_in_chunks_of_any_size(how, chunk):
    got = grid(member, MEMBERS, how, chunk)
    chex.assert_trees_all_close(got, jax.vmap(member)(MEMBERS))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(got))


def test_all_chunks_are_one_program():
    traced = 0

    def counted(tree):
        nonlocal traced
        traced += 1
        return member(tree)

    grid(counted, MEMBERS, chunk=2)
    assert traced == 1


def test_a_grid_that_runs_out_of_memory_goes_on_with_half_and_keeps_what_it_has(monkeypatch, capsys):
    module = __import__("wrnn_jax.grids.grid", fromlist=["spread_over"])
    spread_over, widths = module.spread_over, []

    def short_of_memory(*arguments):
        program = spread_over(*arguments)

        def call(members):
            widths.append(len(members["a"]))
            if widths[-1] > 2 and len(widths) > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
            return program(members)

        return call

    monkeypatch.setattr(module, "spread_over", short_of_memory)
    chex.assert_trees_all_close(grid(member, MEMBERS, "vmap", 4), jax.vmap(member)(MEMBERS))
    assert widths == [4, 4, 2, 2], "the first four are kept"
    assert capsys.readouterr().err == "out of memory: going on with 2 members at once\n"


@pytest.mark.parametrize(
    "members", [{}, {"a": np.zeros(0)}, {"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.float32(1)}]
)
def test_members_that_are_none_or_do_not_agree_are_refused(members):
    with pytest.raises(InvalidValue, match=r"^members = 'of first axes .*': must be arrays with one first axis"):
        grid(lambda tree: tree, members)
    with pytest.raises(InvalidValue, match=r"^chunk = 0: must be a whole number, 1 or more"):
        grid(member, MEMBERS, chunk=0)
