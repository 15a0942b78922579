"""Which runs a cell of a table shows: those that fit it, in groups that differ in the seed alone; chosen by length."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from wrnn_jax.models import MODELS
from wrnn_jax.report.runs import Run
from wrnn_jax.training.rundir import UNCHANGING
from wrnn_jax.training.stored import FORMER, MEASUREMENTS

FINISHED, INTERRUPTED, DIVERGED = "finished", "interrupted", "diverged"
STATES = {
    "solved": FINISHED,
    "below the loss asked for": FINISHED,
    "out of patience": FINISHED,
    "complete": FINISHED,
    "interrupted": INTERRUPTED,
    "diverged": DIVERGED,
}
"""What a run's ``status`` means for a table."""
MEASURED = {
    *MEASUREMENTS, "seed", "status", "solved_step", "best_step", "steps", "epochs_done", "params", "seconds",
    "steps_per_second", "device", "experiment", "level", "eigenvalues_kept", "eigenvalues_theory",
    "spectral_radius", "linear_mse",
}  # fmt: skip
"""Keys that say what came of a run, not how it was set."""
MEASURED_WORDS = ("test_", "val_", "train_", "memoryless_")
OF_NO_ACCOUNT = UNCHANGING - {"max_steps", "epochs", "stop_below", "patience"}
"""Fields that change neither what a step computes nor when a run ends."""


NEUTRAL = {
    "n_layers": 1,
    "norm": "none",
    "residual": False,
    "dropout": 0,
    "pooling": "last",
    "encoder": "dense",
    "encoder_rank": None,
    "encoder_taps": None,
    "encoder_colors": None,
    "freeze_encoder": False,
    "freeze_recurrence": False,
    "speed": None,
    "warmup": 0,
    "weight_decay_kind": "l2",
}
"""What a field is where a run does not say it, as none does that was trained before there was such a field; and what it
is of all that the papers' tables have."""
DIFFERS = {
    "freeze_encoder": "encoder frozen",
    "freeze_recurrence": "recurrence frozen",
    "speed": "waves of speed {} at the start",
}
"""How the report says that it is something else, where that is not said by name and value."""


class Group(NamedTuple):
    """Runs that differ in their seed alone, by seed; and in what a table takes the better of, seed by seed."""

    runs: tuple[Run, ...]
    settings: Mapping[str, Any]
    state: str
    """``FINISHED``, ``INTERRUPTED`` or ``DIVERGED``: of all of them."""

    def values(self, key: str, of_seed: Callable[[list[Any]], Any] | None = None) -> list[Any]:
        """What their summaries say; None where a summary does not, or has a number that is not finite.

        With ``of_seed`` (max or min) a value for each seed: that of its runs which have one."""
        if of_seed is None:
            return [run.summary.get(key) for run in self.runs]
        by_seed = defaultdict(list)
        for run in self.runs:
            by_seed[run.summary.get("seed")].append(run.summary.get(key))
        known = ([value for value in values if value is not None] for values in by_seed.values())
        return [of_seed(values) if values else None for values in known]

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len({run.summary.get("seed") for run in self.runs})

    def length(self, key: str) -> float:
        """The mean of ``steps``, ``epochs_done`` or ``max_steps``."""
        return mean(self.values(key))


def settings(run: Run) -> dict[str, Any]:
    """All that decides what a run does, but the seed: what its summary says, and its config beside that.

    How many steps a run was asked for is a setting; how many it made is one only where the former is unknown.
    """
    known = {**run.known, "speed": _speed(run)}
    # As if a field were not there.
    known = {key: value for key, value in known.items() if value is not None and value != NEUTRAL.get(key)}
    entry = MODELS.get(known.get("model"))
    if entry:
        own = entry.config.__dataclass_fields__
        known = {key: value for key, value in known.items() if key in own or key not in FORMER}
    kept = {key: value for key, value in known.items() if not _is_measured(key) and key not in OF_NO_ACCOUNT}
    if kept.get("max_steps") is None and kept.get("epochs") is None:
        kept["steps"] = run.summary.get("steps")
    return kept


def _speed(run: Run) -> Any:
    """Of the waves at the start; None where it is 1 in all channels, said or not."""
    speed = run.known.get("speed")
    each = speed if isinstance(speed, list | tuple) else [speed]
    return None if all(one in (None, 1) for one in each) else speed


def _is_measured(key: str) -> bool:
    return key in MEASURED or key.startswith(MEASURED_WORDS)


def misfits(run: Run, wants: Mapping[str, Any], measured: Collection[str]) -> list[str]:
    """Why a run does not belong in a cell; nothing if it does.

    Args:
      run: the run.
      wants: key of the summary or config -> the value it must have; a tuple: one of them, None being that of a run
        which says nothing of it; ``...``: any, but known.
      measured: keys of the summary that must be finite numbers.
    """
    reasons = [reason for key, wanted in wants.items() if (reason := _misfit(run.known, key, wanted))]
    known = {**run.known, "speed": _speed(run)}
    for key, neutral in NEUTRAL.items():
        value = known.get(key)
        if key not in wants and value is not None and value != neutral:
            reasons.append(DIFFERS.get(key, f"{key} = {{}}").format(value))
    if run.known.get("use_bias") is False and "use_bias" not in wants:
        reasons.append("without biases")
    if run.summary.get("status") not in STATES:
        reasons.append(f"status {run.summary.get('status', 'unknown')}")
    return reasons + [f"no finite {key}" for key in sorted(measured) if run.summary.get(key) is None]


def _misfit(known: Mapping[str, Any], key: str, wanted: Any) -> str | None:
    allowed = wanted if isinstance(wanted, tuple) else (wanted,)
    if key not in known:
        return None if None in allowed else f"{key} unknown"
    if wanted is ... or known[key] in allowed:
        return None
    return f"{key} = {known[key]}, not {' or '.join(map(str, allowed))}"


def grouped(runs: Iterable[Run], over: Collection[str] = ()) -> list[Group]:
    """The runs in groups of the same settings and state; a seed's second run begins, or joins, a second group.

    Args:
      runs: the runs.
      over: settings in which the runs of a seed may differ within a group, such as a threshold of which a paper takes
        the better, seed by seed.
    """
    groups, occurrences = defaultdict(list), defaultdict(int)
    for run in sorted(runs, key=lambda run: run.name):
        alike = {name: value for name, value in settings(run).items() if name not in over}
        key = json.dumps(alike, sort_keys=True), STATES[run.summary["status"]]
        once = (*key, run.summary.get("seed"), *(run.known.get(name) for name in over))
        groups[(*key, occurrences[once])].append(run)
        occurrences[once] += 1
    return [
        Group(tuple(sorted(members, key=lambda run: run.summary.get("seed") or 0)), json.loads(alike), state)
        for (alike, state, _), members in groups.items()
    ]


def choose(groups: Sequence[Group], length: str) -> Group | None:
    """The group that a table shows: finished rather than not, then trained longest (``length`` names the key: steps or
    epochs_done; max_steps where the end itself is a result), then most seeds, then last by name. What it scores plays
    no part."""
    states = (DIVERGED, INTERRUPTED, FINISHED)

    def rank(group: Group) -> tuple:
        name = max(run.name for run in group.runs)
        return states.index(group.state), group.length(length), group.seeds, name

    return max(groups, key=rank, default=None)


def others_of_settings(group: Group, groups: Sequence[Group]) -> dict[str, int]:
    """State -> how many runs of the same settings ended in it and are therefore not in the group."""
    counts = defaultdict(int)
    for other in groups:
        if other.settings == group.settings and other.state != group.state:
            counts[other.state] += len(other.runs)
    return dict(counts)
