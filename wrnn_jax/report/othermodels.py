"""What the second paper has no table of: other models, and other systems, in its experiment."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from wrnn_jax.report.metrics import MSE, PARAMS, RADIUS, RIGHT_SIGNS, SOLVED
from wrnn_jax.report.papertables import Line, PaperTable
from wrnn_jax.report.runs import Run

EXPERIMENT = "hds"
KEYS = ("task", "model", "n_hid", "n_ch", "horizon", "weight_decay")
"""What makes a line."""
TITLE = "Traveling-wave working memory: other models and systems"
CAPTION = (
    "Ours alone; the Elman RNN (srnn) on T1 to T4 is in the table above. hidden: neurons, or those of a channel × "
    "channels; of twm… the columns. Accuracy: the share of right signs over the horizon; the best seed is picked by "
    "this very number. Spectral radius: of the network's linear form at 0; above 1 a linear network, as twm-lbc, grows "
    "without bound, however long its signs stay right. Solved asks for signs and a bounded error."
)


def other_models(runs: Sequence[Run]) -> PaperTable | None:
    """A table of ours alone, a line for each task, model, size, horizon and L2 penalty; None without such a run.

    Args:
      runs: those of no other table. One that does not say all of these is in no line.
    """
    setups = sorted({_setup(run.known) for run in runs if _has_setup(run.known)})
    if not setups:
        return None
    return PaperTable(
        "hds-others",
        TITLE,
        CAPTION,
        EXPERIMENT,
        ("model", "hidden", "horizon", "L2"),
        (RIGHT_SIGNS, MSE, RADIUS, SOLVED, PARAMS),
        tuple(_line(setup, [other for other in setups if other[0] == setup[0]]) for setup in setups),
        names="task",
        scope=dict(zip(KEYS[:2], zip(*setups, strict=True), strict=False)),
        length="max_steps",
        told=("schedule", "init"),
    )


def _setup(known: Mapping[str, Any]) -> tuple:
    return tuple({**known, "n_ch": known.get("n_ch") or 1}[key] for key in KEYS)


def _has_setup(known: Mapping[str, Any]) -> bool:
    if known["experiment"] != EXPERIMENT or not known.keys() >= set(KEYS) - {"n_ch"}:
        return False
    kinds = (str, str, Real, Real, Real, Real)
    return all(isinstance(value, kind) for value, kind in zip(_setup(known), kinds, strict=True))


def _line(setup: tuple, of_its_task: Sequence[tuple]) -> Line:
    """Its curve is named by its model, and by what else tells it from others of its task."""
    facts = _facts(setup)
    differs = [len(set(values)) > 1 for values in zip(*map(_facts, of_its_task), strict=True)]
    forms = ("{}", "{} hidden", "horizon {}", "L2 {}")
    words = [form.format(fact) for form, fact, told in zip(forms, facts, [True, *differs[1:]], strict=True) if told]
    wants = {"experiment": EXPERIMENT, "use_bias": (None, False, True), **dict(zip(KEYS, setup, strict=True))}
    if wants["n_ch"] == 1:
        wants["n_ch"] = (None, 1)  # Not all models have channels.
    return Line(setup[0], wants, {}, facts, figure=setup[0], label=", ".join(words), full=0)


def _facts(setup: tuple) -> tuple[str, ...]:
    _, model, hidden, channels, horizon, penalty = setup
    size = str(hidden) if channels == 1 else f"{hidden} × {channels}"
    return model, size, str(horizon), f"{penalty:g}"
