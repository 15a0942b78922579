"""Numbers as text: no more digits than are known."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

MINUS = "\u2212"
PLUS_MINUS = "\u00b1"
PLAIN = 0.01
"""From here on a loss is written without an exponent."""


def loss(values: Sequence[float]) -> str:
    """Mean ± sd (n − 1) of losses, such as ``1.2e-05 ± 3e-06``, or ``0.163 ± 0.002`` from 0.01 on: digits down to
    the first of the sd, two or three in all; of one value two digits, and no sd."""
    average = mean(values)
    if len(values) < 2:
        return _digits(average, 2)
    spread = stdev(values)
    known = 1 + _exponent(average) - _exponent(spread) if spread and average else 2
    text = f"{spread:.1g}" if average >= PLAIN else _digits(spread, 1)
    return f"{_digits(average, min(max(known, 2), 3))} {PLUS_MINUS} {text}"


def published_loss(value: float) -> str:
    """As many digits as the paper has: ``4e-06``, ``0.16``."""
    return f"{value:g}" if value >= PLAIN else _digits(value, 1)


def percent(values: Sequence[float]) -> str:
    """Mean ± sd (n − 1) of shares in 0 … 1, as percentages with two decimals."""
    spread = f" {PLUS_MINUS} {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread}"


def radians(values: Sequence[float]) -> str:
    """Mean ± sd (n − 1) of angles, to two digits of the mean; from 0.0001 on without an exponent."""
    average = mean(values)
    if average < 1e-4:
        return loss(values)
    decimals = 1 - _exponent(average)
    spread = f" {PLUS_MINUS} {stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{average:.{decimals}f}{spread}"


def radius(values: Sequence[float | None]) -> str:
    """The least and the greatest, to four decimals: which side of 1 they are on is what counts."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    low, high = (f"{of(known):.4f}" for of in (min, max))
    return low if low == high else f"{low} to {high}"


def count(values: Sequence[float]) -> str:
    """A number, or the least and the greatest: ``300 to 1,200``."""
    low, high = min(values), max(values)
    return _whole(low) if low == high else f"{_whole(low)} to {_whole(high)}"


def steps(values: Sequence[float]) -> str:
    """Mean ± sd (n − 1) of counts."""
    spread = f" {PLUS_MINUS} {stdev(values):,.0f}" if len(values) > 1 else ""
    return f"{mean(values):,.0f}{spread}"


def thousands(value: float) -> str:
    """``47k``, ``4.5M``."""
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k"


def signed(value: float, decimals: int) -> str:
    """With its sign, also +: ``+1.20``; zero has none."""
    text = f"{abs(value):,.{decimals}f}"
    if not any(digit in text for digit in "123456789"):
        return text
    return (MINUS if value < 0 else "+") + text


def ratio(value: float) -> str:
    """Two digits and a cross: ``×0.25``, ``×230``, ``×1.8e+04``."""
    rounded = float(f"{value:.2g}")
    return f"×{rounded:g}" if 1e-3 <= rounded < 1e4 or not rounded else f"×{rounded:.1e}"


def duration(seconds: float) -> str:
    """``39 s``, ``4 min 36 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:.2g}"


def _digits(value: float, digits: int) -> str:
    """So many leading digits of a number that is not negative."""
    if value >= PLAIN:
        return f"{value:.{max(digits - 1 - _exponent(value), 0)}f}"
    return f"{value:.{digits - 1}e}" if value else "0"


def _exponent(value: float) -> int:
    """Of the leading digit: 0.012 -> -2."""
    return math.floor(math.log10(abs(value)))
