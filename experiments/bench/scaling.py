"""Cost and memory against T, neurons, channels, and batch."""

from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from experiments.bench import jax_step, report
from experiments.bench.race import Contender, race
from experiments.bench.workloads import Workload
from wrnn_jax.analysis.plots.style import COLORS
from wrnn_jax.validation import require, require_choice, require_integer

BASE = Workload("", 300, 6, 100, 10, 10, "last", 300, batch=8)
LONG = (100, 1_000, 10_000, 100_000)
SWEEPS = {
    "T": ("steps", LONG, BASE),
    "T, identity": ("steps", LONG, replace(BASE, activation="identity")),
    "neurons": ("neurons", (25, 50, 100, 200, 400), BASE),
    "channels": ("channels", (1, 2, 4, 8, 16, 32), BASE),
    "batch": ("batch", (2, 8, 32, 128, 512), BASE),
}
SCAN_UP_TO = 10_000
"""Steps: beyond, the scan's stored states want more memory than many machines have."""


@dataclass(frozen=True)
class ScalingConfig:
    """Forward and backward pass and Adam against T, neurons, channels and batch: time and peak memory."""

    sweeps: tuple[str, ...] = tuple(SWEEPS)
    """Which: T, "T, identity" (where the recurrence is linear), neurons, channels, batch."""
    longest: int = LONG[-1]
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
    for sweep in config.sweeps:
        field, values, base = SWEEPS[sweep]
        for value in values:
            workload = replace(base, **{field: value})
            if workload.steps <= config.longest:
                for result in race(contenders(workload), config.rounds).values():
                    found.append({"sweep": sweep, "value": value, **result._asdict()})
                    memory = report.mebibytes(result.peak_bytes)
                    rows.append([sweep, f"{value:,}", result.name, report.spread(result), memory])
    config.out.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(config.out / "scaling.png", dpi=120)
    base = f"T = {BASE.steps}, c = {BASE.channels}, n = {BASE.neurons}, batch {BASE.batch} but for what is varied"
    header = ["varied", "value", "backend", "one Adam step: median (range)", "peak memory"]
    report.write(config.out, "scaling", {"base": base, "scaling": found}, f"{base}\n\n{report.table(header, rows)}")
    return 0


def contenders(workload: Workload) -> list[Contender]:
    backends = ["fused", "native"]
    if workload.steps <= SCAN_UP_TO:
        backends.append("scan")
    if workload.activation == "identity":
        backends.append("parallel")
    return [Contender(backend, jax_step.unrolled, (workload, backend)) for backend in backends]


def draw(found: list[dict]) -> Figure:
    """A panel of times for each sweep, below it one of peak memory."""
    sweeps = list(dict.fromkeys(point["sweep"] for point in found))
    figure = Figure((3.4 * len(sweeps), 6), layout="constrained")
    panels = figure.subplots(2, len(sweeps), squeeze=False, sharex="col")
    colors = dict(zip(["fused", "scan", "parallel", "native"], COLORS, strict=False))
    for column, sweep in enumerate(sweeps):
        points = [point for point in found if point["sweep"] == sweep]
        for name in dict.fromkeys(point["name"] for point in points):
            mine = [point for point in points if point["name"] == name]
            x = [point["value"] for point in mine]
            style = {"marker": "o", "ms": 4, "color": colors[name], "label": name}
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
