"""JSON files as run directories have them, read with what they must hold."""

import json
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

LONGEST = 100
"""Letters of a message that quotes what a file holds."""


class DamagedFile(ValueError):
    """A file is not what it is meant to be; the message says why, without its name."""


def read_object(path: Path, keys: Collection[str] = ()) -> dict[str, Any]:
    """The object that a file of JSON holds. Numbers that are not finite are None.

    Raises:
      OSError: if the file cannot be read.
      DamagedFile: if it is not UTF-8, not JSON, no object, or has not all of the keys.
    """
    value = _parsed(path.read_bytes())
    _require_object(value, keys)
    return value


class Rows(NamedTuple):
    """What a file with an object of numbers a line holds."""

    rows: list[dict[str, Any]]
    """Those that are whole. Numbers that are not finite are None."""
    damage: dict[int, str]
    """Of each line that is not, counted from 1: why."""
    cut: bool
    """Whether the last of these only lacks its end: the process that wrote it was stopped."""


def read_rows(path: Path, keys: Collection[str] = ()) -> Rows:
    """The objects of numbers of a file with one a line; none, if there is no file.

    Args:
      path: the file.
      keys: what each of them must have, as whole numbers, 0 or more.

    Raises:
      OSError: if the file cannot be read.
    """
    if not os.path.lexists(path):
        return Rows([], {}, False)
    *lines, last = path.read_bytes().split(b"\n")
    rows, damage = [], {}
    for number, line in enumerate([*lines, last] if last else lines, start=1):
        try:
            rows.append(_row(line, keys))
        except DamagedFile as error:
            damage[number] = str(error)
    return Rows(rows, damage, cut=len(lines) + 1 in damage)


def is_number(value: Any) -> bool:
    """Whether it is a number that a run can have come to: none is beyond float32."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2.0**128


def _row(line: bytes, keys: Collection[str]) -> dict[str, Any]:
    row = _parsed(line)
    _require_object(row, keys)
    for key, value in row.items():
        if not is_number(value) and (value is not None or key in keys):
            raise DamagedFile(f"{key} is {value!r}, no number"[:LONGEST])
    for key in keys:
        if not (isinstance(row[key], int) and row[key] >= 0):
            raise DamagedFile(f"{key} is {row[key]!r}, no whole number from 0 on"[:LONGEST])
    return row


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text.decode(), parse_constant=lambda _: None, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise DamagedFile(f"it is not UTF-8 ({error.reason})") from error
    except RecursionError as error:
        raise DamagedFile("it is nested too deeply") from error
    except ValueError as error:  # Not JSON, or a whole number of thousands of digits.
        raise DamagedFile(f"it is not JSON ({error})") from error


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _require_object(value: Any, keys: Collection[str]) -> None:
    if not isinstance(value, dict):
        raise DamagedFile(f"it holds no object but {type(value).__name__}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise DamagedFile(f"it has no {missing[0]}")
