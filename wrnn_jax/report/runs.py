"""Runs, found below a folder and read."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wrnn_jax import console
from wrnn_jax.jsonfiles import DamagedFile, read_object
from wrnn_jax.training.stored import read_metrics, require_numbers
from wrnn_jax.validation import InvalidValue, require

SUMMARY, CONFIG, GRID = "summary.json", "config.json", "grid.json"
PARTS = ("checkpoints", "figures", "tensorboard")
"""Folders of a run directory, in which no other run is looked for."""
MARKS = {"experiment", "model", "status"}
"""Keys by which a JSON file that stands alone is known as a run's summary."""


@dataclass(frozen=True)
class Run:
    """A run that has a summary."""

    name: str
    """Where it was found, from the folder that was searched."""
    summary: Mapping[str, Any]
    """As ``summary.json`` has it. Numbers that are not finite are None."""
    config: Mapping[str, Any]
    """The fields of ``config.json`` that say how it was trained; empty for a summary that stands alone."""
    folder: Path | None = None
    """The run directory; None for a summary that stands alone."""

    @property
    def known(self) -> dict[str, Any]:
        """The fields of the config, and what the summary says; the summary wins."""
        return {**self.config, **self.summary}

    def rows(self) -> list[dict[str, Any]]:
        """The rows of its ``metrics.jsonl``; none if there is no such file."""
        return read_metrics(self.folder) if self.folder else []


class Unfinished(NamedTuple):
    """A run directory without a summary: it is still going, or was killed."""

    name: str
    step: int | None
    """Of its last row of metrics; None if it has none."""


class Found(NamedTuple):
    """What :func:`find_runs` finds, by name."""

    runs: tuple[Run, ...]
    unfinished: tuple[Unfinished, ...]
    skipped: tuple[str, ...]
    """JSON files outside run directories that are no summary of a run."""


def find_runs(root: Path) -> Found:
    """All runs below ``root``: folders with ``summary.json``, and summaries that stand alone as ``<name>.json``.

    A folder with ``config.json`` or ``metrics.jsonl`` alone is an unfinished run. A JSON file elsewhere is a summary
    if it has ``experiment``, ``model`` and ``status``, else it is skipped.

    Raises:
      InvalidValue: if ``root`` is no folder or cannot be read, holds no run at all, or holds a run whose summary or
        config is not JSON, or is no summary; names the file.
    """
    require(root.is_dir(), "runs", str(root), "a folder that exists")
    runs, unfinished, skipped = [], [], []
    try:
        for path, files in _folders(root):
            if SUMMARY in files:
                runs.append(_read_directory(path, root))
            elif GRID in files:
                continue  # Its members are runs of their own.
            elif CONFIG in files or "metrics.jsonl" in files:
                rows = read_metrics(path)
                unfinished.append(Unfinished(_name(path, root), rows[-1].get("step") if rows else None))
            else:
                for file in sorted(path / name for name in files if name.endswith(".json")):
                    run = _read_alone(file, root)
                    skipped.append(_name(file, root)) if run is None else runs.append(run)
    except OSError as error:
        raise InvalidValue("runs", error.filename or str(root), f"readable ({error.strerror})") from error
    allowed = f"a folder with a run below it: a folder with {SUMMARY}, or a copy of one as <name>.json"
    require(bool(runs or unfinished), "runs", str(root), allowed)
    return Found(tuple(runs), tuple(unfinished), tuple(skipped))


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """All folders and their files, in the order of their names; not what is hidden, nor the parts of a run."""

    def refuse(error: OSError) -> None:
        raise error

    for path, folders, files in os.walk(root, onerror=refuse):
        is_run = not {SUMMARY, CONFIG, GRID}.isdisjoint(files)
        files += {SUMMARY, CONFIG}.intersection(folders)  # A folder in a file's place is read, and refused.
        folders[:] = sorted(name for name in folders if not (name.startswith(".") or (is_run and name in PARTS)))
        for name in folders:
            if (Path(path) / name).is_symlink():
                console.note(f"{Path(path) / name}: left out, as it is a link to a folder")
        yield Path(path), files


def _read_directory(path: Path, root: Path) -> Run:
    summary = _read_object(path / SUMMARY)
    _check(summary, path / SUMMARY)
    config = _read_object(path / CONFIG).get("config", {}) if os.path.lexists(path / CONFIG) else {}
    is_config = isinstance(config, dict) and all(isinstance(section, dict) for section in config.values())
    require(is_config, "runs", str(path / CONFIG), "a run's config: sections of fields")
    # Not the section "run": where it is kept is no setting.
    flat = {field: value for name, section in config.items() if name != "run" for field, value in section.items()}
    _check_numbers(flat, path / CONFIG)
    return Run(_name(path, root), summary, flat, path)


def _read_alone(file: Path, root: Path) -> Run | None:
    """The run whose summary the file is; None if it is something else."""
    try:
        summary = _read_object(file)
    except InvalidValue:
        return None
    if not summary.keys() >= MARKS:
        return None
    _check(summary, file)
    return Run(_name(file, root), summary, {})


def _read_object(file: Path) -> dict[str, Any]:
    try:
        return read_object(file)
    except DamagedFile as error:
        raise InvalidValue("runs", str(file), f"a JSON object, whole ({error})") from error


def _check(summary: Mapping[str, Any], file: Path) -> None:
    """Raise unless it says its experiment, and numbers are numbers."""
    allowed = 'a run\'s summary: it needs an "experiment"'
    require(isinstance(summary.get("experiment"), str), "runs", str(file), allowed)
    for key in ("status", "model", "device"):
        value = summary.get(key)
        require(isinstance(value, str | None), "runs", str(file), f"a run's summary: {key} = {value!r} is no word")
    _check_numbers(summary, file)


def _check_numbers(fields: Mapping[str, Any], file: Path) -> None:
    try:
        require_numbers(fields)
    except DamagedFile as error:
        raise InvalidValue("runs", str(file), f"a run's: {error}") from error


def _name(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()
