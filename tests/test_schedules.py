"""Learning-rate schedules against their formulas, Optax's own, and as parts of a run."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import linear_map, one_cycle_of_the_framework
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.config import EpochsConfig, TrainConfig
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.optimizer import MOMENTUMS, SCHEDULES, Hparams, learning_rate
from wrnn_jax.training.rundir import RunDirectory
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("standard_promotion")

STEPS = np.arange(0, 120)


def rates(schedule, factor, period, warmup=None, drops=0.0):
    """The learning rate of every step, of an ``lr`` of 3; of several warm-ups, if it is an array."""
    hparams = Hparams(*map(jnp.float32, (3, np.inf, factor, period)), warmup=warmup)
    of_all = jax.vmap(learning_rate, in_axes=(None, None, 0, None))
    if warmup is not None:
        of_all = jax.vmap(of_all, in_axes=(Hparams(*[None] * 6, 0), None, None, None))
    steps, drops = jnp.asarray(STEPS, jnp.float32), jnp.float32(drops)
    return np.asarray(jax.jit(of_all, static_argnums=1)(hparams, schedule, steps, drops))


def test_schedules_are_what_the_same_ones_of_optax_are():
    expected = {
        "step": optax.exponential_decay(3.0, 40, 1 / 3.33, staircase=True),
        "exponential": optax.exponential_decay(3.0, 40, 1 / 3.33),
        "cosine": optax.cosine_decay_schedule(3.0, 40),
        "one-cycle": optax.cosine_onecycle_schedule(40, 3.0, 0.3, 3.33, 1e4),
        "constant": optax.constant_schedule(3.0),
    }
    for name, schedule in expected.items():
        theirs = np.broadcast_to(jax.vmap(schedule)(STEPS), STEPS.shape)
        np.testing.assert_allclose(rates(name, 3.33, 40.0), theirs, rtol=2e-5, atol=1e-6, err_msg=name)


def test_every_schedule_begins_after_the_warm_up():
    """By formula, with F = 3.33, P = 40 and one drop; a warm-up of nothing is none, to the bit."""
    F, P, drops = 3.33, 40.0, 1

    def half_cosine(x):
        return 0.5 * (1 + np.cos(np.pi * np.clip(x, 0, 1)))

    def one_cycle(s):
        rising = 1 - (1 - 1 / F) * half_cosine(s / P / 0.3)
        falling = 1e-4 / F + (1 - 1e-4 / F) * half_cosine((s / P - 0.3) / 0.7)
        return np.where(s / P < 0.3, rising, falling)

    formulas = {
        "constant": np.ones_like,
        "step": lambda s: F ** -np.floor(s / P),
        "exponential": lambda s: F ** -(s / P),
        "cosine": lambda s: half_cosine(s / P),
        "one-cycle": one_cycle,
        "plateau": lambda s: F**-drops * np.ones_like(s),
        "one-cycle-momentum": lambda s: np.array([one_cycle_of_the_framework(P, F, min(at, P - 1))[0] for at in s]),
        "exponential-epochs": lambda s: F ** -np.floor(s / P),
        "plateau-accuracy": lambda s: F**-drops * np.ones_like(s),
    }
    assert formulas.keys() == SCHEDULES.keys()
    for name, formula in formulas.items():
        warmups = np.float32([0, 1, 5, 300])
        got = rates(name, F, P, warmups, drops)
        for warmup, lr in zip(warmups, got, strict=True):
            ramp = np.minimum(1, (STEPS + 1) / warmup) if warmup else 1
            expected = 3 * ramp * formula(np.maximum(0.0, STEPS - warmup))
            np.testing.assert_allclose(lr, expected, rtol=2e-4, atol=1e-6, err_msg=f"{name} {warmup}")
        np.testing.assert_array_equal(got[0], rates(name, F, P, None, drops))


def test_schedules_of_the_authors_framework():
    for total, factor in ((260, 25.0), (40, 3.33), (3, 25.0)):
        steps = range(total)
        hparams = Hparams(1.0, np.inf, factor, float(total))
        expected = np.array([one_cycle_of_the_framework(total, factor, step) for step in steps])
        lr, momentum = jax.vmap(
            lambda step, hparams=hparams: (
                SCHEDULES["one-cycle-momentum"](hparams, step, jnp.float32(0)),
                MOMENTUMS["one-cycle-momentum"](hparams, step),
            )
        )(jnp.arange(total, dtype=jnp.float32))
        np.testing.assert_allclose(lr, expected[:, 0], rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(momentum, expected[:, 1], rtol=1e-5)
    # ExponentialLR: times 0.97 at every epoch's end; an epoch has 7 steps.
    train = EpochsConfig(schedule="exponential-epochs", epochs=5).resolved(7)
    lr = SCHEDULES["exponential-epochs"](train.hparams(7), jnp.arange(35.0), jnp.float32(0))
    np.testing.assert_allclose(lr, [0.97 ** (step // 7) for step in range(35)], rtol=1e-5)


@pytest.fixture(scope="module")
def trainer():
    task = copy_task(CopyConfig(T=1))
    model = linear_map(task.signature)
    return make_trainer(model, task, 4, schedule="plateau")


def test_plateau_drops_after_as_many_evaluations_without_improvement(trainer):
    """By hand, patience 2: an improvement must be of a relative 1e-4, and a drop begins the count anew."""
    hparams = Hparams(1e-2, np.inf, 10.0, 2.0)
    state, seen = trainer.init(0), []
    for loss in (1.0, 0.9, 0.9, 0.89999, 0.95, 0.85, np.nan, 0.86, 0.87, 0.88):
        state = trainer.observe(state, hparams, {"test_loss": jnp.float32(loss)})
        seen.append(int(state.plateau.drops))
    assert seen == [0, 0, 0, 1, 1, 1, 1, 2, 2, 3]
    assert float(state.plateau.lowest) == pytest.approx(0.85)
    assert int(state.plateau.stale) == 4, "a drop does not make the lowest loss younger"


def plateau_of_the_framework(accuracies, patience, cooldown, threshold=1e-4):
    """How often PyTorch's ReduceLROnPlateau, mode max, has lowered the rate after each epoch, as it is documented."""
    best, bad, cooling, drops, seen = -math.inf, 0, 0, 0, []
    for accuracy in accuracies:
        best, bad = (accuracy, 0) if accuracy > best * (1 + threshold) else (best, bad + 1)
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        if bad > patience:
            drops, cooling, bad = drops + 1, cooldown, 0
        seen.append(drops)
    return seen


def test_plateau_on_the_accuracy_is_the_frameworks():
    """Rises, standstills longer than patience and cooldown, and a random walk; the loss, which falls, plays no part."""
    task = copy_task(CopyConfig(T=1))._replace(score="recall")
    model = linear_map(task.signature)
    trainer = make_trainer(model, task, 4, schedule="plateau-accuracy")
    walk = np.random.default_rng(0).integers(400, 420, 30) / 1000
    accuracies = [0.1, 0.2, 0.3, *[0.3] * 14, 0.31, *[0.25] * 7, 0.4, *walk, np.nan, *[0.9] * 14]
    for period in (5.0, 2.0):
        state, seen, hparams = trainer.init(0), [], Hparams(1e-2, np.inf, 10.0, period)
        for epoch, accuracy in enumerate(accuracies):
            metrics = {"test_loss": jnp.float32(1 / (epoch + 1)), "recall": jnp.float32(accuracy)}
            state = trainer.observe(state, hparams, metrics)
            seen.append(int(state.plateau.drops))
        assert seen == plateau_of_the_framework(accuracies, period, 5)
        assert seen[-1] >= 4
    assert int(state.plateau.stale) == 0, "--patience goes by the loss"
    assert EpochsConfig(schedule="plateau-accuracy").resolved(9).hparams(9).lr_period == 5
    with pytest.raises(ValueError, match=r"^schedule = 'plateau-accuracy': must be another one"):
        make_trainer(model, copy_task(CopyConfig(T=1)), 4, schedule="plateau-accuracy")


def test_a_run_goes_by_its_hyper_parameters_in_one_program(trainer):
    """Adam's first step is the learning rate itself, which drops divide, a factor a drop, and a warm-up by its steps;
    but where the loss is divided by so much that the gradient is far below Adam's ε. A grid can vary them all."""

    def largest_move(drops=0, factor=10.0, period=1.0, divisor=1.0, warmup=0.0):
        state, hparams = trainer.init(0), Hparams(1e-2, np.inf, factor, period, 0.0, divisor, warmup)
        for loss in [1.0] * (drops + 1):
            state = trainer.observe(state, hparams, {"test_loss": jnp.float32(loss)})
        before = jax.tree.map(jnp.array, state.params)
        after = trainer.advance(state, hparams, 1).params
        return max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (after, before)), strict=True))

    assert largest_move() == pytest.approx(1e-2, rel=1e-3)
    programs = trainer.advance.func._cache_size()
    assert largest_move(drops=2) == pytest.approx(1e-4, rel=1e-2)
    assert largest_move(drops=1, factor=4.0) == pytest.approx(1e-2 / 4, rel=1e-3)
    assert largest_move(warmup=8.0) == pytest.approx(1e-2 / 8, rel=1e-3)
    assert largest_move(divisor=1e12) < 1e-4
    assert trainer.advance.func._cache_size() == programs


def test_what_is_not_given_is_resolved_in_epochs_or_steps():
    train = TrainConfig(schedule="cosine", max_steps=700).resolved(None)
    assert (train.lr_period, train.hparams(None).lr_period) == (700, 700)
    epochs = EpochsConfig(schedule="cosine", epochs=12).resolved(445)
    assert (epochs.max_steps, epochs.log_interval, epochs.checkpoint_interval) == (12 * 445, 445, 445)
    assert (epochs.lr_period, epochs.hparams(445).lr_period) == (12, 12 * 445)
    shorter = EpochsConfig(epochs=12, max_steps=100).resolved(445)
    assert shorter.max_steps == 100
    step = EpochsConfig(schedule="step", lr_period=40.0).resolved(10)
    assert (step.lr_factor, step.hparams(10).lr_factor, step.hparams(10).lr_period) == (10, 10, 400)
    warm = TrainConfig(schedule="cosine", max_steps=700, warmup=100).resolved(None)
    assert (warm.lr_period, warm.hparams(None).warmup) == (600, 100), "what is left of the run"
    warm = EpochsConfig(schedule="one-cycle", epochs=12, warmup=890).resolved(445)
    assert (warm.lr_period, warm.hparams(445).warmup) == (10, 890), "a warm-up is in steps all the same"
    assert TrainConfig(schedule="cosine", max_steps=7, warmup=100).resolved(None).lr_period == 1
    plateau = EpochsConfig(schedule="plateau").resolved(10)
    assert (plateau.lr_period, plateau.hparams(10).lr_period) == (10, 10), "evaluations, not epochs"
    exponential = EpochsConfig(schedule="exponential", lr_period=1.0).resolved(10).hparams(10)
    lr = SCHEDULES["exponential"](exponential, jnp.float32(20), jnp.float32(0))
    assert float(lr) == pytest.approx(0.97**2), "0.97 an epoch"


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("schedule", {"schedule": "linear"}),
        ("schedule", {"schedule": "plateau-accuracy"}),
        ("loss_divisor", {"loss_divisor": 0.0}),
        ("weight_decay_kind", {"weight_decay": 0.1, "weight_decay_kind": "adamw"}),
        ("warmup", {"warmup": -1}),
        ("warmup", {"warmup": 2.5}),
        ("lr_factor", {"lr_factor": 2.0}),
        ("lr_factor", {"schedule": "cosine", "lr_factor": 2.0}),
        ("lr_factor", {"schedule": "step", "lr_period": 1.0, "lr_factor": 0.1}),
        ("lr_factor", {"schedule": "step", "lr_period": 1.0, "lr_factor": float("inf")}),
        ("lr_period", {"lr_period": 3.0}),
        ("lr_period", {"schedule": "step"}),
        ("lr_period", {"schedule": "step", "lr_period": 0.0}),
    ],
)
def test_what_a_schedule_cannot_use_is_refused_by_name(field, options):
    with pytest.raises(ValueError, match=f"^{field} = "):
        TrainConfig(**options)


def test_a_run_that_was_begun_before_there_was_such_a_field_goes_on(tmp_path):
    """It had what is now the default: it can be resumed with that, and with nothing else."""

    def directory(**options):
        return RunDirectory(tmp_path, "copy", {"train": TrainConfig(lr=1e-2, **options)}, resume=True)

    directory().create()
    about = json.loads((tmp_path / "config.json").read_text())
    for field in ("warmup", "weight_decay_kind"):
        del about["config"]["train"][field]
    (tmp_path / "config.json").write_text(json.dumps(about))
    directory()
    for field, value in {"warmup": 5, "weight_decay_kind": "decoupled"}.items():
        with pytest.raises(InvalidValue, match=f"^{field} = .*, as in the run"):
            directory(**{field: value})
