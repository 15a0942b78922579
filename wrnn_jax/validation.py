"""One way to refuse a bad value: an error with the field, the value, and what is allowed."""

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import numpy as np

LARGEST_INTEGER = 2**31 - 1
"""Whole numbers go up to here, seeds and steps among them: as int32, which JAX counts with."""
_FLOAT = np.finfo(np.float32)


class InvalidValue(ValueError):
    """A ``ValueError`` that knows its ``field`` and ``value``, and what is ``allowed``."""

    def __init__(self, field: str, value: Any, allowed: str):
        super().__init__(f"{field} = {value!r}: must be {allowed}")
        self.field, self.value, self.allowed = field, value, allowed


def require(condition: bool, field: str, value: Any, allowed: str) -> None:
    """Raise :class:`InvalidValue` ("<field> = <value>: must be <allowed>") unless ``condition``."""
    if not condition:
        raise InvalidValue(field, value, allowed)


def require_choice(field: str, value: Any, choices: Collection[str]) -> None:
    """``value`` is one of ``choices``."""
    require(value in tuple(choices), field, value, "one of " + ", ".join(choices))


def require_switch(field: str, value: Any) -> None:
    """``value`` is a boolean: the string "no" would be true."""
    require(isinstance(value, bool | np.bool_), field, value, "True or False")


def require_integer(field: str, value: Any, at_least: int, at_most: int = LARGEST_INTEGER) -> None:
    """``value`` is a whole number from ``at_least`` to ``at_most``."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    require(is_integer and value >= at_least, field, value, f"a whole number, {at_least} or more")
    require(value <= at_most, field, value, f"a whole number, {at_most} at most")


def require_nonnegative(field: str, value: float) -> None:
    """``value`` is 0, or a number above it that float32 holds."""
    require(_is_finite(value) and value >= 0, field, value, "a finite number, 0 or more")
    _require_float32(field, value)


def require_positive(field: str, value: float) -> None:
    """``value`` is a number above zero that float32 holds."""
    require(_is_finite(value) and value > 0, field, value, "a finite number above 0")
    _require_float32(field, value)


def require_fraction(field: str, value: float) -> None:
    """``value`` is a number in [0, 1)."""
    require(_is_finite(value) and 0 <= value < 1, field, value, "a number from 0 to below 1")


def number(text: str) -> float:
    """What a text says; ``ValueError`` if that is no number. What is not 0 is not rounded to 0, which often means
    something of its own, but to the smallest number there is."""
    value = float(text)
    written = text.lower().partition("e")[0]
    is_zero = not any(digit.isdecimal() and int(digit) for digit in written)
    return value or math.copysign(0.0 if is_zero else math.ulp(0.0), value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _require_float32(field: str, value: float) -> None:
    """Zero, or from the smallest to the largest of float32: what is beyond would be computed with as 0 or infinity."""
    inside = value == 0 or float(_FLOAT.tiny) <= abs(value) <= float(_FLOAT.max)
    require(inside, field, value, f"from {_FLOAT.tiny:.3g} to {_FLOAT.max:.3g}, which float32 holds")
