"""Cost and memory against T, neurons, channels, and batch; of linear layers against T."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from experiments.bench import jax_step, layer_step, report
from experiments.bench.layer_step import LayerWorkload
from experiments.bench.race import Contender, race
from experiments.bench.workloads import Workload
from wrnn_jax.analysis.plots.style import COLORS
from wrnn_jax.validation import require, require_choice, require_integer

BASE = Workload("", 300, 6, 100, 10, 10, "last", 300, batch=8)
LAYERS = LayerWorkload(784, 64, 64, batch=2)
LONG = (100, 1_000, 10_000, 100_000)
LONGER = (784, 4_096, 16_384, 65_536, 262_144)
UP_TO = {"scan": 16_384, "S4D": 65_536}
"""Steps: beyond, the scan's stored states, or a Vandermonde matrix, want more memory than many machines have."""


def networks(workload: Workload) -> list[Contender]:
    """Of the Wave-RNN, by our backends."""
    backends = ["fused", "native", "scan"]
    if workload.activation == "identity":
        backends.append("parallel")
    return [Contender(backend, jax_step.unrolled, (workload, backend)) for backend in backends]


def linear_layers(workload: LayerWorkload) -> list[Contender]:
    """The linear wave in its two forms, which compute the same, and others."""
    alike = ("FFT", "scan")
    ways = layer_step.WAYS
    return [Contender(way, layer_step.layer_step, (workload, way), alike=way in alike) for way in ways]


class Sweep(NamedTuple):
    """One size that varies."""

    field: str
    values: Sequence[int]
    base: Any
    """The workload but for it."""
    contenders: Callable[[Any], list[Contender]] = networks


SWEEPS = {
    "T": Sweep("steps", LONG, BASE),
    "T, identity": Sweep("steps", LONG, replace(BASE, activation="identity")),
    "neurons": Sweep("neurons", (25, 50, 100, 200, 400), BASE),
    "channels": Sweep("channels", (1, 2, 4, 8, 16, 32), BASE),
    "batch": Sweep("batch", (2, 8, 32, 128, 512), BASE),
    "T, linear layers": Sweep("steps", LONGER, LAYERS, linear_layers),
}
SIZES = (
    f"T = {BASE.steps}, c = {BASE.channels}, n = {BASE.neurons}, batch {BASE.batch} but for what is varied. "
    f"Linear layers: c = {LAYERS.features}, n = {LAYERS.neurons}, batch {LAYERS.batch}; "
    "n is the numbers on a feature's ring, of S4D two for each of its complex modes; the LRU has n complex numbers for "
    "all features together."
)
COLOR_OF = dict(zip(("fused", "scan", "parallel", "native", "FFT", "S4D", "LRU"), COLORS, strict=True))


@dataclass(frozen=True)
class ScalingConfig:
    """Forward and backward pass and Adam against T, neurons, channels and batch: time and peak memory."""

    sweeps: tuple[str, ...] = tuple(SWEEPS)
    """Which: T, "T, identity" (where the recurrence is linear), neurons, channels, batch, "T, linear layers" (the
    linear wave by FFT and by the scan, S4D and LRU)."""
    longest: int = LONGER[-1]
    """The largest T."""
    rounds: int = 3
    """Turns of every contender, after one to warm up."""
    out: Path = Path("runs/bench")
    """Folder for scaling.json, scaling.md and scaling.png."""

    def __post_init__(self):
        require(len(self.sweeps) > 0, "sweeps", "", "one or more of " + ", ".join(SWEEPS))
        for sweep in self.sweeps:
            require_choice("sweeps", sweep, SWEEPS)
        require_integer("longest", self.longest, at_least=LONG[0])
        require_integer("rounds", self.rounds, at_least=1)


def run(config: ScalingConfig) -> int:
    rows, found = [], []
    for name in config.sweeps:
        sweep = SWEEPS[name]
        for value in sweep.values:
            workload = replace(sweep.base, **{sweep.field: value})
            if workload.steps <= config.longest:
                able = [
                    one for one in sweep.contenders(workload) if workload.steps <= UP_TO.get(one.name, workload.steps)
                ]
                for result in race(able, config.rounds).values():
                    found.append({"sweep": name, "value": value, **result._asdict()})
                    memory = report.mebibytes(result.peak_bytes)
                    rows.append([name, f"{value:,}", result.name, report.spread(result), memory])
    config.out.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(config.out / "scaling.png", dpi=120)
    header = ["varied", "value", "backend", "one Adam step: median (range)", "peak memory"]
    report.write(config.out, "scaling", {"base": SIZES, "scaling": found}, f"{SIZES}\n\n{report.table(header, rows)}")
    return 0


def draw(found: list[dict]) -> Figure:
    """A panel of times for each sweep, below it one of peak memory."""
    sweeps = list(dict.fromkeys(point["sweep"] for point in found))
    figure = Figure((max(3.4 * len(sweeps), 5), 6), layout="constrained")  # The legend wants that much.
    panels = figure.subplots(2, len(sweeps), squeeze=False, sharex="col")
    for column, sweep in enumerate(sweeps):
        points = [point for point in found if point["sweep"] == sweep]
        for name in dict.fromkeys(point["name"] for point in points):
            mine = [point for point in points if point["name"] == name]
            x = [point["value"] for point in mine]
            style = {"marker": "o", "ms": 4, "color": COLOR_OF[name], "label": name}
            panels[0, column].plot(x, [point["median"] for point in mine], **style)
            panels[1, column].plot(x, [point["peak_bytes"] / 2**30 for point in mine], **style)
        panels[0, column].set(xscale="log", yscale="log", title=sweep)
        panels[1, column].set(xscale="log", ylim=(0, None), xlabel=sweep.split(",")[0])
        ticks = sorted({point["value"] for point in points})
        panels[1, column].set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        for panel in panels[:, column]:
            panel.minorticks_off()
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("one Adam step, s")
    panels[1, 0].set_ylabel("peak memory, GiB")
    lines = {line.get_label(): line for panel in panels[0] for line in panel.lines}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=len(lines), frameon=False)
    return figure
