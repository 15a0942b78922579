"""A grid from the command line: ``--grid.NAME v1 v2 …`` and ``--seeds N`` become members, each an ordinary config."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from experiments import flags
from experiments.flags import field_of
from experiments.presets import Settings
from experiments.settings import Experiment, fields_of, left_out, some_models_fields
from wrnn_jax.training.rundir import UNCHANGING
from wrnn_jax.validation import LARGEST_INTEGER, InvalidValue, number, require, require_integer

PREFIX = "--grid."
TRACED = ("lr", "grad_clip", "lr_factor", "lr_period", "weight_decay", "loss_divisor", "warmup", "seed")
"""Fields that only change numbers: one compiled program serves all their values."""
LIMIT = 100
"""More members than this are trained only where ``--yes`` is given."""
MOST = 10_000
"""And more than this never."""
KINDS: Mapping[type, tuple[str, Callable[[str], Any]]] = {
    int: ("a whole number", int),
    float: ("a number", number),
    bool: ("True or False", {"True": True, "False": False}.__getitem__),
    str: ("a word", str),
}
"""Of values: what they are, and how they are read."""

HELP = """Flags of the task, the model and training take several values with --grid. before them: --grid.lr 1e-2 1e-3
--grid.T 30 80 --seeds 3 trains every combination in one process. A value that is several numbers has commas between
them: --grid.curriculum 10,20 10,20,40."""

Axes = dict[str, Sequence]


class Member(NamedTuple):
    """One run of a grid."""

    settings: Settings
    """Field -> this member's value, in the order of :attr:`Grid.axes`."""
    config: Any
    """What the same command line gives with these values as single flags."""


class Grid(NamedTuple):
    """All runs of a command line."""

    axes: Axes
    """Field of the config -> its values, both in the order given. ``seed`` is always there, and last."""
    members: tuple[Member, ...]
    """The product of the axes: static fields outermost, then :data:`TRACED` ones, the seed innermost."""
    base: Any
    """The config without ``--grid.…``. Where that is refused (a schedule may need a period that only the
    grid gives), it has the first value of each."""


def expand(experiment: Experiment, arguments: Sequence[str]) -> Any:
    """The :class:`Grid` that a command line asks for; where it asks for a single run, its config.

    Axes come from ``--grid.NAME v1 v2 …``, from ``--seeds N``, which stands for ``--seed`` and the N − 1 after it, and
    from a preset that has a grid: beside it ``--grid.NAME`` replaces its axis, and ``--NAME`` takes it out.

    Args:
      experiment: whose flags.
      arguments: as on the command line.

    Raises:
      InvalidValue: for an axis without values, or with one that is there twice, is not of its field's type, or that
        the config refuses, by itself or in a combination; for a name that is no hyper-parameter, or none of a model of
        the grid, or is given as a single flag as well; for seeds below 1, or beyond those there are; for more than
        :data:`LIMIT` members without ``--yes``, and more than :data:`MOST` with it.
      SystemExit: as :func:`experiments.flags.read` does.
    """
    written, rest = split_arguments(arguments)
    models = written.get("model") or [flags.named_model(experiment, rest)]
    asked = _typed(written, _hyper_parameters_of_all(experiment, models, written))
    given = flags.read(experiment, rest, models, HELP)
    _refuse_contradictions(asked, given)
    line = _Line(experiment, given, asked)
    first = line.config(*map(_first, _by_program(asked)))
    base, from_preset = line.base(first), line.preset_axes(_first(asked))
    run = base.run
    require_integer("seeds", run.seeds, at_least=1)
    if not (asked or from_preset) and run.seeds == 1:
        return base

    require_integer("seeds", run.seeds, at_least=1, at_most=LARGEST_INTEGER + 1 - base.train.seed)
    seeds = range(base.train.seed, base.train.seed + run.seeds)
    axes = {"seed": seeds} | from_preset | asked
    axes["seed"] = axes.pop("seed")  # To its place, the last.
    count = math.prod(map(len, axes.values()))
    require(count <= LIMIT or run.yes, "grid", f"of {count} members", f"of {LIMIT} at most, or go with --yes")
    require(count <= MOST, "grid", f"of {count} members", f"of {MOST} at most")
    axes["seed"] = tuple(axes["seed"])
    return Grid(axes, tuple(line.members(axes, from_preset)), base)


def split_arguments(arguments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The grid's own arguments, field -> values as they are written, and all others.

    The values end where the next flag begins; a negative number is a value. ``--grid.NAME=VALUE`` has the one.

    Raises:
      InvalidValue: for a field that is given twice.
    """
    grid: dict[str, list[str]] = {}
    rest: list[str] = []
    taking = rest
    for argument in arguments:
        if argument.startswith(PREFIX):
            name, equals, value = argument.removeprefix(PREFIX).partition("=")
            field = field_of(name)
            require(field not in grid, f"grid.{field}", value, "given once, with all values")
            grid[field] = [value] if equals else []
            taking = rest if equals else grid[field]
        else:
            if argument.startswith("-") and not _is_number(argument):
                taking = rest
            taking.append(argument)
    return grid, rest


def groups(members: Iterable[Member]) -> list[tuple[Member, ...]]:
    """The members that one compiled program serves together, in the order of their first ones: their configs differ in
    :data:`TRACED` fields of ``train`` alone, and in ``run``."""
    found: dict[Any, list[Member]] = {}
    for member in members:
        config = member.config
        fixed = (field.name for field in dataclasses.fields(config.train) if field.name not in TRACED)
        program = config.task, config.model, *(getattr(config.train, name) for name in fixed)
        found.setdefault(program, []).append(member)
    return [tuple(group) for group in found.values()]


def hyper_parameters(sections: Mapping[str, type]) -> dict[str, Any]:
    """The fields of a config's sections that a grid may have -> their types: of task, model and training, without what
    only keeps the books, and what cannot be written as a word."""
    fields = {name: hint for part in ("task", "model", "train") for name, hint in fields_of(sections[part]).items()}
    return {name: hint for name, hint in fields.items() if name not in UNCHANGING and _can_be_read(hint)}


def typed(settings: Settings) -> list[str]:
    """Settings as one types them for a single run."""
    return list(itertools.chain(*(_flag(field.replace("_", "-"), value) for field, value in settings.items())))


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, tuple):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}={value}"]  # As one word, or a negative number might be taken for a flag.


def spelled(value: Any) -> str:
    """A setting as it stands behind ``--grid.NAME``."""
    return ",".join(map(str, value)) + "," * (len(value) == 1) if isinstance(value, tuple) else str(value)


class _Line(NamedTuple):
    """What was given, without the grid, and the axes that were ``asked`` for."""

    experiment: Experiment
    given: Settings
    asked: Axes

    def config(self, static: Settings, traced: Settings) -> Any:
        with self._blaming(static):
            return self.experiment.configure({**self.given, **static, **traced})

    def base(self, first: Any) -> Any:
        """The config of what was given; ``first``, one of the grid's, where that by itself is refused, as a schedule
        may ask for a period that the grid has."""
        try:
            return self.experiment.configure(self.given)
        except InvalidValue:
            return first

    def preset_axes(self, settings: Settings) -> Axes:
        """Those of the preset, for these settings, that no flag takes out."""
        preset = self.experiment.preset_of(self.given)
        axes = preset.grid(self.experiment.settle({**self.given, **settings})) if preset and preset.grid else {}
        return {field: values for field, values in axes.items() if field not in self.given}

    def members(self, axes: Axes, from_preset: Axes) -> Iterator[Member]:
        by_program, by_number = _by_program(axes)
        for static in _product(by_program):
            config = self.config(static, _first(by_number))
            with self._blaming(static):
                allowed = "one that has the same grid for every member"
                require(self.preset_axes(static) == from_preset, "preset", config.run.preset, allowed)
                for traced in _product(by_number):
                    settings = static | traced
                    train = dataclasses.replace(config.train, **traced)
                    yield Member({field: settings[field] for field in axes}, dataclasses.replace(config, train=train))

    @contextlib.contextmanager
    def _blaming(self, static: Settings) -> Iterator[None]:
        """What is refused is said of the grid's flag, with the others' values that it was refused with."""
        try:
            yield
        except InvalidValue as refused:
            field = f"grid.{refused.field}" if refused.field in self.asked else refused.field
            others = typed({name: value for name, value in static.items() if name != refused.field})
            beside = f" (with {' '.join(others)})" if others else ""
            raise InvalidValue(field, refused.value, refused.allowed + beside) from None


def _hyper_parameters_of_all(experiment: Experiment, models: Sequence[str], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a grid over these models; raises ``InvalidValue`` if one has not what is asked for and others have."""
    of_each = {model: hyper_parameters(experiment.sections(model)) for model in models}
    found = {field: hint for own in reversed(of_each.values()) for field, hint in own.items()}
    somewhere = {*found, *some_models_fields()} - UNCHANGING
    for model, own in of_each.items():
        for field, texts in asked.items():
            require(field in own or field not in somewhere, f"grid.{field}", " ".join(texts), left_out(model, field))
    return found


def _by_program(axes: Axes) -> tuple[Axes, Axes]:
    """The static axes, of which each value needs a program of its own, and the traced ones."""
    static = {field: values for field, values in axes.items() if field not in TRACED}
    return static, {field: values for field, values in axes.items() if field in TRACED}


def _first(axes: Axes) -> Settings:
    return {field: values[0] for field, values in axes.items()}


def _product(axes: Axes) -> Iterator[Settings]:
    return (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


def _typed(written: Mapping[str, Sequence[str]], types: Mapping[str, Any]) -> Axes:
    """The values as the config has them."""
    axes = {}
    for field, texts in written.items():
        name = f"grid.{field}"
        allowed = ", ".join(each.replace("_", "-") for each in types)
        require(field in types, name, " ".join(texts), f"one of {allowed}")
        require(len(texts) > 0, name, "", "given one or more values")
        values = tuple(_value(name, text, types[field]) for text in texts)
        for place, value in enumerate(values):
            require(value not in values[:place], name, value, "there once: it is given twice")
        axes[field] = values
    return axes


def _value(name: str, text: str, hint: Any) -> Any:
    """As the parser of single flags reads it; of a field that has several numbers they have commas between them."""
    readers = dict(_readers(hint))
    for read in readers.values():
        with contextlib.suppress(ValueError, KeyError):
            return read(text)
    raise InvalidValue(name, text, " or ".join(readers))


def _readers(hint: Any) -> Iterator[tuple[str, Callable[[str], Any]]]:
    """What a value may be, in words, and how it is read. None is none: it would only stand for one of the others."""
    if get_origin(hint) in (Union, UnionType):
        yield from itertools.chain(*map(_readers, get_args(hint)))
    elif get_origin(hint) is Literal:
        yield from ((str(word), {str(word): word}.__getitem__) for word in get_args(hint))
    elif get_origin(hint) is tuple:
        kind, *others = get_args(hint)
        ((_, read),) = _readers(kind) if others == [...] else ()
        yield "numbers with commas between, as 10,20 (one alone: 10,)", partial(_listed, read)
    elif hint is not NoneType:
        yield KINDS[hint]


def _can_be_read(hint: Any) -> bool:
    """Whether there is a way to read values of that type, as there is none for several of different kinds."""
    try:
        return bool(list(_readers(hint)))
    except (KeyError, ValueError):
        return False


def _listed(read: Callable[[str], Any], text: str) -> tuple:
    """What is written with commas: between several, behind one alone."""
    if "," not in text:
        raise ValueError(text)
    return tuple(map(read, text.removesuffix(",").split(",")))


def _refuse_contradictions(asked: Axes, given: Settings) -> None:
    for field, values in asked.items():
        for beside in (field, "seeds") if field == "seed" else (field,):
            text = " ".join(map(spelled, values))
            require(beside not in given, f"grid.{field}", text, f"left out, or --{beside.replace('_', '-')} is")


def _is_number(text: str) -> bool:
    """Whether it is one, or several with commas."""
    try:
        _listed(float, f"{text},")
    except ValueError:
        return False
    return True
