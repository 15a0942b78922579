"""The run directory: everything about one run, written so that a crash leaves nothing half done."""

import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax

from wrnn_jax import console
from wrnn_jax.files import append, make_folder, write_atomically
from wrnn_jax.training import numerics
from wrnn_jax.training.lock import LOCK
from wrnn_jax.training.stored import (
    CONFIG,
    FORMER,
    METRICS,
    SUMMARY,
    fields,
    last_record,
    note_damage,
    read_config,
    recorded,
    rows_of,
)
from wrnn_jax.validation import InvalidValue, require

UNCHANGING = frozenset(
    {"max_steps", "epochs", "stop_below", "patience", "log_interval", "checkpoint_interval", "keep_checkpoints"}
    | {"backend", "data_dir", "text"}
)
"""Fields that do not change what a step computes, up to rounding: a resumed run may have others than before."""


class RunDirectory:
    """``config.json``, ``metrics.jsonl``, ``summary.json``, ``checkpoints/``, ``figures/``, ``tensorboard/``.

    Args:
      path: the folder; made if it is not there.
      experiment: its name.
      config: the run's config, sections of fields as dataclasses or mappings, of which the section ``run`` says only
        where the run is kept and who does it: it may change.
      unchanging: fields in which a resumed run may differ from before.
      resume: whether to continue what the folder holds; an empty one is then as good as a new one, so
        that one command can begin a run and continue it.

    Raises:
      InvalidValue: if the folder holds a run and ``resume`` is false, a run whose config differs in a
        field that matters, or other files than a run's.
    """

    ABOUT = CONFIG
    BEGUN = ("checkpoints/[0-9]*",)
    """What there is once a state was saved."""

    def __init__(
        self, path: Path, experiment: str, config: Any, resume: bool, unchanging: Collection[str] = UNCHANGING
    ):
        self.path = path.absolute()
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        defaults, config = _plain(_defaults(config)), _plain(config)
        stored = read_config(self.path, self.ABOUT) if os.path.lexists(self.path / self.ABOUT) else None
        # What is about to be written over.
        self._stored, self._recorded = stored or {}, recorded(self.path)
        if stored is not None:
            of_what = stored.get("experiment")
            require(of_what == experiment, "logdir", str(path), f"a run of {experiment}: it holds one of {of_what}")
            _require_same(fields(defaults) | fields(stored["config"]), fields(config), self.path, unchanging)
            numerics.require_same(stored.get("jax"), self.path)
            begun = any(any(self.path.glob(pattern)) for pattern in self.BEGUN)
            allowed = "an empty folder, or go with --resume: it holds a run already"
            require(resume or not begun, "logdir", str(path), allowed)
            # A run saves its state before it says how it ended. To begin it anew would write over what it came to.
            ended = os.path.lexists(self.path / SUMMARY)
            require(begun or not ended, "logdir", str(path), "a run with its checkpoints: it has ended, and has none")
        elif self.path.is_dir() and any(item.name not in (LOCK, f"{self.ABOUT}.part") for item in self.path.iterdir()):
            raise InvalidValue("logdir", str(path), "a run's folder or an empty one: it holds other files")
        self._about = {
            "experiment": experiment,
            "config": config,
            "jax": numerics.settings(),
            "versions": _versions(),
            "device": device(),
            "commit": _commit(),
            "argv": ["python3", *sys.orig_argv[1:]],
        }

    def create(self) -> None:
        """Make the folders and write the config.

        Raises:
          InvalidValue: if that cannot be, with the reason.
        """
        try:
            make_folder(self.path)
            # Before anything else: what is begun without it could not be told from a folder of something else.
            write_atomically(self.path / self.ABOUT, _json(self._about, indent=2))
            make_folder(self.checkpoints)
            make_folder(self.figures)
        except OSError as error:
            raise InvalidValue("logdir", str(self.path), f"a folder that can be written ({error.strerror})") from error

    def rewind(self, step: int) -> None:
        """Drop the metrics of later steps: a resumed run will make them again.

        Rows that are damaged or missing are noted; the file with the damaged ones is kept beside.
        """
        found = rows_of(self.path)
        before = self._recorded if self._recorded <= step else 0
        note_damage(self.path, found, max(before, last_record(step, self._stored or self._about)))
        file = self.path / METRICS
        if len(found.damage) > found.cut:
            names = (file.with_name(f"{METRICS}.damaged-{number}") for number in itertools.count(1))
            beside = next(name for name in names if not os.path.lexists(name))
            write_atomically(beside, file.read_bytes())
            console.note(f"{beside}: the file as it was")
        kept = [row for row in found.rows if row["step"] <= step]
        write_atomically(file, "".join(_json(row) + "\n" for row in kept))

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``."""
        return rows_of(self.path).rows

    def record(self, row: Mapping[str, Any]) -> None:
        """Append a row to ``metrics.jsonl``: it is on the disk before any later checkpoint."""
        append(self.path / METRICS, (_json(row) + "\n").encode())

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``."""
        write_atomically(self.path / SUMMARY, _json(summary, indent=2))


class GridDirectory(RunDirectory):
    """``grid.json``, ``grid.csv``, ``grid.jsonl``, ``members/``, ``figures/``, and, while members are in training,
    ``checkpoints/``. A member's own folder is a :class:`RunDirectory`."""

    ABOUT = "grid.json"
    BEGUN = ("checkpoints/*/*/[0-9]*", "members/*/checkpoints/[0-9]*")

    @property
    def members(self) -> Path:
        """The folder of the members' folders."""
        return self.path / "members"


def device() -> str:
    """The devices that compute, in words."""
    devices = jax.local_devices()
    host = f"host {platform.machine()}, {os.cpu_count()} cores"
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), {host}"


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], path: Path, unchanging: Collection[str]) -> None:
    """Raise for the first field that differs and matters."""
    for field in sorted(before.keys() | now.keys()):
        says_nothing = field in unchanging or (field in FORMER and field not in now)
        if not says_nothing and before.get(field) != now.get(field):
            raise InvalidValue(field, now.get(field), f"{before.get(field)!r}, as in the run that {path} holds")


def _defaults(config: Any) -> dict[str, dict[str, Any]]:
    """The defaults of its sections, which a run had that was begun before there was such a field."""
    sections = config if isinstance(config, Mapping) else vars(config)
    of_sections = {name: dataclasses.fields(each) for name, each in sections.items() if dataclasses.is_dataclass(each)}
    return {
        name: {field.name: field.default for field in each if field.default is not dataclasses.MISSING}
        for name, each in of_sections.items()
    }


def _plain(config: Any) -> dict[str, Any]:
    """As JSON gives it back, so that what is compared is what is stored."""
    sections = config if isinstance(config, Mapping) else vars(config)
    return json.loads(json.dumps(dict(sections), default=dataclasses.asdict))


def _json(value: Any, **options: Any) -> str:
    """Standard JSON: numbers that are not finite become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    text = json.dumps(finite(value), allow_nan=False, ensure_ascii=False, **options)
    # What Python makes of bytes in the command line that are not UTF-8 no file could take as it is.
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


@cache
def _versions() -> dict[str, str]:
    packages = ("wrnn_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@cache
def _commit() -> str | None:
    """The commit that the code stands at, with "+" if files differ from it; None if git does not track this code."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
