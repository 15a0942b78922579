"""Waves in the hidden states of one sequence: their space–time spectrum, their speed, and who is active first."""

from typing import Literal, NamedTuple

import numpy as np

from wrnn_jax.validation import require, require_choice, require_integer, require_positive

FLOOR = 1e-6
"""A smaller share of the shuffled state's power counts as this one: log10 of nothing would be −∞."""
LAGS = (1, 2, 3, 5, 8)
"""Steps over which a displacement is measured: long ones for precision, short ones to tell v from v + N/L."""
GRID = 16
"""Velocities tried per neuron a step: two to the narrowest peak, that of one neuron's pulse over the longest lag."""
BLOCKS, RESAMPLES = 64, 200
"""Blocks of time, and how often they are weighted anew, for the uncertainty and for the test against chance."""
NEAR_TIE = 0.1
"""Of peaks lower than the highest by at most this share, the slowest counts: a periodic wave has many, all equal."""
ROUNDING = 1e-6
"""Differences below this share of the largest state are float32 rounding."""


class Spectrum(NamedTuple):
    """What :func:`spacetime_spectrum` returns."""

    temporal: np.ndarray
    """``(T,)`` cycles a step, ascending from −1/2."""
    spatial: np.ndarray
    """``(N,)`` cycles a neuron, ascending from −1/2."""
    power: np.ndarray
    """``(T, N)`` or ``(C, T, N)``: log10 of the power, relative to that of the shuffled state; or as the authors'
    normalisation has it."""


class Speed(NamedTuple):
    """What :func:`wave_speed` returns: floats, or arrays ``(C,)``. Both are NaN where there is no wave."""

    velocity: float | np.ndarray
    """Neurons a step, positive toward the higher index: the shift ``h_{t+1}[i] = h_t[i+1]`` has −1."""
    uncertainty: float | np.ndarray
    """Neurons a step: half of the half-width that holds 95 % of the resampled velocities."""


def spacetime_spectrum(
    hidden: np.ndarray, *, shuffles: int = 8, seed: int = 0, normalisation: Literal["power", "authors"] = "power"
) -> Spectrum:
    """Power of the space–time Fourier transform, relative to that of the shuffled state::

        F(ω, k) = Σ_t Σ_x (h_t(x) − h̄) exp(−2πi (ω t + k x)),     power = log10( |F|² / mean_s |F_s|² )

    where each F_s has all T·N values in a random order. A wave of constant velocity v, ``h_t(x) = f(x − v t)``,
    is the straight band ``ω = −v k`` through the origin; the shift of the wRNN is the diagonal ``ω = k``. White noise
    is around 0 everywhere. The bin of the mean h̄, which no shuffle changes, is 0; so is every bin of a constant
    state. No bin is below −6.

    The authors keep the mean, bring the steps as a whole and the neurons as a whole into a random order, once, and
    divide magnitudes: ``power = ln( |F| / |F_s| )`` bin by bin. This is ``normalisation="authors"``: noisier, as one
    |F_s| may be near 0 anywhere, and of another scale, while the band of a wave is in the same place. It is bounded by
    ±6 ln 10.

    Args:
      hidden: ``(T, N)``, or ``(T, C, N)`` with each channel taken by itself.
      shuffles: how many random orders are averaged; the authors' is one.
      seed: of the random orders, the same for every channel.
      normalisation: ``"power"``, the first equation, or ``"authors"``.

    Raises:
      ValueError: for another shape, values that are not finite, no shuffles, a negative seed, or another normalisation.

    Source: Keller et al. 2024, Fig. 2.
    """
    rings = _rings(hidden)
    require_integer("shuffles", shuffles, at_least=1)
    require_integer("seed", seed, at_least=0)
    require_choice("normalisation", normalisation, ("power", "authors"))
    relative = _relative_power if normalisation == "power" else _relative_magnitude
    power = np.stack([relative(ring, shuffles, np.random.default_rng(seed)) for ring in rings])
    temporal, spatial = (np.fft.fftshift(np.fft.fftfreq(size)) for size in rings.shape[1:])
    return Spectrum(temporal, spatial, power if np.ndim(hidden) == 3 else power[0])


def wave_speed(hidden: np.ndarray, *, seed: int = 0) -> Speed:
    """The velocity at which the pattern on each ring travels: the highest peak over v of the correlation::

        J(v) = Σ_L Σ_t Σ_k Re( conj(ĥ_t(k)) ĥ_{t+L}(k) exp(2πi k v L / N) ),     L = 1, 2, 3, 5, 8,   −N/2 < v ≤ N/2

    with ĥ_t(k) the discrete Fourier transform over the ring, 0 < k < N/2: ``h_{t+L}(x) = h_t(x − v L)``, at any
    fraction of a neuron. Everything is weighted by its power, so silent steps and neurons do not matter.

    - Standing background: ĥ_t and ĥ_{t+L} each have their mean over t taken away, which leaves the velocity of a
      wave exactly as it is. Only where nothing moves on it is the background itself measured: what stands has v = 0.
      What moves by less than its own width in the whole sequence may, in noise, be taken for either.
    - Several speeds on one ring: the strongest counts. Of peaks that are almost as high, the slowest does: a wave of
      wavelength λ looks the same at v + λ.
    - The uncertainty is a bootstrap's, over up to 64 blocks of time. It knows chance, but no drift. Where noise leaves
      open which of two opposite waves is the stronger, it is as large as their speed. Without any noise it is 0 up to
      rounding, if the wave moves at all steps alike.
    - No wave: J's peak must be above those of 99.5 % of states without waves, made by giving each block's contribution
      a random sign. Else both numbers are NaN, as they are for a silent or spatially uniform ring, and for a sequence
      of fewer than about ten steps. One state of white noise in fifty passes.

    Args:
      hidden: ``(T, N)`` -> floats, or ``(T, C, N)`` -> arrays ``(C,)``; T ≥ 2, N ≥ 3.
      seed: of the resampling, the same for every channel.

    Raises:
      ValueError: for another shape, values that are not finite, or a negative seed.

    Source: Keller et al. 2024, section 2.1 (eq. 1) and Fig. 2, which read the slope by eye; J is the circular
    cross-correlation of each state with later ones.
    """
    rings = _rings(hidden, steps=2, neurons=3)
    require_integer("seed", seed, at_least=0)
    speeds = [_ring_speed(ring, np.random.default_rng(seed)) for ring in rings]
    return Speed(*np.array(speeds).T) if np.ndim(hidden) == 3 else Speed(*speeds[0])


def onset_order(hidden: np.ndarray, *, share: float = 0.5) -> np.ndarray:
    """The neurons in the order of their onset::

        onset(i) = min { t : |h_t(i)| ≥ share · max_s |h_s(i)| }

    Activity is counted from 0, the state before the first step. Ties go by index, silent neurons come last.

    Args:
      hidden: ``(T, N)``, or ``(T, C, N)``, whose neurons are numbered channel-major.
      share: of a neuron's own maximum, above 0 and at most 1.

    Returns:
      A permutation ``(N,)`` or ``(C·N,)``: ``hidden.reshape(T, -1)[:, order]`` is sorted.

    Raises:
      ValueError: for another shape, values that are not finite, or a share out of range.

    Source: Keller et al. 2024, Fig. 2, where the iRNN's neurons are sorted so before its spectrum is taken.
    """
    require_positive("share", share)
    require(share <= 1, "share", share, "above 0 and at most 1")
    _, steps, _ = _rings(hidden).shape
    activity = np.abs(np.asarray(hidden, float)).reshape(steps, -1)
    top = activity.max(0)
    onset = np.where(top > 0, (activity >= share * top).argmax(0), steps)
    return np.argsort(onset, kind="stable")


def _rings(hidden: np.ndarray, *, steps: int = 1, neurons: int = 1) -> np.ndarray:
    """``(T, N)`` or ``(T, C, N)`` -> ``(C, T, N)`` in float64."""
    hidden = np.asarray(hidden, float)
    fits = hidden.ndim in (2, 3) and hidden.size > 0 and len(hidden) >= steps and hidden.shape[-1] >= neurons
    least = f"T at least {steps}, N at least {neurons}"
    require(fits, "hidden.shape", hidden.shape, f"(T, N) or (T, C, N), none of them 0, {least}")
    finite = np.isfinite(hidden)
    require(bool(finite.all()), "hidden", f"{(~finite).sum()} values NaN or infinite", "finite numbers")
    return np.moveaxis(hidden[:, None] if hidden.ndim == 2 else hidden, 0, 1)


def _relative_power(ring: np.ndarray, shuffles: int, rng: np.random.Generator) -> np.ndarray:
    """:func:`spacetime_spectrum` of one ring ``(T, N)``."""
    ratio = np.ones(ring.shape)
    if np.ptp(ring) > 0:
        deviation = ring / np.abs(ring).max()
        deviation = deviation - deviation.mean()
        shuffled = sum(_power(rng.permuted(deviation)) for _ in range(shuffles)) / shuffles
        shuffled[0, 0] = 1
        ratio = _power(deviation) / shuffled
        ratio[0, 0] = 1
    return np.fft.fftshift(np.log10(np.maximum(ratio, FLOOR)))


def _relative_magnitude(ring: np.ndarray, shuffles: int, rng: np.random.Generator) -> np.ndarray:
    """The same by the authors' normalisation: of one order of the steps, and one of the neurons."""
    state = ring / max(np.abs(ring).max(), np.finfo(float).tiny)
    shuffled = rng.permutation(rng.permutation(state, axis=0), axis=1)
    magnitude, of_shuffled = (np.sqrt(_power(values)) for values in (state, shuffled))
    # What is nothing but rounding is nothing, above and below the line.
    least = np.finfo(float).eps * state.size
    ratio = np.maximum(magnitude, least) / np.maximum(of_shuffled, least)
    return np.fft.fftshift(np.log(np.clip(ratio, FLOOR, 1 / FLOOR)))


def _power(values: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.fft2(values)) ** 2


def _ring_speed(ring: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """:func:`wave_speed` of one ring ``(T, N)``: of what moves; failing that, of what stands."""
    neurons = ring.shape[1]
    pattern = ring - ring.mean(1, keepdims=True)
    top = np.abs(pattern).max()
    if top > ROUNDING * np.abs(ring).max():
        # k = 0 is the ring's common level, and the alternation k = N/2 looks the same from both sides.
        modes = np.fft.rfft(pattern / top, axis=1)[:, 1 : (neurons + 1) // 2]
        for centred in (True, False):
            correlations = _correlations(modes, centred)
            if _above_chance(correlations, neurons, rng):
                return _velocity_and_spread(correlations, neurons, rng)
    return np.nan, np.nan


def _correlations(modes: np.ndarray, centred: bool) -> np.ndarray:
    """``conj(ĥ_t) ĥ_{t+L}`` summed over each block of time: modes ``(T, K)`` -> ``(blocks, lags, K)``."""
    steps = len(modes) - 1
    products = np.zeros((steps, len(LAGS), modes.shape[1]), complex)
    for index, lag in enumerate(LAGS):
        if lag <= steps:
            earlier, later = modes[:-lag], modes[lag:]
            if centred:
                # Each by its own mean: a wave's mean moves along with it, and one mean for both would pull v toward 0.
                earlier, later = earlier - earlier.mean(0), later - later.mean(0)
            products[: len(earlier), index] = earlier.conj() * later
    blocks = min(BLOCKS, steps)
    return np.add.reduceat(products, np.arange(blocks) * steps // blocks, axis=0)


def _above_chance(correlations: np.ndarray, neurons: int, rng: np.random.Generator) -> bool:
    """Whether J's peak is above those of 99.5 % of states whose blocks could each as well be their negative."""
    signs = rng.choice((-1.0, 1.0), (RESAMPLES, len(correlations)))
    chance = _scores(np.tensordot(signs, correlations, 1), neurons).max(-1)
    top = _scores(correlations.sum(0)[None], neurons).max()
    return bool(np.mean((1 + ROUNDING) * chance >= top) <= 0.005)


def _velocity_and_spread(correlations: np.ndarray, neurons: int, rng: np.random.Generator) -> tuple[float, float]:
    """v, and its spread under random weights of the blocks (the Bayesian bootstrap of Rubin, 1981).

    No block is ever left out, so that one short wave in a long sequence remains in every sample. A quantile, not the
    standard deviation: one sample in which noise wins by a hair would decide the latter.
    """
    (velocity,) = _velocities(correlations.sum(0)[None], neurons)
    weights = rng.exponential(size=(RESAMPLES, len(correlations)))
    deviations = _wrap(_velocities(np.tensordot(weights, correlations, 1), neurons) - velocity, neurons)
    return float(velocity), float(np.quantile(np.abs(deviations), 0.95) / 2)


def _velocities(correlations: np.ndarray, neurons: int) -> np.ndarray:
    """The v of J's peak: ``(samples, lags, K)`` -> ``(samples,)``, from the grid and then by Newton's method."""
    scores = _scores(correlations, neurons)
    grid = _wrap(np.arange(scores.shape[1]) / GRID, neurons)
    is_peak = (scores >= np.roll(scores, 1, -1)) & (scores >= np.roll(scores, -1, -1))
    shortfall = 1 - scores / scores.max(-1, keepdims=True)
    # Less than a step of the grid: between v and −v it is the higher that counts.
    slowness = np.abs(grid) + shortfall / GRID
    velocities = grid[np.where(is_peak & (shortfall <= NEAR_TIE), slowness, np.inf).argmin(-1)]
    angles = 2 * np.pi / neurons * np.outer(LAGS, np.arange(1, correlations.shape[-1] + 1))
    for _ in range(4):
        turned = correlations * np.exp(1j * angles * velocities[:, None, None])
        slope = -(turned.imag * angles).sum((1, 2))
        curvature = (turned.real * angles**2).sum((1, 2))
        # A peak that is flat, as of nothing at all, stays where the grid found it.
        step = np.divide(slope, curvature, out=np.zeros_like(slope), where=curvature > 0)
        velocities = velocities + np.clip(step, -1 / GRID, 1 / GRID)
    return _wrap(velocities, neurons)


def _scores(correlations: np.ndarray, neurons: int) -> np.ndarray:
    """J of :func:`wave_speed` at ``v = j / GRID``: ``(samples, lags, K)`` -> ``(samples, N · GRID)``.

    J is a Fourier series in v to whose coefficient ``k L`` mode k at lag L contributes: one transform does all lags.
    """
    samples, _, modes = correlations.shape
    series = np.zeros((samples, max(LAGS) * modes + 1), complex)
    for index, lag in enumerate(LAGS):
        series[:, lag::lag][:, :modes] += correlations[:, index]
    return np.fft.irfft(series, neurons * GRID)


def _wrap(velocity: np.ndarray, neurons: int) -> np.ndarray:
    """Into ``(−N/2, N/2]``."""
    return neurons / 2 - (neurons / 2 - velocity) % neurons
