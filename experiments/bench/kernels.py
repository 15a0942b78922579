"""One optimiser step of the paper's networks, by our backends and by what else there is."""

from dataclasses import dataclass
from pathlib import Path

from experiments.bench import jax_step, report
from experiments.bench.race import Contender, race
from experiments.bench.workloads import WORKLOADS, Workload
from wrnn_jax.validation import require, require_choice, require_integer

YARDSTICKS = ("PyTorch loop", "PyTorch loop, one thread")
"""The faster of them is what ratios are to: on a busy machine PyTorch's threads wait for one another."""


@dataclass(frozen=True)
class KernelsConfig:
    """One Adam step of four networks: our backends beside a plain PyTorch loop, lax.scan, flax.linen.RNN, an LSTM."""

    workloads: tuple[str, ...] = tuple(WORKLOADS)
    """Which of A (copy, T = 480), B (adding, T = 1000), C (sMNIST), D (copy with an iRNN)."""
    rounds: int = 7
    """Turns of every contender, after one to warm up."""
    out: Path = Path("runs/bench")
    """Folder for kernels.json and kernels.md."""

    def __post_init__(self):
        require(len(self.workloads) > 0, "workloads", "", "one or more of " + ", ".join(WORKLOADS))
        for letter in self.workloads:
            require_choice("workloads", letter, WORKLOADS)
        require_integer("rounds", self.rounds, at_least=1)


def run(config: KernelsConfig) -> int:
    rows, found = [], {}
    for letter in config.workloads:
        workload = WORKLOADS[letter]
        results = race(contenders(workload), config.rounds)
        found[letter] = {"title": workload.title, **{name: result._asdict() for name, result in results.items()}}
        yardstick = min((results[name].median for name in YARDSTICKS if name in results), default=None)
        for result in results.values():
            ratio = f"{yardstick / result.median:.2f} ×" if yardstick else "–"
            rows.append([letter, result.name, report.spread(result), ratio, report.mebibytes(result.peak_bytes)])
    titles = "\n".join(f"{letter}: {WORKLOADS[letter].title}, batch {WORKLOADS[letter].batch}" for letter in found)
    header = ["", "contender", "one Adam step: median (range)", "times the speed of the PyTorch loop", "peak memory"]
    note = "≈: measured at a smaller T and scaled to the whole, which spares it what memory for the whole T would cost."
    report.write(config.out, "kernels", {"workloads": found}, f"{titles}\n\n{report.table(header, rows)}\n\n{note}")
    return 0


def contenders(workload: Workload) -> list[Contender]:
    """PyTorch's, the plain ways in JAX, and our backends."""
    short = workload.of_steps(workload.slow_steps)
    share = short.steps / workload.steps
    ways = [
        Contender(YARDSTICKS[0], torch_loop, (short,), share),
        Contender(YARDSTICKS[1], torch_loop, (short, 1), share),
        Contender("torch.nn.LSTM, n neurons", torch_lstm, (short,), share, alike=False),
        Contender("lax.scan", jax_step.unrolled, (short, "scan"), share),
        Contender("flax.linen.RNN", jax_step.flax_rnn, (short,), share),
        Contender("fused", jax_step.unrolled, (workload, "fused")),
        Contender("fused, one device", jax_step.unrolled, (workload, "fused", "roll", 1)),
        Contender("native", jax_step.unrolled, (workload, "native")),
        Contender("native, one device", jax_step.unrolled, (workload, "native", "roll", 1)),
    ]
    if workload.taps:
        ways.insert(4, Contender("lax.scan with lax.conv", jax_step.unrolled, (short, "scan", "conv"), share))
    return ways


def torch_loop(workload: Workload, threads: int | None = None):
    """See :mod:`experiments.bench.torch_loop`, which is imported only in the contender's process."""
    return _torch().loop(workload, threads)


def torch_lstm(workload: Workload):
    return _torch().lstm(workload)


def _torch():
    try:
        from experiments.bench import torch_loop as module
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("PyTorch is not installed: python3 -m pip install -e '.[bench]'") from error
    return module
