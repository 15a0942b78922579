"""Networks of several layers, with norms, skips and dropout: their equation, and their training on one device, on two,
in grids, and in parts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import numbers

from experiments import copy
from helpers import at_step, refusal, run
from wrnn_jax import unroll
from wrnn_jax.cells import elman, lstm, wave
from wrnn_jax.layers import Training, Variables, recurrent
from wrnn_jax.models import Model, configure
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.optimizer import Hparams, make_hparams
from wrnn_jax.training.state import Best, with_best
from wrnn_jax.typing import Signature

pytestmark = pytest.mark.usefixtures("standard_promotion")

TASK = copy_task(CopyConfig(T=1))
BATCH = 8
CONFIG = configure("wrnn", n_hid=5, n_ch=2, n_layers=2, norm="batch-time", residual=True, dropout=0.25)
HPARAMS = jax.tree.map(np.float32, make_hparams(1e-2, 1.0, None, None, 1e-3))
STATE = ("params", "stats", "opt_state")


@pytest.fixture(scope="module")
def model():
    return CONFIG.build(TASK.signature)


@pytest.fixture
def double():
    """In double precision rounding is told from any other difference."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def trainer(model):
    """On two devices, which share each batch; for tests in double precision."""
    with jax.enable_x64(True):
        return make_trainer(model, TASK, BATCH)


def all_of(state):
    return {name: getattr(state, name) for name in STATE}


def trained(trainer, seed=0, steps=(4,)):
    state = trainer.init(seed)
    for step in steps:
        state = trainer.place(trainer.advance(state, HPARAMS, step))
    return jax.device_get(state)


# The network


@pytest.mark.parametrize("read", ["all", "last"])
def test_layers_are_read_normalised_and_added_to_what_they_are_given(read):
    """y_1 = LN(cell_1(x)), y_k = y_{k−1} + LN(cell_k(y_{k−1})), written out over ``unroll`` in NumPy."""
    config = configure("wrnn", n_hid=5, n_ch=2, n_layers=3, norm="layer", residual=True)
    network = config.build(Signature(4, 3, 6, read))
    variables = jax.device_get(jax.jit(network.init)(jax.random.key(0)))
    variables = jax.tree.map(
        lambda leaf: leaf + np.float32(np.linspace(0, 0.1, leaf.size)).reshape(leaf.shape), variables
    )
    layers, readout = variables.params["layers"], variables.params["readout"]["output"]
    xs = ys = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    states = []
    for index, encoder in enumerate(["sparse", "uniform", "uniform"]):
        part = layers[str(index)]
        out = unroll(wave(2, 5, encoder_init=encoder), part["layer"], ys, return_hidden=True)
        states.append(out.hidden)
        z = np.asarray(out.outputs, np.float64)
        z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
        z = z * part["norm"]["scale"] + part["norm"]["bias"]
        ys = np.float32(z if index == 0 else ys + z)
    expected = ys @ readout["kernel"].T + readout["bias"]
    outputs, stats = jax.jit(network.apply)(variables, xs)
    np.testing.assert_allclose(outputs, expected if read == "all" else expected[:, -1], rtol=1e-4, atol=1e-5)
    assert jax.tree.leaves(stats) == []
    hidden = jax.jit(network.hidden)(variables, xs)
    assert list(hidden) == ["0.layer", "1.layer", "2.layer"]
    for found, expected in zip(hidden.values(), states, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_later_layers_start_by_reading_all_that_they_are_given():
    """The sparse start of the first layer is the paper's; of V of the others no entry is 0, nor above 1/√(C·N)."""
    for name, cell in (("wrnn", wave(2, 5)), ("irnn", elman(5, activation="relu")), ("lstm", lstm(5))):
        config = configure(name, n_hid=5, n_layers=2, **({"n_ch": 2} if name == "wrnn" else {}))
        params = jax.eval_shape(config.build(Signature(4, 3, 6)).init, jax.random.key(0)).params["layers"]
        assert params["1"]["layer"]["encoder"]["kernel"].shape[-1] == cell.output_size
    layers = configure("wrnn", n_hid=5, n_ch=2, n_layers=2).build(Signature(4, 3, 6)).init(jax.random.key(0)).params
    first, second = (np.asarray(layers["layers"][index]["layer"]["encoder"]["kernel"]) for index in "01")
    assert np.count_nonzero(first) == 2 * 4
    assert np.count_nonzero(second) == second.size
    assert np.abs(second).max() <= 10**-0.5


def test_one_layer_is_the_published_network_and_every_option_leaves_it():
    """Its parameters are those of the cell and the readout, and what it computes is the loop of both."""
    plain = configure("wrnn", n_hid=5, n_ch=2)
    assert set(plain.build(TASK.signature).init(jax.random.key(0)).params) == {"cell", "readout"}
    for options in ({"n_layers": 2}, {"norm": "layer"}, {"dropout": 0.1}, {"pooling": "mean"}):
        config = configure("wrnn", n_hid=5, n_ch=2, **options)
        assert set(config.build(Signature(4, 3, 6, "last")).init(jax.random.key(0)).params) == {"layers", "readout"}


def test_the_mean_over_time_is_read_where_a_task_has_one_answer():
    config = configure("srnn", n_hid=4, pooling="mean")
    network = config.build(Signature(3, 2, 5, "last"))
    variables, xs = network.init(jax.random.key(0)), np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    states = unroll(elman(4), variables.params["layers"]["0"]["layer"], xs).outputs
    readout = jax.device_get(variables.params["readout"]["output"])
    expected = np.mean(np.asarray(states), axis=1) @ readout["kernel"].T + readout["bias"]
    np.testing.assert_allclose(network.apply(variables, xs)[0], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"^pooling = 'mean': must be left out: the task is read at every step"):
        config.build(TASK.signature)


# Its training


@pytest.mark.usefixtures("double")
def test_a_run_in_parts_is_the_run_to_the_bit(trainer):
    chex.assert_trees_all_equal(all_of(trained(trainer, steps=(1, 3, 4))), all_of(trained(trainer)))


@pytest.mark.usefixtures("double")
def test_members_of_a_grid_are_their_runs_alone_and_two_devices_that_share_a_batch_do_what_one_does(model, trainer):
    """A member, which has a device to itself, and its run alone, on two: statistics, gradients and dropout are those of
    the whole batch, and of its own seed."""
    members = make_trainer(model, TASK, BATCH, members=2, how="vmap")
    assert (trainer.mesh.shape["batch"], members.mesh.shape["batch"]) == (2, 1)
    hparams = jax.tree.map(lambda leaf: np.full(2, leaf), HPARAMS)
    together = jax.device_get(members.advance(members.init(np.arange(2)), hparams, np.full(2, 4)))
    for seed in range(2):
        member = jax.tree.map(lambda leaf: leaf[seed], all_of(together))  # noqa: B023
        chex.assert_trees_all_close(member, all_of(trained(trainer, seed)), rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("double")
def test_steps_draw_anew_and_evaluation_does_not(model, trainer):
    """With a learning rate of 0 a step's loss is that of its own draws; evaluation is that of none."""
    state = trainer.init(0)
    variables, key = jax.device_get(state.variables), jax.random.wrap_key_data(jnp.array(state.key))
    xs = TASK.batch(TASK.source, key, at_step(0), BATCH)[0]
    apply = jax.jit(model.apply)
    drawn = [apply(variables, xs, Training(jax.random.key(seed)))[0] for seed in (0, 0, 1)]
    chex.assert_trees_all_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-3
    once, stats = apply(variables, xs)
    chex.assert_trees_all_equal((once, stats), (apply(variables, xs)[0], variables.stats))


@pytest.mark.usefixtures("double")
def test_validation_picks_statistics_with_the_parameters_that_they_went_with(trainer):
    state = trained(trainer)
    best = Best(params={"w": 1}, score=jnp.float32(0), step=jnp.int32(2), stats={"mean": 2})
    chosen = with_best(state._replace(best=best))
    assert (chosen.params, chosen.stats) == ({"w": 1}, {"mean": 2})
    assert with_best(state) is state


def a_weight(**more):
    """Two weights, whose loss falls by the same slope in each."""

    def apply(variables, xs, training=None):
        return (variables.params["u"] + variables.params["w"]) * xs, ()

    return Model(lambda key: Variables({"u": jnp.float32(1), "w": jnp.float32(1)}), apply, **more)


def test_a_model_s_constraint_rates_and_decay_are_part_of_every_step():
    """SGD by hand would do; Adam's first steps are of the size lr, whatever the gradient's."""
    task = TASK._replace(loss=lambda outputs, targets: outputs.mean())

    def after(steps, hparams, **more):
        trainer = make_trainer(a_weight(**more), task, BATCH, members=1, how="map")
        hparams = jax.tree.map(lambda leaf: np.full(trainer.mesh.shape["grid"], leaf, np.float32), hparams)
        params = trainer.advance(trainer.init(np.arange(1)), hparams, np.full(1, steps)).params
        return float(params["u"][0]), float(params["w"][0])

    plain = Hparams(0.1, 0.0, weight_decay=0.0)
    assert after(2, plain) == pytest.approx((0.8, 0.8), abs=1e-5)
    floor = lambda params: jax.tree.map(lambda leaf: jnp.maximum(leaf, 0.85), params)  # noqa: E731
    assert after(2, plain, constrain=floor) == pytest.approx((0.85, 0.85), abs=1e-5)
    assert after(2, plain, rates=lambda params: {"u": 0.5, "w": 1.0}) == pytest.approx((0.9, 0.8), abs=1e-5)


class Bounded(type(CONFIG)):
    """Wave layers whose kernels are kept within a bound, and learn at a rate of their own."""

    def layer(self, input_size, length, index):
        def constrain(params):
            bounded = jax.tree.map(lambda leaf: jnp.clip(leaf, -1 / length, 1 / length), params["recurrence"])
            return params | {"recurrence": bounded}

        def rates(params):
            return {"encoder": 0.5, "recurrence": 1.0}

        return recurrent(self.cell(input_size, index), constrain=constrain, rates=rates)


@pytest.mark.parametrize("options", [{}, {"n_layers": 2}], ids=["one layer", "two"])
def test_what_a_config_s_layers_are_held_to_holds_in_one_layer_and_in_more(options):
    model = Bounded(n_hid=5, n_ch=2, **options).build(TASK.signature)
    params = jax.tree.map(lambda leaf: leaf + 1.0, model.init(jax.random.key(0)).params)
    constrained, rates = model.constrain(params), model.rates(params)
    cells = [(tree["cell"],) if not options else tree["layers"].values() for tree in (params, constrained, rates)]
    for before, after, rate in zip(*cells, strict=True):
        before, after, rate = (tree.get("layer", tree) for tree in (before, after, rate))
        assert np.max(after["recurrence"]["kernel"]) == np.float32(1 / TASK.signature.length)
        chex.assert_trees_all_equal(after["encoder"], before["encoder"])
        assert rate == {"encoder": 0.5, "recurrence": 1.0}
    chex.assert_trees_all_equal(constrained["readout"], params["readout"])
    assert rates["readout"] == 1.0


# From the command line


STACK = ["--model", "wrnn", "--n-layers", 2, "--norm", "batch-time", "--residual", "--dropout", 0.1]
FLAGS = ["--T", 0, "--n-hid", 5, "--n-ch", 2, "--batch", 8, "--stop-below", 0, "--log-interval", 2]


@pytest.mark.usefixtures("undrawn")
def test_a_stack_of_waves_is_trained_killed_and_resumed_to_the_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(copy.main, *STACK, *FLAGS, "--max-steps", 6, "--logdir", whole) == 0
    for steps in (3, 6):
        assert run(copy.main, *STACK, *FLAGS, "--max-steps", steps, "--resume", "--logdir", parts) == 0
    one, other = numbers(whole), numbers(parts)
    assert one["checkpoints"] == other["checkpoints"]
    assert one["metrics.jsonl"][-1] == other["metrics.jsonl"][-1]


def test_bad_options_of_a_stack_are_refused_in_one_line(capsys, tmp_path):
    folder = tmp_path / "run"
    for flags, line in (
        (["--dropout", 1], "--dropout 1.0: must be a number from 0 to below 1"),
        (["--dropout", -0.1], "--dropout -0.1: must be"),
        (["--n-layers", 0], "--n-layers 0: must be a whole number, 1 or more"),
        (["--norm", "batch", "--batch", 1], "--batch 1: must be 2 or more for batch norm"),
        (["--pooling", "mean"], "--pooling mean: must be left out: the task is read at every step"),
    ):
        assert line in refusal(capsys, copy.main, *FLAGS, "--logdir", folder, *flags), flags
    assert not folder.exists()
