"""One way to refuse a bad value: an error with the field, the value, and what is allowed."""

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import numpy as np


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


def require_integer(field: str, value: Any, at_least: int) -> None:
    """``value`` is a whole number, ``at_least`` or more."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    require(is_integer and value >= at_least, field, value, f"a whole number, {at_least} or more")


def require_nonnegative(field: str, value: float) -> None:
    """``value`` is a finite number, zero or more."""
    require(_is_finite(value) and value >= 0, field, value, "a finite number, 0 or more")


def require_positive(field: str, value: float) -> None:
    """``value`` is a finite number above zero."""
    require(_is_finite(value) and value > 0, field, value, "a finite number above 0")


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
