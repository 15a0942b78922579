"""History-dependent systems: the data against the recurrence written out, the curriculum, and the program."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import figures, hds, reading
from experiments.experiment import assemble
from experiments.settings import RunConfig
from helpers import at_step, refusal, run
from wrnn_jax.cells import history_system, unroll
from wrnn_jax.layers import Variables
from wrnn_jax.models import configure
from wrnn_jax.tasks import HDSConfig, hds_task
from wrnn_jax.tasks.hds import longest_horizon, operator_of, responses, spread, step_scale, system_of
from wrnn_jax.theory import TASKS, basis, fibonacci_operator, moments, phi, rnn
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.optimizer import make_hparams
from wrnn_jax.training.state import TrainState

KEY = jax.random.key(3)
SMALL = {"d": 3, "s": 3, "task": "273,0,5"}  # Bits 0, 4 and 8: compose copy, with signs.


def gone_on(operator, first, horizon):
    """x(t) = f [x(t−s), …, x(t−1)], step after step: (s, d) -> (horizon, d)."""
    series, s = list(first), len(first)
    for _ in range(horizon):
        series.append(operator @ np.concatenate(series[-s:]))
    return np.array(series[s:])


@pytest.mark.parametrize("task", [*TASKS, "fibonacci", "splice"])
def test_data_are_the_recurrence_written_out(task):
    config = HDSConfig(task, horizon=30, curriculum=(4, 7))
    inputs, due = hds_task(config).splits["test"].examples(None, jnp.array([0, 5, 511]))
    operator, scale = operator_of(config), step_scale(config)
    assert inputs.shape == (3, 8 + 30, 8)
    assert not np.any(inputs[:, 8:])
    assert set(np.unique(np.abs(inputs[:, :8]))) == {1.0} if config.is_binary else np.unique(inputs[:, :8]).size == 192
    for first, expected in zip(np.asarray(inputs[:, :8], np.float64), np.asarray(due), strict=True):
        np.testing.assert_allclose(expected * scale[:, None], gone_on(operator, first, 30), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("task", ["nand", "add"])
def test_data_of_a_nonlinear_system_are_its_history_system(task):
    """And the means, with no memory at all, score what chance is said to."""
    config = HDSConfig(task, d=4, s=3, horizon=20, curriculum=(4, 7))
    system, made = system_of(config), hds_task(config)
    inputs, due = made.splits["test"].examples(None, jnp.arange(512))
    outputs = unroll(history_system(system.f, 3, 4), {}, inputs).outputs
    np.testing.assert_array_equal(outputs[:, 3:], due)
    batch, (targets, _) = made.batch(None, KEY, at_step(0), 2)
    np.testing.assert_array_equal(unroll(history_system(system.f, 3, 4), {}, batch).outputs[:, 3:], targets)
    means = np.broadcast_to(np.float32(moments(system, 20).mean)[:, None], due.shape)
    answers = np.concatenate([inputs[:, :3], means], axis=1)
    for name, values in made.splits["test"].metrics(answers, due).items():
        assert np.mean(values) == pytest.approx(made.chance[name], abs=0.02)
    assert made.solved({"test_acc": 1.0, "test_mse": made.chance["test_mse"] / 2})
    assert not made.solved({"test_acc": 1.0, "test_mse": made.chance["test_mse"]}), "no better than the means"
    with pytest.raises(ValueError, match=f"^task = '{task}': must be a system whose f is linear"):
        operator_of(config)


def test_training_and_test_data_are_fresh_and_their_own():
    task = hds_task(HDSConfig(**SMALL))
    batches = [np.asarray(task.batch(None, KEY, at_step(step), 64)[0][:, :3]) for step in (0, 0, 1)]
    np.testing.assert_array_equal(batches[0], batches[1])
    assert np.mean(batches[0] == batches[2]) < 0.7, "steps have batches of their own"
    assert abs(batches[0].mean()) < 0.2


def test_a_growing_series_is_seen_on_its_own_scale():
    """The generalised Fibonacci series over 100 steps: at each step the values that are due have mean square 1."""
    config = HDSConfig("fibonacci", horizon=90, curriculum=(5,))
    _, due = hds_task(config).splits["test"].examples(None, jnp.arange(512))
    np.testing.assert_allclose(np.square(due).mean(axis=(0, 2)), 1, atol=0.15)
    scale = step_scale(config)
    np.testing.assert_allclose(scale[40:] / scale[39:-1], 1.9960312, rtol=1e-5)  # The root of x⁸ = x⁷ + … + 1.
    np.testing.assert_array_equal(spread(responses(operator_of(HDSConfig("T4")), 50)), 1)


def test_a_growing_series_ends_where_float32_does():
    longest = longest_horizon(fibonacci_operator(8, 8))
    assert HDSConfig("fibonacci").horizon == longest < 200
    scale = spread(responses(fibonacci_operator(8, 8), longest + 1))
    assert scale[-2] <= 1e36 < scale[-1]
    assert HDSConfig("T1", horizon=5000).horizon == 5000


@pytest.mark.parametrize(("level", "steps"), [(0, 2), (1, 5), (2, 9)])
def test_loss_and_mastery_look_at_the_level_alone(level, steps):
    task = hds_task(HDSConfig(**SMALL, curriculum=(2, 5, 9)))
    inputs, (due, counts) = task.batch(None, KEY, at_step(0, level), 4)
    assert inputs.shape == (4, 3 + 9, 3)
    said = np.random.default_rng(level).normal(size=inputs.shape).astype(np.float32)
    np.testing.assert_allclose(
        task.loss(said, (due, counts)), np.square(said[:, 3 : 3 + steps] - due[:, :steps]).mean(), rtol=1e-5
    )
    right = np.sign(said[:, 3 : 3 + steps]) == np.sign(due[:, :steps])
    np.testing.assert_allclose(task.curriculum.mastery(said, (due, counts)), right.mean(), rtol=1e-6)


def test_metrics_of_answers_that_are_known():
    task = hds_task(HDSConfig(**SMALL, horizon=6, curriculum=(2,)))
    inputs, due = task.splits["test"].examples(None, jnp.arange(5))
    said = np.concatenate([inputs[:, :3], due], axis=1)

    def metrics(said):
        return {name: np.asarray(value) for name, value in task.splits["test"].metrics(said, due).items()}

    negative = (np.asarray(due) < 0).mean(axis=(1, 2))
    for answer, accuracy, error in [(said, 1, 0), (-said, 0, 4), (0 * said, negative, 1)]:
        np.testing.assert_allclose(metrics(answer)["test_acc"], accuracy)
        np.testing.assert_allclose(metrics(answer)["test_mse"], error)
    assert task.solved({"test_acc": 1.0, "test_mse": 0.9})
    assert not task.solved({"test_acc": 0.9999, "test_mse": 0.0})
    assert not task.solved({"test_acc": 1.0, "test_mse": 12.4}), "a network whose values explode"
    fibonacci = hds_task(HDSConfig("fibonacci", curriculum=(2,)))
    assert fibonacci.solved({"test_acc": 0.995, "test_mse": 1e-4})
    assert not fibonacci.solved({"test_acc": 0.98, "test_mse": 1e-4})
    assert not fibonacci.solved({"test_acc": 1.0, "test_mse": 2e-4})


def exact(task_config):
    """The task, and a traveling-wave memory with its operator for a boundary, whatever the key."""
    task = hds_task(task_config)
    model = configure("twm-lbc", n_hid=task_config.s).build(task.signature)
    operator = jnp.asarray(operator_of(task_config), jnp.float32)
    variables = Variables(model.init(KEY).params | {"cell": {"operator": operator}})
    return task, model._replace(init=lambda key: jax.tree.map(jnp.copy, variables))


@pytest.mark.parametrize("task", ["T4", "fibonacci", "compose-copy"])
def test_the_memory_with_its_own_operator_is_right_at_any_horizon(task):
    """No training; over 1,000 steps where the series stays finite."""
    horizon = None if task == "fibonacci" else 1000
    task, model = exact(HDSConfig(task, horizon=horizon, curriculum=(3,)))
    inputs, due = task.splits["test"].examples(None, jnp.arange(4))
    metrics = task.splits["test"].metrics(jax.jit(model.apply)(model.init(KEY), inputs)[0], due)
    assert np.max(metrics["test_mse"]) < 1e-9
    assert task.solved({name: float(value.mean()) for name, value in metrics.items()})


@pytest.mark.usefixtures("standard_promotion")
def test_a_level_ends_once_a_batch_is_mastered_and_the_last_one_never():
    task, model = exact(HDSConfig(**SMALL, horizon=6, curriculum=(2, 5, 9)))
    trainer = make_trainer(model, task, 4)
    state, levels = trainer.init(0), []
    for step in range(1, 6):
        state = trainer.advance(state, make_hparams(0.0, 1.0), step)
        levels.append(int(state.level))
    assert levels == [1, 2, 2, 2, 2]
    ignorant = model._replace(init=lambda key: jax.tree.map(jnp.zeros_like, model.init(key)))
    trainer = make_trainer(ignorant, task, 4)
    assert int(trainer.advance(trainer.init(0), make_hparams(0.0, 1.0), 5).level) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "T5"}, "task = 'T5': must be one of T1, T2, T3, T4, fibonacci, compose-copy, "),
        ({"task": "1,2"}, "task = '1,2': must be a triple with triple three whole numbers"),
        ({"task": "127,0,0"}, "task = '127,0,0': must be a triple with id1 a number with exactly 8 bits set"),
        ({"task": f"{255 << 60},0,0"}, "must be a triple with id1 below 2^64"),
        ({"task": "255,56,0"}, "must be a triple with id2 a number whose digit 1 in base 8 is below 8 − 1 = 7"),
        ({"task": "255,0,256"}, "must be a triple with id3 below 2^8"),
        ({"task": "T1", "d": 7}, "task = 'T1': must be a triple with id1 a number with exactly 7 bits set"),
        ({"task": "compose-copy", "s": 4}, "s = 4: must be as many as the elements, d = 8, for compose-copy"),
        ({"d": 0}, "d = 0: must be a whole number, 1 or more"),
        ({"horizon": 0}, "horizon = 0: must be a whole number, 1 or more"),
        ({"task": "fibonacci", "horizon": 200}, "horizon = 200: must be at most 1"),
        ({"curriculum": ()}, "curriculum = '': must be one or more numbers of steps"),
        ({"curriculum": (10, 5)}, "curriculum = '10 5': must be numbers of steps that rise"),
        ({"curriculum": (0, 5)}, "curriculum = 0: must be a whole number, 1 or more"),
        ({"mastery": 1.0}, "mastery = 1.0: must be from 0 to less than 1"),
    ],
)
def test_bad_config_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        HDSConfig(**given)


FLAGS = ("--task", "273,0,5", "--d", 3, "--s", 3, "--horizon", 6, "--curriculum", 2, 5, "--batch", 8)


def train(model, folder):
    size = 3 if model.startswith("twm") else 12
    flags = (*FLAGS, "--model", model, "--n-hid", size, "--max-steps", 4, "--log-interval", 2, "--logdir", folder)
    assert run(hds.main, *flags) == 0
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with jax.numpy_dtype_promotion("standard"):
        return train("srnn", tmp_path_factory.mktemp("hds") / "srnn")


SLOW = [pytest.param(model, marks=pytest.mark.slow) for model in ("lstm", "wrnn", "twm-sbc")]


@pytest.mark.parametrize("model", ["srnn", "twm-lbc", *SLOW])
@pytest.mark.usefixtures("standard_promotion")
def test_every_model_trains_and_is_read(model, trained, tmp_path):
    folder = trained if model == "srnn" else train(model, tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["experiment"], summary["task"], summary["steps"]) == ("hds", "273,0,5", 4)
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert all(row["level"] in (0, 1) for row in rows)
    is_read = model in ("srnn", "lstm", "twm-lbc")
    assert ("angle_error" in summary) == is_read
    assert summary.get("eigenvalues_theory") == (6 if is_read else None)
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    assert {"task", "training", "waves"} <= drawn
    assert ("eigenvalues" in drawn) == is_read
    assert ("variables" in drawn) == (model not in ("lstm", "wrnn"))


@pytest.mark.parametrize("figure", ["eigenvalues", "memories --basis input", "evolution", "horizon"])
@pytest.mark.usefixtures("standard_promotion")
def test_a_run_is_drawn_by_the_theory(trained, figure, tmp_path):
    out = tmp_path / "figure.png"
    assert run(figures.main, trained, "--figure", *figure.split(), "--out", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("standard_promotion")
def test_a_trained_network_is_tested_over_any_horizon(trained, capsys):
    flags = (*FLAGS, "--n-hid", 12, "--max-steps", 4, "--log-interval", 2, "--logdir", trained)
    capsys.readouterr()
    measured = {}
    for horizon in (6, 50):
        assert run(hds.main, *flags, "--horizon", horizon, "--eval-only") == 0
        measured[horizon] = json.loads(capsys.readouterr().out)
    summary = json.loads((trained / "summary.json").read_text())
    assert measured[6]["test_mse"] == pytest.approx(summary["test_mse"], rel=1e-6)
    assert len({metrics["test_mse"] for metrics in measured.values()}) == 2
    assert "--horizon" in refusal(capsys, hds.main, *flags, "--horizon", 50, "--resume")


@pytest.mark.usefixtures("standard_promotion")
def test_variables_move(trained, tmp_path):
    assert run(figures.main, trained, "--figure", "variables", "--out", tmp_path / "waves.gif") == 0
    with Image.open(tmp_path / "waves.gif") as animation:
        assert animation.n_frames == 3 + 6


def srnn(**fields):
    return configure("srnn", n_hid=64, init="orthogonal", use_bias=False, **fields)


def untrained(params):
    return TrainState(**dict.fromkeys(TrainState._fields))._replace(params=params, fixed={}, stats=())


@pytest.mark.usefixtures("standard_promotion")
def test_what_is_read_of_an_exact_rnn_is_its_theory():
    """The RNN built of (Φ, Ψ), in place of a trained one: no angle error, Φ in the basis of its variables, in which the
    hidden state is the substrate, and every sign right at each step of the horizon."""
    config = hds.Config(
        HDSConfig("T1", horizon=12, curriculum=(3,)),
        srnn(act="identity"),
        hds.HDSTrainConfig(),
        RunConfig(),
    )
    parts = assemble(hds.EXPERIMENT, config)
    orthonormal = basis(np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0])
    params = rnn(operator_of(config.task), orthonormal)
    state = untrained(params)
    measured = reading.measure(parts, state)
    assert (measured["eigenvalues_kept"], measured["eigenvalues_theory"]) == (64, 64)
    assert measured["angle_error"] < 1e-5
    assert measured["spectral_radius"] == pytest.approx(1, abs=1e-5)
    read = reading.read(parts, params)
    np.testing.assert_allclose(read.matrix, phi(operator_of(config.task)), atol=1e-4)
    seen = reading.evolution(parts, state, index=7)
    waves, inputs = seen.variables, seen.inputs
    assert waves.shape == (8 + 12, 8, 8)
    np.testing.assert_allclose(seen.outputs, waves[:, -1], atol=1e-3)
    np.testing.assert_allclose(seen.outputs[8:], seen.due[8:], atol=1e-3)
    assert np.isnan(seen.due[:8]).all()
    assert seen.outside.max() < 1e-9, "all of the state is in its variables"
    np.testing.assert_allclose(waves[7], inputs[:8], atol=1e-3)  # T1 is shown a history, and has it.
    np.testing.assert_allclose(waves[15], inputs[:8], atol=1e-3)
    np.testing.assert_allclose(waves[9, :-1], waves[8, 1:], atol=1e-3)
    np.testing.assert_array_equal(reading.accuracy_along(parts, state), np.ones(12))
    by_input = reading.read(parts, params, "input")
    np.testing.assert_allclose(by_input.basis.vectors, read.basis.vectors, atol=1e-4)


@pytest.mark.usefixtures("standard_promotion")
def test_a_network_of_a_nonlinear_system_has_variables_but_no_phi():
    config = hds.Config(
        HDSConfig("xor", d=3, s=3, horizon=6, curriculum=(3,)),
        srnn(),
        hds.HDSTrainConfig(),
        RunConfig(),
    )
    parts = assemble(hds.EXPERIMENT, config)
    state = TrainState(**dict.fromkeys(TrainState._fields))._replace(
        params=parts.model.init(KEY).params, fixed={}, stats=()
    )
    measured = reading.measure(parts, state)
    assert measured["linear_mse"] == pytest.approx(2 / 6)  # Steps 1 and 5 of 6 are sums.
    assert measured["spectral_radius"] == pytest.approx(1, abs=1e-5)  # An orthogonal start.
    assert "angle_error" not in measured
    assert reading.evolution(parts, state).variables.shape == (9, 3, 3)
    with pytest.raises(ValueError, match=r"^task = 'xor': must be a system whose f is linear"):
        reading.memories_figure(parts, state)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_untrained_gradients_stay_on_waves_and_vanish_elsewhere():
    norms = reading.untrained_gradients(seeds=[0])
    assert np.all(norms["TWM"][:8] >= 1)
    assert np.all(norms["TWM"][:8] < 1.5)
    for name in ("wRNN", "tanh RNN, orthogonal start"):
        assert np.all(norms[name][:40] > 0.3)
    for name in ("tanh RNN", "LSTM"):
        assert norms[name][40] < 1e-4
        assert np.all(np.diff(np.log(norms[name])) < 0), "geometric decay"


def test_a_memory_of_other_columns_than_the_task_is_refused(capsys):
    said = refusal(capsys, hds.main, *FLAGS, "--model", "twm-lbc", "--n-hid", 4)
    assert said == "error: --n-hid 4: must be s = 3, the columns of twm-lbc"
    said = refusal(capsys, hds.main, "--task", "256,0,0")
    assert said.startswith("error: --task 256,0,0: must be a triple with id1 a number with exactly 8 bits set")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--figure gradients", "0 run directories for gradients"),
        ("--figure memories --index -1", "--index -1: must be a whole number, 0 or more"),
        ("--figure variables --index 512", "--index 512: must be 0 to 511, the test set"),
        ("--figure eigenvalues --out waves.gif", "a file name that ends in .png, .pdf, .svg"),
    ],
)
@pytest.mark.usefixtures("standard_promotion")
def test_figures_refuse_what_they_cannot_draw(trained, flags, expected, capsys):
    assert expected in refusal(capsys, figures.main, trained, *flags.split())
