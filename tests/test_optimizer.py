"""The optimiser against a transcription of its equations in float64, and against Optax's own AdamW."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import one_cycle_of_the_framework
from wrnn_jax.training.optimizer import DECAYS, SCHEDULES, Hparams, divide_and_clip, make_optimizer
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("standard_promotion")

STEPS, PERIOD, FACTOR = 60, 40, 5.0
CURVATURE = {"cell": {"a": np.array([1.0, 4.0]), "b": np.array([[0.3, 2.0], [5.0, 1.0]])}, "readout": np.array(0.7)}
TARGET = {"cell": {"a": np.array([3.0, -1.0]), "b": np.array([[2.0, -2.0], [0.5, 0.1]])}, "readout": np.array(-1.5)}
START = jax.tree.map(np.ones_like, TARGET)
RATES = {"cell": {"a": 0.1, "b": np.array([[2.0], [0.5]])}, "readout": 3}
DECAYING = {"cell": {"a": True, "b": False}, "readout": True}


def gradient(theta):
    """Of ½ Σ aᵢ (θᵢ − cᵢ)²."""
    return jax.tree.map(lambda a, leaf, c: a * (leaf - c), CURVATURE, theta, TARGET)


def path(hparams, schedule="constant", steps=STEPS, make=make_optimizer, **options):
    """θ after each step, and the last state."""
    optimizer = make(hparams, schedule, **options)
    curvature, target, theta = (jax.tree.map(jnp.float32, tree) for tree in (CURVATURE, TARGET, START))

    def step(carry, _):
        theta, state = carry
        slope = jax.tree.map(lambda a, leaf, c: a * (leaf - c), curvature, theta, target)
        updates, state = optimizer.update(slope, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    (_, state), thetas = jax.lax.scan(step, (theta, optimizer.init(theta)), None, length=steps)
    return thetas, state


def transcribed(lr, clip, penalty, divisor, warmup, kind, rates, decays):
    """The same by hand, one-cycle: PyTorch's OneCycleLR, clip_grad_norm_, Adam and AdamW as they are documented."""
    theta, thetas = START, []
    m = v = jax.tree.map(np.zeros_like, START)
    rates = {"cell": {"a": 1.0, "b": 1.0}, "readout": 1.0} if rates is None else rates
    shares = {"cell": {"a": True, "b": True}, "readout": True} if decays is None else decays
    shares = jax.tree.map(lambda acts: penalty * acts, shares)
    for t in range(STEPS):
        rate, beta1 = one_cycle_of_the_framework(PERIOD, FACTOR, min(max(0, t - warmup), PERIOD - 1))
        rate = lr * rate * (min(1, (t + 1) / warmup) if warmup else 1)
        g = jax.tree.map(lambda leaf: leaf / divisor, gradient(theta))
        norm = math.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(g)))
        g = jax.tree.map(lambda leaf, norm=norm: leaf * min(1, clip / norm), g)
        decay = jax.tree.map(lambda share, leaf: share * leaf, shares, theta)
        if kind == "l2":
            g = jax.tree.map(np.add, g, decay)
        m = jax.tree.map(lambda m, g, beta1=beta1: beta1 * m + (1 - beta1) * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, g)

        def adam(m, v, t=t, beta1=beta1):
            return m / (1 - beta1 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)

        moves = jax.tree.map(adam, m, v)
        if kind == "decoupled":
            moves = jax.tree.map(np.add, moves, decay)
        theta = jax.tree.map(lambda leaf, move, by, rate=rate: leaf - rate * by * move, theta, moves, rates)
        thetas.append(theta)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *thetas)


CASES = [
    # lr, clip, λ, divisor, warm-up
    (0.1, 3.0, 0.01, 1.0, 0),
    (0.1, 0.02, 0.01 / 128, 128.0, 13),
    (0.1, 0.5, 0.4, 1.0, 1),  # A penalty of the size of the clipped gradient.
    (0.1, 1e9, 1e-9, 1e7, 100),  # Gradients of the size of Adam's ε; a warm-up that does not end.
    (0.1, 1e-7, 1e-9, 1e7, 5),
]


@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize(("rates", "decays"), [(None, None), (RATES, DECAYING)])
def test_the_optimiser_is_its_equations(kind, rates, decays):
    """With β₁ cycled; one program for all hyper-parameters, the warm-up among them."""
    follow = jax.jit(lambda hparams: path(hparams, "one-cycle-momentum", decay=kind, rates=rates, decays=decays)[0])
    for lr, clip, penalty, divisor, warmup in CASES:
        got = follow(Hparams(*map(jnp.float32, (lr, clip, FACTOR, PERIOD, penalty, divisor, warmup))))
        expected = transcribed(lr, clip, penalty, divisor, warmup, kind, rates, decays)
        chex.assert_trees_all_close(got, expected, rtol=2e-3, atol=2e-4)
    assert follow._cache_size() == 1


def before(hparams, schedule, drops=0):
    """The optimiser as it was when there was neither warm-up nor another decay nor groups."""
    return optax.chain(
        divide_and_clip(hparams.loss_divisor, hparams.grad_clip),
        optax.add_decayed_weights(hparams.weight_decay),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(
            lambda step: hparams.lr * SCHEDULES[schedule](hparams, jnp.asarray(step, jnp.float32), jnp.float32(drops))
        ),
    )


def test_what_is_not_asked_for_changes_no_bit_and_no_option_changes_the_states_structure():
    hparams = Hparams(*map(jnp.float32, (0.1, 0.5, 2.5, 7.0, 0.03, 3.0)))
    for schedule in ("step", "cosine"):
        follow = jax.jit(functools.partial(path, schedule=schedule, make=before))
        expected = follow(hparams)
        follow = jax.jit(functools.partial(path, schedule=schedule))
        for given in (hparams, hparams._replace(warmup=jnp.float32(0))):
            chex.assert_trees_all_equal(follow(given), expected)  # The state as well.
    structure = jax.tree.structure(expected[1])
    for hparams in (Hparams(0.0, 0.0), Hparams(1e-3, 1.0, weight_decay=0.1, warmup=3.0)):
        for kind in DECAYS:
            options = {"decay": kind, "rates": RATES, "decays": DECAYING}
            for schedule in ("constant", "one-cycle-momentum"):
                state = make_optimizer(hparams, schedule, **options).init(START)
                assert jax.tree.structure(state) == structure


def test_decoupled_decay_is_that_of_optax():
    """AdamW after a warm-up, with a mask and without."""
    hparams, warm = Hparams(0.02, np.inf, weight_decay=0.3, warmup=6.0), optax.linear_schedule(0.02 / 6, 0.02, 5)
    for decays in (None, DECAYING):

        def theirs(hparams, schedule, decays=decays):
            return optax.adamw(warm, weight_decay=hparams.weight_decay, mask=decays)

        expected = path(hparams, make=theirs, steps=20)[0]
        got = path(hparams, decay="decoupled", decays=decays, steps=20)[0]
        chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-6)


def test_rates_and_decays_are_prefixes_and_may_be_made_of_traced_parameters():
    """A number for a whole branch; rates of 0 hold a branch; all inside a vmap over hyper-parameters, and a rate
    that is computed from the parameters."""

    def follow(lr, options):
        return path(Hparams(lr, np.inf, weight_decay=0.1), steps=4, **options)[0]

    lrs = jnp.array([0.1, 0.01])
    written_out = {"rates": {"cell": {"a": 0.0, "b": 0.0}, "readout": 0.5}, "decays": DECAYING}
    short = {"rates": {"cell": 0, "readout": jnp.float32(0.5)}, "decays": {"cell": DECAYING["cell"], "readout": True}}
    members = jax.vmap(lambda lr: follow(lr, short))(lrs)
    chex.assert_trees_all_close(members, jax.vmap(lambda lr: follow(lr, written_out))(lrs), rtol=1e-6)
    assert (members["cell"]["b"] == 1).all()
    assert not (members["readout"] == 1).any()

    @jax.jit
    def first(params):
        optimizer = make_optimizer(Hparams(0.1, 0.0), rates={"cell": 1, "readout": params["readout"] * 7})
        return optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)[0]

    moves = first(jax.tree.map(jnp.float32, START))
    np.testing.assert_allclose(moves["readout"], 7 * moves["cell"]["a"][0], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"decay": "adamw"}, "decay = 'adamw': must be one of l2, decoupled"),
        (
            {"rates": {"cell": 1.0}},
            "rates = PyTreeDef({'cell': *}): must be a prefix of the parameters' tree, PyTreeDef(",
        ),
        ({"decays": {"cells": True, "readout": True}}, "decays = PyTreeDef({'cells': *, 'readout': *}): must be a pr"),
        ({"rates": -1.0}, "rates = -1.0: must be 0 or more"),
        ({"rates": {"cell": {"a": np.ones(3), "b": 1.0}, "readout": 1.0}}, "rates = 'an array of shape (3,)': must be"),
        ({"rates": {"cell": 1.0, "readout": np.ones(1)}}, "rates = 'an array of shape (1,)': must be one that broadca"),
        ({"decays": {"cell": 1, "readout": True}}, "decays = 1: must be True or False"),
    ],
)
def test_what_is_no_group_is_refused_in_a_line(options, refusal):
    with pytest.raises(InvalidValue) as refused:
        path(Hparams(0.1, 1.0, weight_decay=0.1), steps=1, **options)
    assert str(refused.value).startswith(refusal)
    assert "\n" not in str(refused.value)
