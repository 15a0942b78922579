"""History-dependent dynamical systems: to go on with a series that one was shown the beginning of (Karuvally et al.
2024, section 4)."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from wrnn_jax.tasks.base import Curriculum, Progress, Source, Task, held_out
from wrnn_jax.theory import System, moments, named_system
from wrnn_jax.typing import Array, Key, Signature
from wrnn_jax.validation import require, require_integer

HORIZON = 200
"""Steps without input over which the paper tests."""
TEST_SIZE = 512
SOLVED_MSE, SOLVED_SIGNS = 1e-4, 0.99
"""Of real vectors: an error of 1 % turns the signs of some 0.3 % of normal numbers, those that are nearly 0."""
LONGEST = 10_000
"""Steps of a horizon at most."""
MOST_COMPONENTS = 512
"""Of a history, s·d at most: what f takes grows with its square."""
MOST_NUMBERS = 2**27
"""Of all responses of a system, H·d·s·d at most: 1 GiB of float64."""
MOST_PAST = 2**17
"""Steps of a horizon times s, at most: what a nonlinear system's own chance takes."""
LARGEST = 1e36
"""Typical values up to which float32 leaves room for a network's own."""


@dataclass(frozen=True)
class HDSConfig:
    """The task's own flags."""

    task: str = "T1"
    """The system. Linear, of binary vectors: T1 | T2 | T3 | T4 | an integer triple id1,id2,id3; of real ones: fibonacci
    | compose-copy | compose-copy-reversed | compose-copy-shifted | repeat-copy | splice. Nonlinear, of binary vectors:
    xor (the binary Fibonacci series) | and | or | nand | nor | add (sums modulo 2^d)."""
    d: int = 8
    """Elements of a vector."""
    s: int = 8
    """Vectors that are shown, and that the next one depends on."""
    horizon: int | None = None
    """Steps to go on for, over which is tested (if not given: 200, or as far as a growing series stays finite)."""
    curriculum: tuple[int, ...] = (10, 20, 40, 60, 100)
    """Steps to go on for in training, from level to level."""
    mastery: float = 0.98
    """The share of right signs in a training batch that ends a level."""

    def __post_init__(self):
        require_integer("d", self.d, at_least=1)
        require_integer("s", self.s, at_least=1)
        object.__setattr__(self, "curriculum", tuple(self.curriculum))  # In a stored config it is a list.
        require(len(self.curriculum) > 0, "curriculum", "", "one or more numbers of steps")
        for steps in self.curriculum:
            require_integer("curriculum", steps, at_least=1)
        rising = list(self.curriculum) == sorted(set(self.curriculum))
        require(rising, "curriculum", " ".join(map(str, self.curriculum)), "numbers of steps that rise")
        require(0 <= self.mastery < 1, "mastery", self.mastery, "from 0 to less than 1")
        allowed = (
            f"at most {MOST_COMPONENTS // self.s} for s = {self.s}: s vectors have {MOST_COMPONENTS} elements at most"
        )
        require(self.s <= MOST_COMPONENTS, "s", self.s, f"at most {MOST_COMPONENTS}")
        require(self.s * self.d <= MOST_COMPONENTS, "d", self.d, allowed)
        system = system_of(self)
        longest = LONGEST if system.operator is None else longest_horizon(system.operator)
        if self.horizon is None:
            object.__setattr__(self, "horizon", min(HORIZON, longest))
        require_integer("horizon", self.horizon, at_least=1)
        growing = ": beyond that the values of this series leave the range of float32" if longest < LONGEST else ""
        allowed = f"at most {longest}{growing}"
        for field, steps in (("horizon", self.horizon), ("curriculum", self.curriculum[-1])):
            require(steps <= longest, field, steps, allowed)
            most = min(MOST_NUMBERS // (self.s * self.d**2), MOST_PAST // self.s)
            require(steps <= most, field, steps, f"at most {most} for vectors of {self.d}, of which f takes {self.s}")

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and features of a training sequence."""
        return self.s + self.curriculum[-1], self.d

    @property
    def is_binary(self) -> bool:
        """Whether the vectors are of ±1, else of real numbers from N(0, 1)."""
        return system_of(self).is_binary


def system_of(config: HDSConfig) -> System:
    """The config's system.

    Raises:
      InvalidValue: for a name that is none, or a triple that encodes no f, with the reason.
    """
    return named_system(config.task, config.d, config.s)


def operator_of(config: HDSConfig) -> np.ndarray:
    """f of the config's system, ``(d, s·d)``.

    Raises:
      InvalidValue: as :func:`system_of`, and for a system whose f is not linear.
    """
    operator = system_of(config).operator
    require(operator is not None, "task", config.task, "a system whose f is linear")
    return operator


def responses(operator: np.ndarray, horizon: int) -> np.ndarray:
    """What each of the next vectors owes to the s first ones: x(s + t) = R_t (x(0), …, x(s − 1)).

    operator ``(d, s·d)`` -> R ``(horizon, d, s·d)``, float64.
    """
    return np.stack(list(itertools.islice(_responses(operator), horizon)))


def _responses(operator: np.ndarray) -> Iterator[np.ndarray]:
    """R_0, R_1, … without end."""
    size, width = operator.shape
    substrate = np.eye(width)
    while True:
        newest = operator @ substrate
        yield newest
        substrate = np.concatenate([substrate[size:], newest])


def spread(made: np.ndarray) -> np.ndarray:
    """The root mean square over the elements of each next vector, where those of the first s are of mean 0 and
    variance 1: R ``(H, d, s·d)`` -> ``(H,)``."""
    return np.sqrt(np.square(made).sum(axis=-1).mean(axis=-1))


def step_scale(config: HDSConfig) -> np.ndarray:
    """What :func:`hds_task` divides the vectors by, ``(horizon,)``: 1 for binary ones, else how a series grows."""
    if config.is_binary:
        return np.ones(config.horizon)
    return spread(responses(operator_of(config), config.horizon))


def gone_on(system: System, first: Array, horizon: int) -> Array:
    """The system's next vectors, step by step: ``(B, s, d)`` -> ``(B, H, d)``."""

    def step(history: Array, _: None) -> tuple[Array, Array]:
        newest = system.f(history)
        return jnp.concatenate([history[:, 1:], newest[:, None]], axis=1), newest

    return jnp.swapaxes(jax.lax.scan(step, first, length=horizon)[1], 0, 1)


def longest_horizon(operator: np.ndarray) -> int:
    """The steps over which the series stays within float32, 10,000 at most."""
    if np.abs(operator).sum(axis=-1).max() <= 1:
        return LONGEST  # No element is ever larger than the largest before it.
    for step, response in enumerate(itertools.islice(_responses(operator), LONGEST)):
        if np.sqrt(np.square(response).sum(axis=-1).max()) > LARGEST:
            return step
    return LONGEST


def hds_task(config: HDSConfig) -> Task:
    """A history-dependent dynamical system as data, loss and metrics::

        x(t) = f( x(t−1), …, x(t−s) ),   t ≥ s;   x(0) … x(s−1) random

    Inputs ``(B, s + H, d)``: the s first vectors, then nothing (zeros); outputs are read in the H steps of nothing,
    where x(s), x(s + 1), … are due. Binary systems have vectors of ±1, the others of N(0, 1).

    In training H is the longest of the curriculum, and a level's own steps alone count. Metrics over the horizon:

    - ``test_mse``: the squared error, of a growing series at each step relative to the mean square of x(t);
    - ``test_acc``: the share of signs that are right. Who remembers nothing has half of them; of logic, whose values
      are more often of one sign than of the other, as much as their means say (:func:`wrnn_jax.theory.moments`).

    What a linear network can do of a nonlinear f. Of ``xor`` and ``add`` the best linear f is 0: no element of a sum
    goes with any one of the signs that are added. Over a horizon ``xor`` repeats after s + 1 steps, of which s are
    copies: a linear network can have these right, all but 1/(s + 1) of the error, and half of those signs by chance.

    Solved asks for both, on 512 sequences. Of binary vectors: every sign right, and a ``test_mse`` below that of one
    who remembers nothing. Signs alone would not do: the values of a linear network whose spectral radius is above 1 may
    grow and grow with their signs right, until the numbers end. Of real ones: a ``test_mse`` of at most 1e-4, and 99 %
    of the signs right.

    Source: Karuvally et al. 2024, section 4 and appendix; the curriculum as in the authors' experiments.
    """
    system, (s, d) = system_of(config), (config.s, config.d)
    longest = max(config.horizon, config.curriculum[-1])
    scale = np.ones(longest)
    if system.operator is not None:
        made = responses(system.operator, longest)
        scale = spread(made)
        relative = jnp.asarray(made / scale[:, None, None], jnp.float32)
    scale = jnp.asarray(scale, jnp.float32)
    levels = jnp.asarray(config.curriculum)
    draw = jax.random.rademacher if system.is_binary else jax.random.normal
    mean = moments(system, config.horizon).mean
    chance = {"test_mse": float((1 - mean**2).mean()), "test_acc": float((1 + np.abs(mean)).mean() / 2)}

    def generate(key: Key, size: int, horizon: int) -> tuple[Array, Array]:
        """Inputs ``(B, s + H, d)`` and what is due ``(B, H, d)``, each step relative to its own scale."""
        first = draw(key, (size, s, d), jnp.float32)
        if system.operator is None:
            due = gone_on(system, first, horizon)
        else:
            due = jnp.einsum("hik,bk->bhi", relative[:horizon], first.reshape(size, s * d), precision="highest")
        return jnp.concatenate([first, jnp.zeros((size, horizon, d))], axis=1), due

    def answers(outputs: Array) -> Array:
        """What was said in the steps of nothing, on the scale of what is due: ``(B, s + H, d)`` -> ``(B, H, d)``."""
        said = outputs[:, s:]
        return said / scale[None, : said.shape[1], None]

    def batch(source: Source, key: Key, progress: Progress, size: int) -> tuple[Array, tuple[Array, Array]]:
        inputs, due = generate(jax.random.fold_in(key, progress.step), size, config.curriculum[-1])
        counts = jnp.arange(config.curriculum[-1]) < levels[progress.level]
        return inputs, (due, jnp.broadcast_to(counts, due.shape[:2]).astype(due.dtype))

    def mean_over_level(values: Array, counts: Array) -> Array:
        """Of values ``(B, H, d)`` at the steps that count, ``(B, H)`` of 0 and 1."""
        return (values.mean(axis=-1) * counts).sum() / counts.sum()

    def loss(outputs: Array, targets: tuple[Array, Array]) -> Array:
        due, counts = targets
        return mean_over_level(jnp.square(answers(outputs) - due), counts)

    def share_right(outputs: Array, targets: tuple[Array, Array]) -> Array:
        due, counts = targets
        return mean_over_level(right(answers(outputs), due), counts)

    def metrics(outputs: Array, due: Array) -> dict[str, Array]:
        said = answers(outputs)
        squares, rights = jnp.square(said - due), right(said, due)
        return {"test_mse": squares.mean(axis=(1, 2)), "test_acc": rights.mean(axis=(1, 2))}

    def solved(metrics: Mapping[str, float]) -> bool:
        error, signs = metrics["test_mse"], metrics["test_acc"]
        if system.is_binary:
            return signs == 1.0 and error < chance["test_mse"]
        return signs >= SOLVED_SIGNS and error <= SOLVED_MSE

    return Task(
        Signature(d, d, config.shape[0]),
        batch=batch,
        loss=loss,
        splits={"test": held_out(lambda key, size: generate(key, size, config.horizon), TEST_SIZE, metrics)},
        monitor="test_mse",
        chance=chance,
        solved=solved,
        curriculum=Curriculum(len(config.curriculum), share_right, config.mastery),
    )


def right(said: Array, due: Array) -> Array:
    """1.0 where the sign is right, else 0.0; 0 counts as negative, so that a silent network guesses."""
    return ((said > 0) == (due > 0)).astype(jnp.float32)
