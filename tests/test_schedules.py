"""Learning-rate schedules and the optimiser against their formulas, Optax's own, and as parts of a run."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wrnn_jax.models import configure
from wrnn_jax.tasks import CopyConfig, copy_task
from wrnn_jax.training.config import EpochsConfig, TrainConfig
from wrnn_jax.training.loop import make_trainer
from wrnn_jax.training.optimizer import MOMENTUMS, SCHEDULES, Hparams, make_optimizer

pytestmark = pytest.mark.usefixtures("standard_promotion")

STEPS = np.arange(0, 260, 7)


def multiplier(schedule, factor, period, drops=0):
    hparams = Hparams(1.0, np.inf, factor, period)
    return np.array([SCHEDULES[schedule](hparams, jnp.float32(step), jnp.float32(drops)) for step in STEPS])


def test_schedules_are_what_the_same_ones_of_optax_are():
    expected = {
        "step": optax.exponential_decay(1.0, 40, 1 / 3.33, staircase=True),
        "exponential": optax.exponential_decay(1.0, 40, 1 / 3.33),
        "cosine": optax.cosine_decay_schedule(1.0, 40),
        "one-cycle": optax.cosine_onecycle_schedule(40, 1.0, 0.3, 3.33, 1e4),
        "constant": optax.constant_schedule(1.0),
    }
    for name, schedule in expected.items():
        ours, theirs = multiplier(name, 3.33, 40.0), np.array([schedule(step) for step in STEPS])
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6, err_msg=name)


def test_plateau_divides_once_for_every_drop():
    for drops in range(3):
        np.testing.assert_allclose(multiplier("plateau", 10.0, 5.0, drops), 10.0**-drops, rtol=1e-6)


def one_cycle_of_the_framework(total, factor, step):
    """Learning rate (of a top of 1) and β₁ at a step, as PyTorch documents OneCycleLR: by half a cosine up to the step
    0.3 · total − 1, and down to the last."""

    def between(start, end, share):
        return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)

    top_at, last = 0.3 * total - 1, total - 1
    if step <= top_at:
        share = step / top_at
        return between(1 / factor, 1.0, share), between(0.95, 0.85, share)
    share = (step - top_at) / (last - top_at)
    return between(1.0, 1 / factor / 1e4, share), between(0.85, 0.95, share)


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
    lr = [SCHEDULES["exponential-epochs"](train.hparams(7), jnp.float32(step), jnp.float32(0)) for step in range(35)]
    np.testing.assert_allclose(lr, [0.97 ** (step // 7) for step in range(35)], rtol=1e-5)


CURVATURE, TARGET = np.array([1.0, 4.0]), np.array([3.0, -1.0])


@jax.jit
def path_of(hparams):
    """θ after each of 40 steps on ½ Σ aᵢ (θᵢ − cᵢ)², one-cycle."""
    optimizer, theta = make_optimizer(hparams, "one-cycle-momentum"), jnp.zeros(2)

    def step(carry, _):
        theta, state = carry
        gradient = jnp.asarray(CURVATURE, jnp.float32) * (theta - jnp.asarray(TARGET, jnp.float32))
        updates, state = optimizer.update(gradient, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    return jax.lax.scan(step, (theta, optimizer.init(theta)), None, length=40)[1]


@pytest.mark.parametrize(("divisor", "clip"), [(1.0, 3.0), (128.0, 0.02), (1e7, 1e9), (1e7, 1e-7)])
def test_the_optimiser_is_the_frameworks_on_the_divided_loss(divisor, clip):
    """PyTorch's clip_grad_norm_ and Adam as they are documented, on the gradient of loss / divisor: where the clip
    bites, where ε is of the gradient's size (divisor 1e7), with a penalty, with β₁ cycled."""
    factor, penalty, lr = 5.0, 0.01 / divisor, 0.1
    cycle = [one_cycle_of_the_framework(40, factor, step) for step in range(40)]

    theta, m, v, expected = np.zeros(2), 0.0, 0.0, []
    for t, (rate, beta1) in enumerate(cycle, start=1):
        g = CURVATURE * (theta - TARGET) / divisor
        g = g * min(1.0, clip / np.linalg.norm(g)) + penalty * theta
        m, v = beta1 * m + (1 - beta1) * g, 0.999 * v + 0.001 * g**2
        theta = theta - lr * rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        expected.append(theta)
    hparams = Hparams(*map(jnp.float32, (lr, clip, factor, 40.0, penalty, divisor)))
    np.testing.assert_allclose(path_of(hparams), expected, rtol=2e-3, atol=2e-4)


def test_the_optimiser_multiplies_its_learning_rate():
    params, gradient = {"w": jnp.ones(3)}, {"w": jnp.array([0.1, 0.2, -0.3])}
    plain = make_optimizer(Hparams(1e-2, np.inf))
    scheduled = make_optimizer(Hparams(1e-2, np.inf, 10.0, 2.0), "step")
    states = plain.init(params), scheduled.init(params)
    for step in range(6):
        updates, after = zip(
            *(o.update(gradient, s) for o, s in zip((plain, scheduled), states, strict=True)), strict=True
        )
        states = after
        expected = jax.tree.map(lambda leaf, step=step: leaf * 10.0 ** -(step // 2), updates[0])
        chex.assert_trees_all_close(updates[1], expected, rtol=1e-5)


def test_weight_decay_adds_its_gradient_after_the_clip():
    """λθ is the gradient of ½ λ ‖θ‖², here of the size of the clipped gradient, and of the other sign in one place."""
    params, gradient = {"w": jnp.array([1.0, -2.0, 3.0])}, {"w": jnp.array([300.0, 400.0, 0.0])}
    decayed = make_optimizer(Hparams(1e-2, 1.0, weight_decay=0.5))
    plain = make_optimizer(Hparams(1e-2, np.inf))
    by_hand = {"w": jnp.array([0.6 + 0.5, 0.8 - 1.0, 1.5])}
    got, expected = decayed.init(params), plain.init(params)
    for _ in range(3):
        updates, got = decayed.update(gradient, got, params)
        others, expected = plain.update(by_hand, expected, params)
        chex.assert_trees_all_close(updates, others, rtol=1e-5)


@pytest.fixture(scope="module")
def trainer():
    task = copy_task(CopyConfig(T=1))
    model = configure("wrnn", n_hid=5, n_ch=2).build(task.signature)
    return make_trainer(model, task, 4, schedule="plateau")


def test_a_loss_divisor_trains_on_the_divided_loss(trainer):
    """Divided by 1e8, gradients are below the clip and of the size of Adam's ε; undivided they are neither."""
    task = copy_task(CopyConfig(T=1))
    model = configure("wrnn", n_hid=5, n_ch=2).build(task.signature)
    divided = task._replace(loss=lambda outputs, targets: task.loss(outputs, targets) / 1e8)
    ends = []
    for each, divisor in ((trainer, 1e8), (make_trainer(model, divided, 4, schedule="plateau"), 1.0), (trainer, 1.0)):
        state = each.advance(each.init(0), Hparams(1e-2, 1e-6, 10.0, 9.0, None, divisor), 3)
        ends.append(jax.device_get(state.params))
    chex.assert_trees_all_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)
    far = jax.tree.map(lambda a, b: np.abs(a - b).max(), ends[0], ends[2])
    assert max(jax.tree.leaves(far)) > 1e-3, "what is left out would be seen"


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
    model = configure("wrnn", n_hid=5, n_ch=2).build(task.signature)
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


def test_a_drop_lowers_the_steps_that_follow(trainer):
    hparams = Hparams(1e-2, np.inf, 10.0, 1.0)

    def largest_move(drops):
        state = trainer.init(0)
        for loss in [1.0] * (drops + 1):
            state = trainer.observe(state, hparams, {"test_loss": jnp.float32(loss)})
        before = jax.tree.map(jnp.array, state.params)
        after = trainer.advance(state, hparams, 1).params
        return max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (after, before)), strict=True))

    # Adam's first step is the learning rate itself.
    assert largest_move(0) == pytest.approx(1e-2, rel=1e-3)
    assert largest_move(2) == pytest.approx(1e-4, rel=1e-2)


def test_factor_and_period_are_traced(trainer):
    """A grid can vary them: one program for all values."""
    state = trainer.init(0)
    programs = set()
    for until, (factor, period, divisor) in enumerate([(2.0, 3.0, 1.0), (10.0, 7.0, 128.0)], start=1):
        state = trainer.advance(state, Hparams(1e-3, 1.0, factor, period, None, divisor), until)
        programs.add(trainer.advance.func._cache_size())
    assert len(programs) == 1
    hparams = Hparams(jnp.ones(2), jnp.ones(2), jnp.array([2.0, 4.0]), jnp.array([1.0, 2.0]))
    rates = jax.vmap(lambda hparams: SCHEDULES["step"](hparams, jnp.float32(4), jnp.float32(0)))(hparams)
    np.testing.assert_allclose(rates, [2.0**-4, 4.0**-2])


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
