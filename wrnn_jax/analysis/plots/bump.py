"""Why waves remember order: the wave field against the static bump, Fig. 1."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from wrnn_jax.analysis.plots.style import COLORS, GREY, NOTE, TICKS, WIDTH, Figure, open_axes
from wrnn_jax.cells import unroll, wave
from wrnn_jax.validation import require

INPUTS = 3
SYSTEMS = {"wave field": "shift", "static bump": "identity"}
"""What a system is called, and how its recurrent kernel starts (and here, untrained, remains)."""
BUMP = 2.0  # neurons: the standard deviation of what an input writes around its source
SOURCE = 8  # neurons from the ring's end: a wave travels down the index, so that most of the ring is ahead of it
OTHER = {"color": "k", "ls": (0, (3, 3)), "lw": 0.9}


def bump_figure(signals: np.ndarray) -> Figure:
    """A field of waves keeps the order of its inputs, a static bump only which there were, as in the paper's Fig. 1.

    Two systems of three rings that differ in nothing but the recurrent kernel take in the same signals, each input
    writing a small bump onto its own ring::

        wave field    h_{t+1}[c, i] = h_t[c, i+1] + V[c, i] x_t[c]     when an input came is where its bump is now
        static bump   h_{t+1}[c, i] = h_t[c, i]   + V[c, i] x_t[c]     sums over time, which have no order

    Left: the signals as they are. Right: the onsets the other way round (input 1 gets the signal of input 3). Top to
    bottom: signals, wave field, static bump, time to the right and each ring's neurons downward; beside each its final
    state, with that of the other order dashed: apart for the waves, one for the bump.

    Args:
      signals: ``(T, 3)``, of 0 and 1, equally many 1 in each column: else the sums would differ.

    Raises:
      ValueError: for another shape, other values, or columns with different sums.
    """
    signals = np.asarray(signals, float)
    require(signals.ndim == 2 and signals.shape[1] == INPUTS, "signals.shape", signals.shape, "(T, 3)")
    require(bool(np.isin(signals, (0, 1)).all()), "signals", np.unique(signals).tolist(), "0 or 1 throughout")
    counts = signals.sum(0).astype(int).tolist()
    require(counts[0] > 0 and len(set(counts)) == 1, "signals.sum(0)", counts, "the same in each column, above 0")
    figure = Figure((WIDTH, 8.4), layout="constrained")
    axes = figure.subplots(
        1 + len(SYSTEMS), 4, sharex="col", sharey="row", width_ratios=(5, 2) * 2, height_ratios=(1, 3, 3)
    )
    for column, name, inputs in ((0, "one order", signals), (2, "the other order", signals[:, ::-1])):
        _draw_signals(axes[0, column], inputs)
        axes[0, column].set_title(name, fontsize=11, fontweight="bold")
        axes[0, column + 1].axis("off")
        axes[-1, column].set_xlabel("time step")
        axes[-1, column + 1].set_xlabel("activity")
    for row, (name, kernel_init) in zip(axes[1:], SYSTEMS.items(), strict=True):
        states = ring_states(np.stack([signals, signals[:, ::-1]], axis=1), kernel_init)
        _draw_system(row, states[:, 0], states[:, 1], is_moving=kernel_init == "shift")
        row[0].set_ylabel(f"{name}\n({kernel_init} kernel)", fontsize=10, fontweight="bold")
    axes[0, 0].set_ylabel("signals", fontsize=10, fontweight="bold")
    figure.suptitle("A wave field knows when each input came; a static bump, only that it came", fontsize=12)
    handles = [Line2D([], [], label="final state", color="k"), Line2D([], [], label="that of the other order", **OTHER)]
    figure.legend(handles=handles, loc="outside lower right", ncols=2, fontsize=9, frameon=False)
    return figure


def ring_states(signals: np.ndarray, kernel_init: str) -> np.ndarray:
    """The states ``(T, B, C, N)`` of C linear rings with each one of the signals ``(T, B, C)`` as input; N = T + 16."""
    steps, _, channels = signals.shape
    neurons = steps + 2 * SOURCE
    cell = wave(channels, neurons, activation="identity", kernel_init=kernel_init)
    params = cell.init(jax.random.key(0), channels)
    profile = np.exp(-0.5 * ((np.arange(neurons) - (neurons - 1 - SOURCE)) / BUMP) ** 2)
    kernel = np.eye(channels)[:, None, :] * profile[None, :, None]
    params["encoder"]["kernel"] = jnp.asarray(kernel, jnp.float32)
    xs = jnp.asarray(signals, jnp.float32)
    return np.asarray(unroll(cell, params, xs, time_major=True, return_hidden=True).hidden)


def _draw_signals(axis: Axes, signals: np.ndarray) -> None:
    """Each signal ``(T,)`` as a staircase of its own, the first on top."""
    for index, (signal, color) in enumerate(zip(signals.T, COLORS, strict=False)):
        axis.step(np.arange(len(signal)), 0.8 * signal - index, where="mid", color=color, gid="signal")
    axis.set_yticks(-np.arange(INPUTS), [f"input {index + 1}" for index in range(INPUTS)], fontsize=8)
    axis.tick_params(labelbottom=False)
    open_axes(axis)


def _draw_system(row: Sequence[Axes], one: np.ndarray, two: np.ndarray, *, is_moving: bool) -> None:
    """Both orders' states ``(T, C, N)``: over time, and at the end beside the other's."""
    for index, (own, other) in enumerate(((one, two), (two, one))):
        _draw_rings(row[2 * index], own)
        _draw_final(row[2 * index + 1], own[-1], other[-1], is_moving)
    difference = np.abs(one[-1] - two[-1]).max()
    kept = f"the order is kept: the two final states differ by up to {difference:.3g}"
    verdict = kept if difference else "the order is lost: the two final states are equal"
    row[0].set_title(verdict, fontsize=9, loc="left")


def _draw_rings(axis: Axes, states: np.ndarray) -> None:
    """The rings ``(T, C, N)`` below one another, each from white to its own colour."""
    steps, rings, neurons = states.shape
    for ring, color in zip(range(rings), COLORS, strict=False):
        extent = (-0.5, steps - 0.5, (ring + 1) * neurons, ring * neurons)
        colors = LinearSegmentedColormap.from_list("ring", ["white", color])
        axis.imshow(states[:, ring].T, extent=extent, cmap=colors, vmin=0, vmax=states.max(), aspect="auto")
        axis.axhline((ring + 1) * neurons, color=GREY, lw=0.8)
    axis.set(xlim=(-0.5, steps - 0.5), ylim=(rings * neurons, 0))
    axis.set_yticks((np.arange(rings) + 0.5) * neurons, [f"ring {ring + 1}" for ring in range(rings)], fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(6, **TICKS))


def _draw_final(axis: Axes, own: np.ndarray, other: np.ndarray, is_moving: bool) -> None:
    """Final states ``(C, N)``, activity to the right; how far a wave is from its source tells when it came."""
    rings, neurons = own.shape
    for ring, color in zip(range(rings), COLORS, strict=False):
        position = (ring + (np.arange(neurons) + 0.5) / neurons) * neurons
        axis.plot(own[ring], position, color=color, lw=1.8, gid="final")
        axis.plot(other[ring], position, gid="other", **OTHER)
        moved = neurons - 1 - SOURCE - int(own[ring].argmax())
        side = -1 if moved > neurons / 2 else 1
        place = {"xytext": (0, 11 * side), "xycoords": axis.get_yaxis_transform(), "ha": "right", "va": "center"}
        note = f"{moved} steps ago" if is_moving else "when?"
        axis.annotate(note, (1, position[own[ring].argmax()]), **place, **NOTE)
        axis.axhline((ring + 1) * neurons, color=GREY, lw=0.8)
    axis.set_xlim(-0.05 * own.max(), 1.25 * own.max())
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(left=False)
