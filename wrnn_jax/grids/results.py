"""What came of a grid: its members ranked, the files that say so, and the settings compared over their seeds."""

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from wrnn_jax.files import write_atomically
from wrnn_jax.training.fit import DIVERGED, SOLVED
from wrnn_jax.validation import require, require_integer

Row = Mapping[str, Any]
"""One member: ``member`` (its index), the grid's own fields, ``status``, ``step``, metrics by name, and others."""
SEED = "seed"
NONE = "–"


class Setting(NamedTuple):
    """The members of a grid that differ in their seed alone."""

    fields: Mapping[str, Any]
    """The grid's own fields but the seed."""
    mean: float | None
    """Of the metric, over the ``measured`` members; None where there are none."""
    sd: float | None
    """The sample's standard deviation (n − 1); None of fewer than two members."""
    measured: int
    """Members that have a finite number and did not diverge."""
    diverged: int
    """Members that diverged, whatever number they had before."""
    missing: int
    """The others: they have no number, so far."""
    solved: int
    """Members of any of these kinds that solved the task at some time."""

    @property
    def members(self) -> int:
        """All of them."""
        return self.measured + self.diverged + self.missing

    def order(self, greatest: bool) -> tuple[bool, float, float]:
        """A key to sort by, the best setting first: those with a mean, by the share of their members that diverged,
        then by the mean. One that only some seeds survive is none to recommend, however good these are."""
        return self.mean is None, self.diverged / self.members, _badness(self.mean, greatest)


def ranked(rows: Iterable[Row], metric: str, greatest: bool) -> list[dict[str, Any]]:
    """The members from best to worst, each with its ``rank``: 1, 2, …

    By the metric; those that diverged after all that did not; those without a finite number last, with
    None for a rank. Ties go by ``member``, so that the order of ``rows`` plays no part.

    Args:
      rows: one a member.
      metric: the key that counts.
      greatest: whether the greatest value is the best, as of an accuracy; else the least, as of a loss.
    """

    def order(row: Row) -> tuple[bool, bool, float, int]:
        value = _number(row, metric)
        return value is None, row["status"] == DIVERGED, _badness(value, greatest), row["member"]

    return [
        {"rank": None if _number(row, metric) is None else rank, **row}
        for rank, row in enumerate(sorted(rows, key=order), start=1)
    ]


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Write ``grid.csv`` and ``grid.jsonl``, a line a member, each of them atomically.

    Lines go by ``member``, not by rank, so that two versions of a file differ only where results do. The
    header of the CSV is the union of the rows' keys, in the order in which they first come. What is unknown or not
    finite is an empty cell there, and null in the other.

    Raises:
      OSError: if a file cannot be written; the old one is then as it was.
    """
    rows = [{key: _finite(value) for key, value in row.items()} for row in sorted(rows, key=lambda row: row["member"])]
    header = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / "grid.csv", text.getvalue())
    lines = (json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    write_atomically(folder / "grid.jsonl", "".join(line + "\n" for line in lines))


def settings(rows: Iterable[Row], axes: Iterable[str], metric: str) -> list[Setting]:
    """The grid's settings in its own order, that of their first members::

        mean = (1/n) Σ mᵢ,  sd² = Σ (mᵢ − mean)² / (n − 1)

    over the n members of a setting that have a finite number and did not diverge.

    Args:
      rows: one a member.
      axes: the grid's own fields, of which ``"seed"`` may be one.
      metric: the key of m.

    Raises:
      InvalidValue: for a row without one of the axes.
    """
    names = [axis for axis in axes if axis != SEED]
    groups = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["member"]):
        for name in names:
            require(name in row, f"member {row['member']}", sorted(row), f"a row with {name}")
        groups[tuple(row[name] for name in names)].append(row)
    return [_setting(dict(zip(names, values, strict=True)), group, metric) for values, group in groups.items()]


def _setting(fields: Mapping[str, Any], rows: Sequence[Row], metric: str) -> Setting:
    survivors = [row for row in rows if row["status"] != DIVERGED]
    values = [value for row in survivors if (value := _number(row, metric)) is not None]
    return Setting(
        fields,
        mean=mean(values) if values else None,
        sd=stdev(values) if len(values) > 1 else None,
        measured=len(values),
        diverged=len(rows) - len(survivors),
        missing=len(survivors) - len(values),
        # A run that was told to train on keeps another status than "solved".
        solved=sum(row["status"] == SOLVED or row.get("solved_step") is not None for row in rows),
    )


def ranking_table(settings: Sequence[Setting], metric: str, greatest: bool, top: int = 10) -> str:
    """The ``top`` settings, best first (see :meth:`Setting.order`), in columns of plain text::

        test_loss, lower is better
        rank     lr  grad_clip         mean ± sd  solved  diverged
           1  0.001          1  1.2e-05 ± 3.1e-06     3/3       0/3
        and 8 settings more

    Settings without a number have no rank. What no member of the grid is ("solved", "missing") has no
    column; "diverged" always has one.

    Raises:
      InvalidValue: for no setting, or ``top`` below 1.
    """
    require(len(settings) > 0, "settings", settings, "at least one Setting")
    require_integer("top", top, 1)
    best = sorted(settings, key=lambda setting: setting.order(greatest))[:top]
    counts = [
        name
        for name in ("solved", "diverged", "missing")
        if name == "diverged" or any(getattr(setting, name) for setting in settings)
    ]
    has_sd = any(setting.sd is not None for setting in settings)
    header = ["rank", *settings[0].fields, "mean ± sd" if has_sd else metric, *counts]
    lines = [header]
    for rank, setting in enumerate(best, start=1):
        place = NONE if setting.mean is None else str(rank)
        shares = [f"{getattr(setting, name)}/{setting.members}" for name in counts]
        lines.append([place, *map(_value, setting.fields.values()), _mean_and_sd(setting), *shares])
    rest = len(settings) - len(best)
    end = [f"and {rest} setting{'s' if rest > 1 else ''} more"] if rest else []
    return "\n".join([f"{metric}, {'higher' if greatest else 'lower'} is better", *_columns(lines), *end])


def _columns(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells flush right, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.rjust, line, widths)) for line in lines]


def _mean_and_sd(setting: Setting) -> str:
    if setting.mean is None:
        return NONE
    form = ".4f" if 0.01 <= abs(setting.mean) < 1e4 else ".1e"
    return f"{setting.mean:{form}}" + ("" if setting.sd is None else f" ± {setting.sd:{form}}")


def _value(value: Any) -> str:
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _badness(value: float | None, greatest: bool) -> float:
    """What is to be least."""
    if value is None:
        return 0.0
    return -value if greatest else value


def _number(row: Row, metric: str) -> float | None:
    value = _finite(row.get(metric))
    return float(value) if isinstance(value, Real) else None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
