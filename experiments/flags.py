"""A command line, read once: what it gives, field -> value. Which flags there are depends on the model."""

import ast
import contextlib
import functools
import inspect
import itertools
import re
import textwrap
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin

from tyro.conf import OmitArgPrefixes, arg

from experiments import cli
from experiments.presets import Settings
from experiments.settings import Experiment, fields_of, left_out, some_models_fields
from wrnn_jax.models import MODELS
from wrnn_jax.validation import InvalidValue, require_choice

MODEL = f"The model: {' | '.join(MODELS)}; or one of your own, as package.module:name. Each has flags of its own: here "
MODEL += "are those of {}."


def named_model(experiment: Experiment, arguments: Sequence[str]) -> str:
    """The model that the arguments name, by itself or by a preset: it is looked up before they are read, as it says
    which flags there are."""
    model, preset = (_last(flag, arguments) for flag in ("--model", "--preset"))
    return experiment.model_of({"model": model, "preset": None if preset == "None" else preset})


def read(experiment: Experiment, arguments: Sequence[str], models: Sequence[str], more: str = "") -> Settings:
    """What the arguments give, and nothing else.

    Args:
      experiment: whose flags.
      arguments: as on the command line.
      models: of which the arguments must be flags; values are read as those of the first.
      more: what the help says after the config's own description.

    Raises:
      InvalidValue: for a flag of another model, and a word that is none of those a flag has.
      SystemExit: as :func:`experiments.cli.ask` does.
    """
    for model in models:
        _require_own(experiment, model, arguments)
    asks_for_help = not {"-h", "--help"}.isdisjoint(arguments)
    usual = experiment.usual(models[0]) if asks_for_help else {}
    types = experiment.sections(models[0])
    line = TypedDict("line", {name: _section(name, kind, usual) for name, kind in types.items()}, total=False)
    description = f"{inspect.getdoc(experiment.config)}\n\n{more}"
    found = cli.ask(line, experiment.program, arguments, description)
    given = {field: value for section in found.values() for field, value in section.items()}
    hints = {field: hint for kind in types.values() for field, hint in fields_of(kind).items()}
    for field, value in given.items():
        if _is_choice(hints[field]):
            require_choice(field, value, get_args(hints[field]))
    return given


def field_of(flag: str) -> str:
    """The field that a flag is for."""
    return flag.removeprefix("--").partition("=")[0].replace("-", "_")


def _last(flag: str, arguments: Sequence[str]) -> str | None:
    """What is given for it, at the last place where something is."""
    found = None
    for word, following in itertools.zip_longest(arguments, arguments[1:]):
        if word == flag:
            found = following
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


def _require_own(experiment: Experiment, model: str, arguments: Sequence[str]) -> None:
    """Raise ``InvalidValue`` for a flag that only other models have."""
    own = {field for kind in experiment.sections(model).values() for field in fields_of(kind)}
    of_others = some_models_fields() - own
    for place, word in enumerate(arguments):
        field = field_of(word) if word.startswith("--") else ""
        field = field if field in of_others else field.removeprefix("no_")
        if field in of_others:
            value = _last(word.partition("=")[0], arguments[place:])
            raise InvalidValue(field, "" if value is None else value, left_out(model, field))


def _section(name: str, kind: type, usual: Settings) -> Any:
    """A section's flags, as a type all of whose keys may be missing; with their help where ``usual`` is given."""
    sayings, fields = _sayings(kind) if usual else {}, {}
    for field, hint in fields_of(kind).items():
        options = {}
        if _is_choice(hint):  # What is allowed is said as everywhere, see read.
            hint, options = str, {"metavar": "{" + ",".join(get_args(hint)) + "}"}
        if usual:
            said = MODEL.format(usual["model"]) if field == "model" else sayings.get(field, "")
            options |= {"help": said, "help_behavior_hint": f"(default: {_shown(usual[field])})"}
        fields[field] = Annotated[hint, arg(**options)]
    section = OmitArgPrefixes[TypedDict(name, fields, total=False)]
    # Where there is a help, it is not looked for in the source of what was only made here.
    return Annotated[section, arg(help=re.sub(r":\w+:`~?([^`]*)`", r"\1", inspect.getdoc(kind) or ""))]


def _is_choice(hint: Any) -> bool:
    return get_origin(hint) is Literal and all(isinstance(word, str) for word in get_args(hint))


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@functools.cache
def _sayings(kind: type) -> dict[str, str]:
    """Field -> what stands below it, in the class or in one that it is made from, as far as there is a source."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        with contextlib.suppress(OSError, TypeError):
            (made,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
            for field, below in zip(made.body, made.body[1:], strict=False):
                is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                if isinstance(field, ast.AnnAssign) and is_text:
                    found[field.target.id] = " ".join(below.value.value.split())
    return found
