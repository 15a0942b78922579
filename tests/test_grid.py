"""A grid is its members, whichever way and on however many devices they are computed."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax.models import ModelConfig, build
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.members import members_mesh, over_members
from wrnn_jax.training.optimizer import Hparams

pytestmark = pytest.mark.usefixtures("standard_promotion")

TASK = copy_task(CopyConfig(T=2))
MODEL = build(ModelConfig(n_hid=6, n_ch=2, act="identity"), TASK.input_size, TASK.output_size, TASK.outputs)


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


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("how", ["vmap", "map"])
def test_members_train_as_they_do_alone(how, devices):
    """Seeds, learning rates and clips of their own; one diverges, which leaves the others as they are."""
    trainer = make_trainer(MODEL, TASK, batch_size=4, schedule="plateau")
    members = make_trainer(MODEL, TASK, 4, jax.devices()[:devices], "plateau", members=4, how=how)
    numbers = [[1e-2, 1e30, 3e-3, 1e-3], [1.0, np.inf, 0.1, 1.0], [10.0, 2.0, 3.0, 2.0], [1.0, 3.0, 2.0, 9.0]]
    hparams = Hparams(*np.array(numbers, np.float32), np.array([0, 0, 1e-2, 0], np.float32))
    until = np.array([6, 6, 6, 3])
    states = members.advance(members.init(jnp.arange(4)), hparams, until)
    assert states.step.sharding.spec == jax.P("grid")
    metrics = members.evaluate(states, "test")
    seen = members.observe(members.observe(states, hparams, metrics), hparams, metrics)
    assert list(seen.plateau.drops) == [1, 0, 0, 0], "each waits for its own period"
    np.testing.assert_array_equal(seen.plateau.lowest[::2], metrics["test_loss"][::2])
    states, losses = members.drain(states)
    for m in range(4):
        alone = trainer.advance(trainer.init(m), of_member(m, hparams), until[m])
        assert (int(states.step[m]), bool(states.finite[m])) == (int(alone.step), bool(alone.finite))
        np.testing.assert_allclose(metrics["test_loss"][m], trainer.evaluate(alone, "test")["test_loss"], rtol=1e-4)
        if m != 1:
            chex.assert_trees_all_close(of_member(m, states.params), alone.params, atol=1e-5)
            np.testing.assert_allclose(losses[m], trainer.drain(alone)[1], rtol=1e-4)
    assert list(states.finite) == [True, False, True, True]


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_a_member_that_diverges_changes_no_bit_of_the_others(how):
    members = make_trainer(MODEL, TASK, 4, members=4, how=how)
    clip, until = np.full(4, np.inf, np.float32), np.full(4, 5)
    calm = members.advance(members.init(np.arange(4)), Hparams(np.full(4, 1e-2, np.float32), clip), until)
    rates = np.array([1e-2, 1e30, 1e-2, 1e-2], np.float32)
    wild = members.advance(members.init(np.arange(4)), Hparams(rates, clip), until)
    assert list(wild.finite) == [True, False, True, True]
    for m in (0, 2, 3):
        chex.assert_trees_all_equal(of_member(m, calm), of_member(m, wild))


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_members_that_are_not_due_are_passed_over(how):
    members = make_trainer(MODEL, TASK, 4, schedule="plateau", members=2, how=how)
    states, hparams = members.init(np.arange(2)), Hparams(*np.ones((4, 2), np.float32))
    due = np.array([False, True])
    metrics, all_metrics = members.evaluate(states, "test", due), members.evaluate(states, "test")
    np.testing.assert_array_equal(metrics["test_loss"], [0, all_metrics["test_loss"][1]])
    seen = members.observe(states, hparams, metrics, due)
    np.testing.assert_array_equal(seen.plateau.lowest, [np.inf, all_metrics["test_loss"][1]])
