"""The benchmark times the same work, names who fails, and refuses what is not comparable."""

import json
from functools import partial

import jax
import numpy as np
import pytest

from experiments.bench import __main__ as bench
from experiments.bench import grid, jax_step, kernels, layer_step, loop, report, scaling
from experiments.bench.layer_step import LayerWorkload
from experiments.bench.race import Contender, race
from experiments.bench.state_spaces import lru, s4d
from experiments.bench.workloads import WORKLOADS, Workload

TINY = {
    "wave": Workload("", 6, 2, 5, 3, 4, "all", 6, batch=4),
    "last": Workload("", 6, 2, 5, 3, 1, "last", 3, batch=4, loss="squared error"),
    "dense": Workload("", 6, 1, 5, 3, 4, "all", 6, batch=4, taps=0),
}
TINY_LAYERS = LayerWorkload(20, 3, 6, batch=4)


def sleeping(name, seconds, value, **options):
    """A contender that sleeps; of builtins alone, so that its process imports nothing of the tests."""
    return Contender(name, partial, (eval, f"__import__('time').sleep({seconds}) or {value}"), **options)


def test_a_race_measures_in_turns_and_leaves_out_who_fails(capfd):
    contenders = [
        sleeping("slow", 0.2, 1.0),
        sleeping("half", 0.02, 1.0, work=0.5),
        sleeping("other", 0, 2.0, alike=False),
        Contender("none", int, ("no such thing",)),
    ]
    results = race(contenders, 3)
    assert list(results) == ["slow", "half", "other"]
    assert results["slow"].rounds == 3
    assert 0.2 <= results["slow"].fastest <= results["slow"].median <= results["slow"].slowest
    assert results["half"].fastest >= 0.04
    assert results["slow"].peak_bytes > 2**20
    assert "none: not measured: ValueError: invalid literal" in capfd.readouterr().err


def test_a_race_of_different_work_is_refused():
    with pytest.raises(RuntimeError, match=r"b computed \[2.0, 2.0\], but a \[1.0, 1.0\]"):
        race([sleeping("a", 0, 1.0), sleeping("b", 0, 2.0)], 1)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", TINY)
def test_our_contenders_do_the_same_steps(name):
    """The loss falls alike, so that values and gradients agree."""
    workload = TINY[name]
    turns = {
        "scan": jax_step.unrolled(workload, "scan"),
        "fused": jax_step.unrolled(workload, "fused"),
        "flax": jax_step.flax_rnn(workload),
    }
    if workload.taps:
        turns["conv"] = jax_step.unrolled(workload, "scan", "conv")
    losses = {name: [turn() for _ in range(3)] for name, turn in turns.items()}
    assert losses["scan"][0] != losses["scan"][2]
    for found in losses.values():
        np.testing.assert_allclose(found, losses["scan"], rtol=1e-5)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", TINY)
def test_the_pytorch_loop_does_the_same_steps(name):
    torch_loop = pytest.importorskip("experiments.bench.torch_loop", reason="PyTorch is not installed")
    turn, ours = torch_loop.loop(TINY[name]), jax_step.unrolled(TINY[name], "scan")
    np.testing.assert_allclose([turn() for _ in range(3)], [ours() for _ in range(3)], rtol=1e-5)


@pytest.mark.usefixtures("standard_promotion")
def test_linear_layers_learn_and_the_waves_two_forms_do_the_same_steps():
    turns = {way: layer_step.layer_step(TINY_LAYERS, way) for way in layer_step.WAYS}
    losses = {way: [turn() for _ in range(3)] for way, turn in turns.items()}
    assert all(found[2] < found[0] for found in losses.values())
    np.testing.assert_allclose(losses["FFT"], losses["scan"], rtol=1e-5)


def started(layer, features, steps):
    """Its parameters in float64 too, inputs ``(B, T, C)``, and what it makes of them."""
    variables = jax.jit(layer.init, static_argnums=1)(jax.random.key(0), features)
    xs = np.random.default_rng(0).normal(size=(2, steps, features))
    ys, _ = jax.jit(layer.apply)(variables, np.float32(xs))
    return jax.tree.map(np.float64, variables.params), xs, ys


@pytest.mark.usefixtures("standard_promotion")
def test_s4d_is_its_recurrence():
    """x' = e^{ΔA} x + (e^{ΔA} − 1)/A u, y = 2 Re(C · x) + D u, step by step in NumPy."""
    params, xs, ys = started(s4d(3, 8), 3, 50)
    rates = -np.exp(params["log_decay"]) + 1j * params["frequency"]
    np.testing.assert_allclose(rates, np.tile(-0.5 + 1j * np.pi * np.arange(4), (3, 1)), rtol=1e-6)
    factors = np.exp(np.exp(params["log_step"])[:, None] * rates)
    state, expected = np.zeros((2, 3, 4), complex), []
    for t in range(50):
        state = factors * state + (factors - 1) / rates * xs[:, t, :, None]
        read = 2 * ((params["read"][0] + 1j * params["read"][1]) * state).sum(-1).real
        expected.append(read + params["skip"] * xs[:, t])
    np.testing.assert_allclose(ys, np.stack(expected, 1), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("standard_promotion")
def test_the_lru_is_its_recurrence():
    """x' = λ x + γ B u, y = Re(C x) + D u, step by step in NumPy; it starts within its ring."""
    params, xs, ys = started(lru(3, 8), 3, 50)
    factors = np.exp(-np.exp(params["nu"]) + 1j * np.exp(params["theta"]))
    assert np.all((np.abs(factors) > 0.9) & (np.abs(factors) < 0.999) & (np.angle(factors) < np.pi / 10))
    np.testing.assert_allclose(np.exp(params["log_gamma"]) ** 2, 1 - np.abs(factors) ** 2, rtol=1e-3)
    feed, read = (params[name][0] + 1j * params[name][1] for name in ("feed", "read"))
    state, expected = np.zeros((2, 8), complex), []
    for t in range(50):
        state = factors * state + np.exp(params["log_gamma"]) * (xs[:, t] @ feed.T)
        expected.append((state @ read.T).real + params["skip"] * xs[:, t])
    np.testing.assert_allclose(ys, np.stack(expected, 1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kernels", "--workloads", "A", "Z"], "--workloads Z: must be one of A, B, C, D"),
        (["kernels", "--rounds", "0"], "--rounds 0: must be a whole number, 1 or more"),
        (["grid", "--members", "3", "0"], "--members 0: must be a whole number, 1 or more"),
        (["loop", "--T", "-1"], "--T -1: must be a whole number, 0 or more"),
        (
            ["scaling", "--sweeps", "depth"],
            "--sweeps depth: must be one of T, T, identity, neurons, channels, batch, T, linear layers",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit:
        bench.main(arguments)
    assert exit.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_every_benchmark_writes_what_it_measured(tmp_path, monkeypatch, capfd):
    """Each in small, with real processes."""
    monkeypatch.setattr(kernels, "WORKLOADS", WORKLOADS | TINY)
    layers = scaling.Sweep("steps", (4, 9), TINY_LAYERS, scaling.linear_layers)
    networks = scaling.Sweep("steps", (4, 9), TINY["last"])
    monkeypatch.setattr(scaling, "SWEEPS", {"T": networks, "T, linear layers": layers})
    monkeypatch.setattr(scaling, "UP_TO", {"scan": 4})
    options = {"rounds": 1, "out": tmp_path}
    assert kernels.run(kernels.KernelsConfig(("last",), **options)) == 0
    assert grid.run(grid.GridConfig((0,), (2,), 1, **options)) == 0
    assert loop.run(loop.LoopConfig(0, 2, 4, **options)) == 0
    assert scaling.run(scaling.ScalingConfig(("T", "T, linear layers"), **options)) == 0
    printed = capfd.readouterr().out
    for name in ("kernels", "grid", "loop", "scaling"):
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert found["machine"]["processor"]
        assert "jax" in found["machine"]["versions"]
        text = (tmp_path / f"{name}.md").read_text()
        assert "| --- |" in text
        assert text in printed
    assert json.loads((tmp_path / "kernels.json").read_text())["workloads"]["last"]["fused"]["median"] > 0
    scaled = json.loads((tmp_path / "scaling.json").read_text())["scaling"]
    layers = [(point["value"], point["name"]) for point in scaled if point["sweep"] == "T, linear layers"]
    assert layers == [(4, way) for way in layer_step.WAYS] + [(9, way) for way in ("FFT", "S4D", "LRU")]
    assert (tmp_path / "scaling.png").stat().st_size > 1000


def test_numbers_are_written_with_units():
    assert [report.seconds(x) for x in (0.0123, 1.234, 123.4)] == ["12.3 ms", "1.23 s", "123 s"]
    assert report.mebibytes(3 * 2**20) == "3 MiB"
