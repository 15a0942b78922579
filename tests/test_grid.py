"""A grid is its members, whichever way they are computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrnn_jax.models import ModelConfig, build
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.grid import grid, grid_trainer
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.optimizer import Hparams

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.mark.parametrize("how", ["auto", "vmap", "map"])
def test_each_member_is_the_function_of_its_own(how):
    def function(a, tree):
        return {"sum": a + tree["x"].sum(), "steps": jax.lax.while_loop(lambda n: n < a, lambda n: n + 1, 0.0)}

    a, tree = jnp.arange(5.0), {"x": jnp.arange(10.0).reshape(5, 2)}
    got = jax.jit(grid(function, how))(a, tree)
    for m in range(5):
        expected = function(a[m], {"x": tree["x"][m]})
        jax.tree.map(lambda all_, one, m=m: np.testing.assert_allclose(all_[m], one), got, expected)


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match=r"^how = 'pmap': must be one of auto, vmap, map$"):
        grid(lambda x: x, "pmap")


@pytest.mark.parametrize("how", ["vmap", "map"])
def test_members_train_as_they_do_alone(how):
    """Seeds, learning rates and clips of their own; one diverges, which leaves the others as they are."""
    task = copy_task(CopyConfig(T=2))
    model = build(ModelConfig(n_hid=6, n_ch=2, act="identity"), task.input_size, task.output_size, task.outputs)
    trainer = make_trainer(model, task, batch_size=4, schedule="plateau")
    numbers = [[1e-2, 1e30, 3e-3], [1.0, np.inf, 0.1], [10.0, 2.0, 3.0], [1.0, 3.0, 2.0]]
    hparams = Hparams(*np.array(numbers, np.float32))
    members = grid_trainer(trainer, how)
    states = members.advance(members.place(members.init(jnp.arange(3))), hparams, 6)
    metrics = members.evaluate(states, "test")
    seen = members.observe(members.observe(states, hparams, metrics), hparams, metrics)
    assert list(seen.plateau.drops) == [1, 0, 0], "each waits for its own period"
    np.testing.assert_array_equal(seen.plateau.lowest[::2], metrics["test_loss"][::2])
    states, losses = members.drain(states)
    for m in range(3):
        alone = trainer.advance(trainer.init(m), jax.tree.map(lambda leaf, m=m: leaf[m], hparams), 6)
        assert (int(states.step[m]), bool(states.finite[m])) == (int(alone.step), bool(alone.finite))
        np.testing.assert_allclose(metrics["test_loss"][m], trainer.evaluate(alone, "test")["test_loss"], rtol=1e-4)
        if m != 1:
            jax.tree.map(
                lambda all_, one, m=m: np.testing.assert_allclose(all_[m], one, atol=1e-5), states.params, alone.params
            )
            np.testing.assert_allclose(losses[m], trainer.drain(alone)[1], rtol=1e-4)
    assert list(states.finite) == [True, False, True]
