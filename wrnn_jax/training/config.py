"""How to train, as flags: in optimiser steps, or in epochs where there are any."""

from dataclasses import dataclass, replace

from wrnn_jax.training.optimizer import BY_EPOCHS, DECAYS, PLATEAUS, SCHEDULES, Hparams, make_hparams
from wrnn_jax.validation import (
    LARGEST_INTEGER,
    InvalidValue,
    require,
    require_choice,
    require_integer,
    require_nonnegative,
    require_positive,
)

LR_FACTORS = {
    "step": 10.0,
    "exponential": 1 / 0.97,
    "one-cycle": 25.0,
    "plateau": 10.0,
    "one-cycle-momentum": 25.0,
    "exponential-epochs": 1 / 0.97,
    "plateau-accuracy": 10.0,
}
"""The factor of the schedules that have one, if none is given."""
LR_PERIODS = {"plateau": 10.0, "exponential-epochs": 1.0, "plateau-accuracy": 5.0}
"""The period, if none is given, of those that can do without; where it is none of these, the whole run."""
WHOLE_RUN = ("cosine", "one-cycle", "one-cycle-momentum")


@dataclass(frozen=True)
class TrainConfig:
    """How to train."""

    lr: float = 1e-3
    """Adam's learning rate."""
    batch: int = 128
    """Sequences in a batch."""
    max_steps: int = 60_000
    """Optimiser steps, if nothing ends the run earlier."""
    grad_clip: float = 1.0
    """Largest global norm of a gradient; 0 = off."""
    weight_decay: float = 0.0
    """The factor of the weight decay of all parameters but those that a model exempts."""
    weight_decay_kind: str = "l2"
    """l2 | decoupled: the factor of an L2 penalty, half of it times the squared norm, whose gradient goes through Adam;
    or of AdamW's decay, by which, times the learning rate, parameters shrink at every step."""
    loss_divisor: float | None = None
    """What the loss is divided by before its gradient is clipped and goes to Adam; metrics are of the loss itself. (If
    not given: 1; for copy --variant authors the batch, as their program has it.)"""
    schedule: str = "constant"
    """Of the learning rate: constant | step | exponential | cosine | one-cycle | plateau | one-cycle-momentum (which
    cycles Adam's beta1 as well)."""
    lr_factor: float | None = None
    """What the schedule divides by, above 1 (if not given: 10; exponential… 1/0.97; one-cycle… 25)."""
    lr_period: float | None = None
    """Steps from one division to the next, or for cosine and one-cycle… to the end (if not given: the whole run);
    for plateau: evaluations without improvement (if not given: 10). Epochs, not steps, where there are epochs."""
    warmup: int = 0
    """Optimiser steps (also where there are epochs) over which the learning rate first rises linearly to what the
    schedule begins with; the schedule begins after them, and the whole run is then what is left of it."""
    seed: int = 0
    """Seed of the parameters' start and of the training data, a whole number from 0 to 2^31 - 1."""
    log_interval: int = 100
    """Steps between two evaluations, each a row of metrics."""
    checkpoint_interval: int = 500
    """Steps between two checkpoints."""
    keep_checkpoints: int = 3
    """The newest checkpoints that are kept; 0 = all."""
    patience: int | None = None
    """Stop after so many evaluations in a row that have not lowered the watched loss (if not given: never)."""
    stop_below: float | None = None
    """Stop once the watched loss is below this. If not given: once the task is solved; 0 = never."""

    def __post_init__(self):
        require_positive("lr", self.lr)
        require_integer("batch", self.batch, at_least=1)
        if self.max_steps is not None:
            require_integer("max_steps", self.max_steps, at_least=0)
        require_nonnegative("grad_clip", self.grad_clip)
        require_nonnegative("weight_decay", self.weight_decay)
        require_choice("weight_decay_kind", self.weight_decay_kind, DECAYS)
        if self.loss_divisor is not None:
            require_positive("loss_divisor", self.loss_divisor)
        require_choice("schedule", self.schedule, self._schedules())
        if self.lr_factor is not None:
            has_one = ", ".join(LR_FACTORS)
            require(self.schedule in LR_FACTORS, "lr_factor", self.lr_factor, f"left out: only for {has_one}")
            require_positive("lr_factor", self.lr_factor)
            require(self.lr_factor > 1, "lr_factor", self.lr_factor, "above 1: the learning rate is divided by it")
        if self.lr_period is not None:
            require(self.schedule != "constant", "lr_period", self.lr_period, "left out for a constant schedule")
            require_positive("lr_period", self.lr_period)
        needs_period = self.schedule in ("step", "exponential") and self.lr_period is None
        require(not needs_period, "lr_period", self.lr_period, f"given for --schedule {self.schedule}")
        require_integer("warmup", self.warmup, at_least=0)
        require_integer("seed", self.seed, at_least=0)
        for field in ("log_interval", "checkpoint_interval"):
            if getattr(self, field) is not None:
                require_integer(field, getattr(self, field), at_least=1)
        require_integer("keep_checkpoints", self.keep_checkpoints, at_least=0)
        if self.patience is not None:
            require_integer("patience", self.patience, at_least=1)
        if self.stop_below is not None:
            require_nonnegative("stop_below", self.stop_below)

    def _schedules(self) -> tuple[str, ...]:
        return tuple(name for name in SCHEDULES if name not in BY_EPOCHS)

    def resolved(self, epoch_steps: int | None, loss_divisor: float | None = None) -> "TrainConfig":
        """The config with nothing left open: what was not given is what it stands for.

        Args:
          epoch_steps: optimiser steps of an epoch; None where there are no epochs.
          loss_divisor: the task's own; None is 1.
        """
        whole_run = (self.max_steps - self.warmup) / (epoch_steps or 1)
        divisor = self.loss_divisor or loss_divisor
        periods = {**LR_PERIODS, **dict.fromkeys(WHOLE_RUN, max(whole_run, 1.0))}
        return replace(
            self,
            lr_factor=self.lr_factor or LR_FACTORS.get(self.schedule),
            lr_period=self.lr_period or periods.get(self.schedule),
            # None, as in runs that were begun when there was no such field.
            loss_divisor=None if divisor == 1 else divisor,
        )

    def hparams(self, epoch_steps: int | None) -> Hparams:
        """The traced hyper-parameters of a resolved config."""
        in_steps = 1 if self.schedule in PLATEAUS else epoch_steps or 1
        period = None if self.schedule == "constant" else self.lr_period * in_steps
        factor = None if self.schedule == "constant" else self.lr_factor
        numbers = (self.lr, self.grad_clip, factor, period, self.weight_decay, self.loss_divisor)
        return make_hparams(*numbers, self.warmup)


@dataclass(frozen=True)
class EpochsConfig(TrainConfig):
    """How to train on a set that epochs go through."""

    epochs: int = 120
    """Times through the training set."""
    schedule: str = "constant"
    """Of the learning rate: constant | step | exponential | cosine | one-cycle | plateau; as the authors' framework has
    them: one-cycle-momentum (cycles Adam's beta1 as well) | exponential-epochs (falls once an epoch) | plateau-accuracy
    (of the validation accuracy; lr-period is its patience, 5 if not given, and 5 evaluations after a drop do not
    count)."""
    max_steps: int | None = None
    """Optimiser steps, where the run is to end before those epochs."""
    log_interval: int | None = None
    """Steps between two evaluations on the validation set, each a row of metrics (if not given: an epoch)."""
    checkpoint_interval: int | None = None
    """Steps between two checkpoints (if not given: an epoch)."""

    def __post_init__(self):
        super().__post_init__()
        require_integer("epochs", self.epochs, at_least=0)

    def _schedules(self) -> tuple[str, ...]:
        return tuple(SCHEDULES)

    def resolved(self, epoch_steps: int | None, loss_divisor: float | None = None) -> "EpochsConfig":
        if epoch_steps is None:
            raise InvalidValue("epochs", self.epochs, "left out: the task has none")
        steps = self.epochs * epoch_steps
        steps = steps if self.max_steps is None else min(steps, self.max_steps)
        most = LARGEST_INTEGER // epoch_steps
        require(steps <= LARGEST_INTEGER, "epochs", self.epochs, f"{most} at most: each is of {epoch_steps} steps")
        in_steps = replace(
            self,
            max_steps=steps,
            log_interval=self.log_interval or epoch_steps,
            checkpoint_interval=self.checkpoint_interval or epoch_steps,
        )
        return super(EpochsConfig, in_steps).resolved(epoch_steps, loss_divisor)
