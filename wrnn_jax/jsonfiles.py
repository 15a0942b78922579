"""JSON files as run directories have them, read with what they must hold."""

import json
import math
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

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


def read_rows(path: Path, keys: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """The objects of numbers of a file with one a line; none, if there is no file. What is not finite is None.

    A damaged line is left out, and standard error told which. Only a last line without an end is left out silently: the
    process that wrote it was stopped.

    Args:
      path: the file.
      keys: what each of them must have.

    Raises:
      OSError: if the file cannot be read.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() or path.is_symlink() else [b""]
    for number, line in enumerate(lines, start=1):
        if not line.strip(b"\r"):
            continue
        try:
            row = _parsed(line)
            _require_object(row, keys)
            for key, value in row.items():
                if not is_number(value) and (value is not None or key in keys):
                    raise DamagedFile(f"{key} is {value!r}, no number"[:LONGEST])
        except DamagedFile as error:
            if number < len(lines):
                print(f"{path}, line {number} is left out: {error}", file=sys.stderr)
            continue
        yield row


def is_number(value: Any) -> bool:
    """Whether it is a number that a run can have come to: none is beyond float32."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2.0**128


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
