"""An experiment as settings, field -> value: what holds by default, what a preset names, what was given, and the config
that they come to."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from experiments.presets import Preset, Settings
from wrnn_jax import models
from wrnn_jax.models import MODELS
from wrnn_jax.tasks import Task
from wrnn_jax.training.rundir import UNCHANGING
from wrnn_jax.training.state import TrainState
from wrnn_jax.training.stored import FORMER
from wrnn_jax.validation import InvalidValue, require, require_choice, require_integer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.parts import Example, Parts


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where the run is kept, and whether it goes on from what is there."""

    logdir: str | None = None
    """The run directory (if not given: a readable name below runs/)."""
    resume: bool = False
    """Continue the run that the run directory holds, from its newest whole checkpoint; begin it if there is none."""
    preset: str | None = None
    """Defaults from the paper, see --list-presets. Flags given beside it win."""
    list_presets: bool = False
    """Only print the presets: a command for each published row."""
    eval_only: bool = False
    """Only evaluate the newest whole checkpoint of the run directory, and print its metrics."""
    seeds: int = 1
    """How many seeds, from --seed on: members of a grid, as are the values of --grid.FLAG."""
    grid_chunk: int | None = None
    """Members of a grid that are trained at once (if not given: as many as fit into memory)."""
    yes: bool = False
    """Train a grid of more than 100 members."""
    distributed: bool = False
    """Share a grid's members with other processes, on this host or others, that are started alike."""
    coordinator: str | None = None
    """Of --distributed: host:port of process 0 (if not given: as SLURM, GKE, Open MPI or a TPU pod says)."""
    num_processes: int | None = None
    """Of --distributed: how many processes there are."""
    process_id: int | None = None
    """Of --distributed: the number of this one, from 0 on."""

    def __post_init__(self):
        # JAX and Orbax hand names of files to libraries that take UTF-8 alone.
        folder = str(Path(self.logdir or "runs").absolute())
        is_utf8 = folder == folder.encode("utf-8", "replace").decode()
        require(is_utf8, "logdir", folder, "below folders whose names are UTF-8 (in the locale C: set PYTHONUTF8=1)")
        if self.grid_chunk is not None:
            require_integer("grid_chunk", self.grid_chunk, at_least=1)


class Experiment(NamedTuple):
    """``python3 -m experiments.<name>``.

    ==========================  ================================================================
    ``config``                  a dataclass with sections ``task``, ``model``, ``train``, ``run``
    ``make_task(config.task)``  -> the task
    ``stem(config.task)``       -> how the name of a run's folder begins
    ``draw(config, example)``   -> the figure of an example
    ``presets``                 settings from the paper
    ``measure(parts, state)``   -> what else a run's summary says of its parameters
    ``pictures(parts, state)``  -> further figures of a run, by name
    ``chance(config.task)``     -> the task's, where that is known without its data
    ``model``                   the model, if none is named
    ``defaults``                type or name of a model -> settings in place of its own defaults
    ==========================  ================================================================
    """

    name: str
    config: type
    make_task: Callable[[Any], Task]
    stem: Callable[[Any], str]
    draw: Callable[[Any, "Example"], "Figure"]
    presets: Mapping[str, Preset]
    measure: Callable[["Parts", TrainState], dict[str, Any]] = lambda parts, state: {}
    pictures: Callable[["Parts", TrainState], dict[str, "Figure"]] = lambda parts, state: {}
    chance: Callable[[Any], Mapping[str, float]] | None = None
    model: str = "wrnn"
    defaults: Mapping[type | str, Settings] = MappingProxyType({})

    def baselines(self, task: Any) -> Mapping[str, float]:
        """What a network that remembers nothing scores in the task that the flags describe."""
        return self.chance(task) if self.chance else self.make_task(task).chance

    @property
    def program(self) -> str:
        """As one types it."""
        return f"python3 -m experiments.{self.name}"

    def sections(self, model: str) -> dict[str, type]:
        """Section of a config of that model -> its type.

        Raises:
          InvalidValue: for a name that is no model, or one whose fields are flags of other sections too.
        """
        own = models.entry(model).config
        try:
            fields_of(own)
        except Exception as error:  # Of one's own, annotations may be anything.
            raise InvalidValue("model", model, f"one whose fields' types can be read ({error})") from error
        types = get_type_hints(self.config) | {"model": own}
        others = {field: name for name, kind in types.items() if name != "model" for field in fields_of(kind)}
        for field in _fields(own):
            allowed = f"one whose fields are no flags of the {others.get(field.name)} section: {field.name} is one"
            require(field.name not in others, "model", model, allowed)
            has_default = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
            require(has_default, "model", model, f"one whose fields have defaults: {field.name} has none")
            allowed = f"one whose fields are numbers, words, True or False, or tuples of them: {field.name} is not"
            require(_is_plain(fields_of(own)[field.name]), "model", model, allowed)
        return types

    def usual(self, model: str) -> Settings:
        """All settings of a config of that model, where nothing is given."""
        known = models.entry(model)
        fields = (field for kind in self.sections(model).values() for field in _fields(kind))
        usual = {field.name: _default(field) for field in fields}
        for of_what, settings in self.defaults.items():
            if isinstance(of_what, type) and issubclass(known.config, of_what):
                usual |= settings
        return {**usual, **known.defaults, **self.defaults.get(model, {}), "model": model}

    def model_of(self, given: Settings) -> str:
        """The model that is named, or that the preset is of."""
        preset = self.preset_of(given)
        return given.get("model") or (preset and preset.defaults.get("model")) or self.model

    def preset_of(self, given: Settings) -> Preset | None:
        """The preset that is named.

        Raises:
          InvalidValue: if there is none of that name.
        """
        name = given.get("preset")
        if name is None:
            return None
        require_choice("preset", name, self.presets)
        return self.presets[name]

    def settle(self, given: Settings) -> Settings:
        """All settings: the defaults, beside them the preset's, and what was given, which wins.

        Raises:
          InvalidValue: for a field that the model has not, and as the preset does.
        """
        preset, model = self.preset_of(given), self.model_of(given)
        usual = self.usual(model)
        for field, value in given.items():
            require(field in usual, field, value, left_out(model, field))
        if preset is None:
            return {**usual, **given}
        own = preset.defaults.get("model", model)
        require(model == own, "model", model, f"left out, or {own}, which --preset {given['preset']} is of")
        before = {**usual, **preset.defaults, **given}
        return {**before, **preset.settings(before), **given}

    def configure(self, given: Settings) -> Any:
        """The config that :meth:`settle` comes to; raises ``InvalidValue`` for what a section refuses as well."""
        settings = self.settle(given)
        types = self.sections(settings["model"])
        make = types | {"model": models.configure}
        return self.config(**{name: make[name](**_own(kind, settings)) for name, kind in types.items()})


def left_out(model: str, field: str) -> str:
    """What is allowed for a field that a model has not."""
    return f"left out: {model} has no {field.replace('_', '-')} (flags of {model}: --help --model {model})"


def some_models_fields() -> set[str]:
    """Fields that some of the named models have."""
    return {field for entry in MODELS.values() for field in fields_of(entry.config)}


@functools.cache
def fields_of(section: type) -> Mapping[str, Any]:
    """The fields of a section -> their types."""
    hints = get_type_hints(section)
    return {field.name: hints[field.name] for field in _fields(section)}


def readable_name(experiment: Experiment, config: Any) -> str:
    """A run's folder name: the task's own part, model, size, learning rate, clip, seed, and whatever
    else is not as it is by default."""
    model, train = config.model, config.train
    sizes = {"n": "n_hid", "c": "n_ch"}
    sizes = [f"{letter}{size}" for letter, field in sizes.items() if (size := getattr(model, field, None)) is not None]
    name = model.model.replace(":", "-")
    parts = [experiment.stem(config.task), name, *sizes, f"lr{train.lr:g}", f"clip{train.grad_clip:g}"]
    usual = experiment.configure({"model": model.model})
    named = {"T", "dataset", "task", "n_hid", "n_ch", "lr", "grad_clip", "seed", *UNCHANGING}
    for section in ("task", "model", "train"):
        now, default = getattr(config, section), getattr(usual, section)
        # Folders are found again by their names: what they name keeps its order.
        for field in sorted(_own(type(now), vars(now)), key=lambda field: (*FORMER, field).index(field)):
            value = getattr(now, field)
            if field not in named and value != getattr(default, field):
                parts.append(f"{field}-{value}".replace("_", "-"))
    return "_".join([*parts, f"seed{train.seed}"])


def _fields(section: type) -> list[dataclasses.Field]:
    """Those that it is made from."""
    return [field for field in dataclasses.fields(section) if field.init]


def _is_plain(hint: Any) -> bool:
    """Whether values of that type can be flags and JSON."""
    if get_origin(hint) in (Union, UnionType, tuple):
        return all(map(_is_plain, get_args(hint)))
    return get_origin(hint) is Literal or hint in (int, float, bool, str, NoneType, Ellipsis)


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _own(kind: type, settings: Settings) -> dict[str, Any]:
    """Those that are a section's."""
    return {field: settings[field] for field in fields_of(kind)}
