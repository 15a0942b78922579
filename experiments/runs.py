"""Runs that are there already: from a run directory back to its config, network and states."""

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from experiments import adding, copy, hds, language, nscifar10, psmnist, recall, selective, smnist
from experiments.experiment import assemble
from experiments.parts import Parts
from experiments.settings import Experiment, fields_of, readable_name
from wrnn_jax.datasets import STORED
from wrnn_jax.jsonfiles import is_number
from wrnn_jax.models import entry
from wrnn_jax.training.stored import FORMER, read_config, read_metrics, read_summary
from wrnn_jax.validation import InvalidValue

EXPERIMENTS = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (copy, selective, recall, adding, smnist, psmnist, nscifar10, hds, language)
}


class Run(NamedTuple):
    """A run directory, read."""

    path: Path
    experiment: Experiment
    config: Any

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of its ``metrics.jsonl``."""
        return read_metrics(self.path)

    @property
    def summary(self) -> dict[str, Any]:
        """Its ``summary.json``.

        Raises:
          InvalidValue: if there is none, or it cannot be read.
        """
        return read_summary(self.path)

    @property
    def short_name(self) -> str:
        """Model and task."""
        return f"{self.config.model.model}, {self.experiment.stem(self.config.task)}"

    @property
    def long_name(self) -> str:
        """All settings that are not as by default, without the seed."""
        return readable_name(self.experiment, self.config).rsplit("_seed", 1)[0]

    def parts(self) -> Parts:
        """Its task, model and trainer."""
        return assemble(self.experiment, self.config)


def open_run(path: Path, data_dir: str | None = None) -> Run:
    """What a run directory holds.

    Args:
      path: the folder.
      data_dir: where a set of images is prepared now, where the task is of one; if not given, where it was, or, if that
        folder is no longer there, where a training without ``--data-dir`` looks for it.

    Raises:
      InvalidValue: if it is none, or its config is not one of this version.
    """
    about = read_config(path)
    experiment = EXPERIMENTS.get(str(about.get("experiment")))
    if experiment is None:
        raise InvalidValue("runs", str(path), f"a run of {', '.join(EXPERIMENTS)}, not of {about.get('experiment')}")
    try:
        # How to go through time is not the run's business but this machine's: compiled kernels may not be there.
        stored = about["config"] | {"model": _own(about["config"]["model"])}
        _find_data(stored["task"], data_dir)
        kinds = experiment.sections(stored["model"]["model"])
        sections = {name: _section(kind, stored[name]) for name, kind in kinds.items()}
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidValue("runs", str(path), f"a run of this version ({error})") from error
    return Run(path, experiment, experiment.config(**sections))


def _own(model: Mapping[str, Any]) -> dict[str, Any]:
    """A stored model's own fields, but for how to go through time."""
    own = fields_of(entry(model["model"]).config)
    return {name: value for name, value in model.items() if name != "backend" and (name in own or name not in FORMER)}


def _section(kind: type, fields: Mapping[str, Any]) -> Any:
    """A section of a config; raises ``TypeError`` for a field that is none or whose value is of another type."""
    hints = fields_of(kind)
    for field, value in fields.items():
        if field in hints and not _is_of(value, hints[field]):
            raise TypeError(f"{field} = {value!r}")
    return kind(**fields)


def _is_of(value: Any, hint: Any) -> bool:
    """Whether JSON's value is of a field's type, as far as JSON knows such types."""
    if get_origin(hint) in (Union, UnionType):
        return any(_is_of(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_is_of(item, get_args(hint)[0]) for item in value)
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and is_number(value)
    return not isinstance(hint, type) or isinstance(value, hint)


def _find_data(task: dict[str, Any], data_dir: str | None) -> None:
    """Point a stored task to its data, if it has any from outside."""
    if task.get("dataset") in STORED or task.get("text", "") is None:
        before = task.get("data_dir")
        task["data_dir"] = data_dir or (before if before and Path(before).is_dir() else None)


def grouped(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs that differ in nothing but the seed together, by their short name where that tells the groups apart."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(f"{run.experiment.name} {run.long_name}", []).append(run)
    short = [members[0].short_name for members in groups.values()]
    if len(set(short)) == len(groups):
        return dict(zip(short, groups.values(), strict=True))
    return {members[0].long_name: members for members in groups.values()}
