"""Models of one's own: the page's example is trained as the published ones are; what does not fit is refused in one
line, before anything is written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from models_page import COMMANDS, FILE, MODEL, PAGE, write_model
from small import draw_nothing

from experiments import copy, figures
from experiments.runs import open_run
from helpers import refusal, run
from wrnn_jax.layers import Stream, Variables
from wrnn_jax.models import MODELS, Model, configure, stateless
from wrnn_jax.models.contract import require_fit
from wrnn_jax.typing import Signature
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("standard_promotion")

TINY = ["--T", 0, "--n-hid", 4, "--batch", 4, "--stop-below", 0, "--log-interval", 2, "--checkpoint-interval", 2]
MISFIT = '''
from dataclasses import dataclass
import jax.numpy as jnp
from wrnn_jax.models import Entry, ModelConfig, stateless

@dataclass(frozen=True)
class Config(ModelConfig):
    """Models that do not fit."""

    wrong: str = ""
    """What."""

    def __post_init__(self):
        if self.wrong == "config":
            raise OSError("one\\ntwo")

    def build(self, signature):
        def init(key):
            return {"a": jnp.ones(()) if self.wrong != "init" else 1 / 0}

        def apply(params, xs):
            return params["a"] * (xs if self.wrong == "nothing" else xs[:, 0])

        return None if self.wrong == "build" else stateless(init, apply)

model = Entry("misfit", Config, "")
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of one's own modules, with the page's among them."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        write_model(folder, patch)
        yield folder


PARAMS = {"W": jnp.ones((3, 3))}
MEANS = {"mean": jnp.zeros(3)}
FITTING = stateless(lambda key: PARAMS, lambda params, xs: xs @ params["W"])
COUNTING = Model(lambda key: Variables(PARAMS, MEANS), lambda variables, xs, training=None: (xs, variables.stats))


def applying(function, model=FITTING):
    return model._replace(apply=function)


STREAM = Stream(lambda variables, sequences: jnp.zeros(sequences), lambda variables, carry, xs: (carry, xs))


def streaming(run):
    return FITTING._replace(stream=STREAM._replace(run=lambda variables, carry, xs: run(carry, xs)))


WRONG = {
    "apply(variables, xs) gives outputs (2, 4, 3) of floating-point numbers for xs (2, 4, 3), not float32 (2, 3)": (
        stateless(lambda key: PARAMS, lambda params, xs: xs[:, 0])
    ),
    "apply(variables, xs) gives outputs (2, 4, 3) of floating-point numbers for xs (2, 4, 3), not int32 (2, 4, 3)": (
        stateless(lambda key: PARAMS, lambda params, xs: xs.astype(int))
    ),
    "apply(variables, xs) gives (outputs, stats), not float32 (2, 4, 3)": applying(lambda variables, xs: xs),
    "apply(variables, xs) runs: it raises KeyError: 'V'": stateless(lambda key: PARAMS, lambda params, xs: params["V"]),
    "apply(variables, xs) gives stats as init does, a dict of ['mean'] float32 (3,), not a tuple": (
        applying(lambda variables, xs, training=None: (xs, ()), COUNTING)
    ),
    "apply(variables, xs, training) gives stats as init does, a dict of ['mean'] float32 (3,), not a dict of ['mean'] "
    "float32 (2,)": applying(
        lambda variables, xs, training=None: (xs, {"mean": jnp.zeros(2)} if training else variables.stats), COUNTING
    ),
    "apply(variables, xs, training) runs: it raises TypeError": applying(lambda variables, xs: (xs, ())),
    "init(key) gives Variables(params, stats), not a dict of ['W'] float32 (3, 3)": (
        FITTING._replace(init=lambda key: PARAMS)
    ),
    "init(key) runs: it raises ValueError: one": FITTING._replace(init=lambda key: _fail("one\ntwo")),
    "params are arrays to be trained, not a dict": stateless(lambda key: {}, lambda params, xs: xs),
    "params['n'] is of floating-point numbers, not int32 ()": stateless(lambda key: {"n": 3}, lambda params, xs: xs),
    "hidden(variables, xs) gives {name: states (2, T, C, N)}, not float32 (2, 4, 3)": (
        FITTING._replace(hidden=lambda variables, xs: xs)
    ),
    "stream is a Stream(start, run), not a tuple of [0] a function, [1] a function": (
        FITTING._replace(stream=tuple(STREAM))
    ),
    "stream.start(variables, sequences) gives arrays (2, …), not float32 (3,)": (
        FITTING._replace(stream=STREAM._replace(start=lambda variables, sequences: jnp.zeros(3)))
    ),
    "stream.run(variables, carry, xs) gives (carry, outputs), not float32 (2, 1, 3)": streaming(lambda carry, xs: xs),
    "stream.run(variables, carry, xs) gives a carry as start does, float32 (2,), not float32 (2, 3)": streaming(
        lambda carry, xs: (xs[:, 0], xs)
    ),
    "stream.run(variables, carry, xs) gives outputs (2, 1, 3) of floating-point numbers for xs (2, 1, 3), not float32 "
    "(2, 3)": streaming(lambda carry, xs: (carry, xs[:, 0])),
    "stream.run(variables, carry, xs) runs: it raises IndexError": streaming(lambda carry, xs: (carry, xs[:, 1, 5, 5])),
    "hidden(variables, xs) gives {name: states (2, T, C, N)}, not a dict of ['0'] float32 (2, 4, 3)": (
        FITTING._replace(hidden=lambda variables, xs: {"0": xs})
    ),
    "hidden(variables, xs) gives {name: states (2, T, C, N)}, not a dict": (
        FITTING._replace(hidden=lambda variables, xs: {})
    ),
    "constrain(params) gives a dict of ['W'] float32 (3, 3), not float32 (3, 3)": (
        FITTING._replace(constrain=lambda params: params["W"])
    ),
    "rates(params) gives a number for each of params, or for parts of them, not a dict of ['V'] float32 ()": (
        FITTING._replace(rates=lambda params: {"V": 1.0})
    ),
    "decays(params) gives a number for each of params, or for parts of them, not None": (
        FITTING._replace(decays=lambda params: None)
    ),
}


def _fail(message):
    raise ValueError(message)


def test_what_fits_is_taken():
    every, last = (Signature(3, 3, 4, read) for read in ("all", "last"))
    parts = FITTING._replace(
        rates=lambda params: 0.1, decays=lambda params: {"W": False}, constrain=lambda params: params
    )
    for model in (
        FITTING,
        COUNTING,
        parts,
        FITTING._replace(stream=STREAM),
        FITTING._replace(hidden=lambda variables, xs: {"": xs[:, ::2, None]}),
    ):
        require_fit("mine:model", model, every)
    require_fit("mine:model", stateless(lambda key: PARAMS, lambda params, xs: xs[:, -1]), last)


@pytest.mark.parametrize("message", WRONG, ids=range(len(WRONG)))
def test_what_does_not_fit_is_told_in_one_line(message):
    with pytest.raises(InvalidValue) as refused:
        require_fit("mine:model", WRONG[message], Signature(3, 3, 4, "all"))
    assert str(refused.value).startswith(f"model = 'mine:model': must be one whose {message}")
    assert "\n" not in str(refused.value)


def test_the_page_shows_a_whole_model(own, tmp_path):
    """It trains, resumes, is read back by its own type, and its hidden states are drawn."""
    assert len(FILE.splitlines()) < 60
    for link in re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / link).exists(), link
    tiny = ["--model", MODEL, "--dt", 0.05, *TINY, "--logdir", tmp_path, "--max-steps"]
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        assert run(copy.main, *tiny, 2) == 0
    assert run(copy.main, *tiny, 4, "--resume") == 0
    opened = open_run(tmp_path)
    assert [row["step"] for row in opened.rows] == [2, 4]
    assert opened.config.model == configure(MODEL, n_hid=4, dt=0.05)
    assert type(opened.config.model).__name__ == "CoRNNConfig"
    assert opened.summary["params"] == 4 * (10 + 2 * 4 + 1) + 10 * (4 + 1)
    assert {"task.png", "training.png", "waves.png"} <= {path.name for path in (tmp_path / "figures").iterdir()}


@pytest.mark.usefixtures("undrawn")
def test_its_own_flags_go_over_a_grid(own, tmp_path):
    tiny = ["--model", MODEL, *TINY, "--max-steps", 2, "--grid.dt", 0.02, 0.05]
    assert run(copy.main, *tiny, "--logdir", tmp_path / "grid") == 0
    members = sorted((tmp_path / "grid/members").iterdir())
    assert [open_run(member).config.model.dt for member in members] == [0.02, 0.05]


@pytest.mark.parametrize(
    "command", [pytest.param(COMMANDS[0] + " --max-steps 1 --n-hid 4", marks=pytest.mark.slow), COMMANDS[-1]]
)
def test_it_is_found_where_one_works(own, command):
    """In a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=own, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert ("126 parameters" if "--n-hid" in command else "--epsilon") in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page_are_understood(own, command, monkeypatch, capsys):
    monkeypatch.setattr("experiments.program.run", lambda experiment, config, command: 0)
    monkeypatch.setattr("experiments.program.run_grid", lambda experiment, grid: 0)
    assert run(copy.main, *shlex.split(command)[3:]) == 0
    if "--help" in command:
        shown = capsys.readouterr().out
        assert "--epsilon" in shown
        assert "--ksize" not in shown


def test_what_names_no_model_is_refused_in_one_line(own, tmp_path, capsys):
    (own / "broken.py").write_text("raise RuntimeError('one\\ntwo')")
    (own / "unmodelled.py").write_text(
        "from wrnn_jax.models import Entry, ModelConfig\nentry = Entry('x', int, '')\nConfig = ModelConfig\n"
    )
    for name, line in {
        "nowhere:model": "of a module that can be imported (No module named 'nowhere')",
        "broken:model": r"of a module that can be imported (one\ntwo)",
        "my_models:lem": "an Entry of my_models, which lem is not",
        "unmodelled:Config": "an Entry of unmodelled, which Config is not",
        "unmodelled:entry": "an Entry whose config is a subclass of ModelConfig",
        "cornn": f"one of {', '.join(MODELS)}, or package.module:name of an Entry",
    }.items():
        assert refusal(capsys, copy.main, "--model", name, "--logdir", tmp_path / "run") == (
            f"error: --model {name}: must be {line}"
        )
    assert not (tmp_path / "run").exists()


def test_a_model_without_hidden_states_is_trained_and_its_waves_are_not_asked_for(own, tmp_path, capsys):
    (own / "misfit.py").write_text(MISFIT)
    flags = ["--model", "misfit:model", "--wrong", "nothing", "--T", 0, "--batch", 4, "--max-steps", 1]
    assert run(copy.main, *flags, "--logdir", tmp_path) == 0
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"task.png", "training.png"}
    capsys.readouterr()
    for figure in ("spectra", "ring", "speeds"):
        refused = refusal(capsys, figures.main, tmp_path, "--figure", figure)
        allowed = "runs of a model with hidden states, which misfit:model has not, or more than there is room for"
        assert refused == f"error: --runs {tmp_path}: must be {allowed}"


def test_a_model_that_does_not_fit_the_task_leaves_nothing_behind(own, tmp_path, capsys):
    (own / "misfit.py").write_text(MISFIT)
    for wrong, line in {
        "config": "config runs: it raises OSError: one",
        "build": "build(signature) gives a Model, not None",
        "init": "init(key) runs: it raises ZeroDivisionError: division by zero",
        "apply": "apply(variables, xs) gives outputs (2, 20, 10) of floating-point numbers for xs (2, 20, 10), not "
        "float32 (2, 10)",
    }.items():
        given = ["--model", "misfit:model", "--wrong", wrong, "--T", 0, "--logdir", tmp_path / "run"]
        assert refusal(capsys, copy.main, *given) == f"error: --model misfit:model: must be one whose {line}"
    batch = ["--model", MODEL, "--norm", "batch", "--batch", 1, "--T", 0, "--logdir", tmp_path / "run"]
    assert refusal(capsys, copy.main, *batch) == "error: --batch 1: must be 2 or more for batch norm"
    assert not (tmp_path / "run").exists()
