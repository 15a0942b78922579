"""What linear waves remember: how they travel, and how far back their impulse responses listen."""

from typing import NamedTuple

import numpy as np


class Travel(NamedTuple):
    """How the waves of a layer travel, ring by ring."""

    speeds: np.ndarray
    """ν ``(C,)``, neurons a step."""
    leaks: np.ndarray
    """ρ ``(C,)``: the share of a wave that is left after a step."""


def mean_lag(responses: np.ndarray) -> np.ndarray:
    """``Σ_t t K_t² / Σ_t K_t²`` of ``(C, T)``, in steps: how far back a filter listens; 0 of one that is 0."""
    energy = np.square(np.asarray(responses, float))
    whole = energy.sum(axis=-1)
    return np.divide(energy @ np.arange(energy.shape[-1]), whole, out=np.zeros_like(whole), where=whole > 0)


def memory(leaks: np.ndarray) -> np.ndarray:
    """−1/ln ρ: the steps after which a wave is 1/e of what it was; infinite without a leak."""
    with np.errstate(divide="ignore"):
        return 1 / np.abs(np.log(np.asarray(leaks, float)))
