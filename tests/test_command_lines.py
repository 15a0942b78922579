"""Hostile command lines of every program, in process: each is refused in one line, or describes what can be done."""

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

import chex
import jax
import numpy as np
import pytest

from experiments import (
    ablation,
    adding,
    cli,
    copy,
    experiment,
    figures,
    generate,
    grid,
    hds,
    language,
    nscifar10,
    psmnist,
    recall,
    report,
    selective,
    smnist,
)
from experiments.bench import __main__ as bench
from experiments.grid_flags import expand, hyper_parameters
from experiments.settings import RunConfig
from helpers import at_step, refusal
from wrnn_jax.datasets import stored
from wrnn_jax.datasets.download import DownloadError
from wrnn_jax.grids import hosts
from wrnn_jax.models import MODELS
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("standard_promotion")

ROOT = Path(__file__).parents[1]
SECONDS = 120
"""After which a line counts as one that hangs."""
LONGEST = 2000
"""Characters that a refusal may have."""
TRACED = 4
"""Lines of a program whose training is traced."""
EXPERIMENTS = {
    module.EXPERIMENT.name: module
    for module in (adding, copy, hds, language, nscifar10, psmnist, recall, selective, smnist)
}
OTHERS = {
    "ablation": ablation.Config,
    "figures": figures.Config,
    "generate": generate.Config,
    "report": report.Config,
}
BENCH = {kind.__metadata__[0].name: get_args(kind)[0] for kind in get_args(bench.Config)}
MAINS = {name: module.main for name, module in EXPERIMENTS.items()} | {
    "ablation": ablation.main,
    "figures": figures.main,
    "generate": generate.main,
    "report": report.main,
    **dict.fromkeys(BENCH, bench.main),
}

GIVEN = {int: "1 2 3 5 8 21", float: "1e-3 0.5 1 2.5 10", bool: "True False"}
"""What one may well give."""
HOSTILE = {
    int: "-1 0 -0 2147483647 2147483648 -2147483649 4294967296 9223372036854775808 1000000000 1000000 1e3 1.5 1_000",
    float: "0 -0.0 -1 -1e-3 1e400 1e-400 1e300 1e-300 3.5e38 3e38 1e-38 1e-46 1e9 0x10 1,5",
    bool: "yes true 1",
}
WORDS = ["", " ", "-", "--", "ü", "\udcff", "a\nb", "a\rb", "\x1b[31m", "\0", "x" * 300, "9" * 5000, "y" * 70_000]
WORDS += ["None", "nan", "inf", "-inf", "1e400", "٣", "²", "+3", "007", "-x", "--T", "--grid.lr", "[]", "{}", "'", '"']
WORDS += ["%s", "{0}", "$HOME", "~", "1:2", "localhost:0", "1,2", "1,", ","]
OF_NO_PROGRAM = [
    "--no-such-flag",
    "--grid.",
    "--grid",
    "--grid.no-such 1",
    "-x",
    "-T 3",
    "--",
    "word",
    "--=",
    "--T=--T",
]
OF_NO_PROGRAM += ["--task.T 3", "--run", "--T", "--T 1 2", "--lr", "--logdir", "--help=3"]


class Done(BaseException):
    """The line describes what can be done; not to be caught by what handles errors."""


class Hangs(BaseException):
    """The line took longer than it may."""


class Flag:
    """A flag of a program: the kinds of its values, and the words among which one chooses."""

    def __init__(self, owner, name, hint):
        self.name, self.words, self.kinds = name, [], set()
        self.is_tuple = False
        self._add(hint)
        said = next(_sayings(kind)[name] for kind in owner.__mro__ if name in _sayings(kind))
        for row in re.findall(r"[\w-]+(?:\s\|\s+[\w-]+)+", said):
            self.words += re.split(r"\s\|\s+", row)

    def _add(self, hint):
        if get_origin(hint) in (Union, UnionType, tuple, Annotated):
            self.is_tuple |= get_origin(hint) is tuple
            for part in get_args(hint)[: 1 if get_origin(hint) is Annotated else None]:
                self._add(part)
        elif get_origin(hint) is Literal:
            self.words += get_args(hint)
        elif hint not in (NoneType, Ellipsis):
            self.kinds.add(hint)


@functools.cache
def _sayings(owner):
    """What a class says of its fields."""
    (made,) = ast.parse(inspect.getsource(owner)).body
    pairs = zip(made.body, made.body[1:], strict=False)
    fields = ((node.target.id, said) for node, said in pairs if isinstance(node, ast.AnnAssign))
    return {name: said.value.value for name, said in fields if isinstance(said, ast.Expr)}


def flags_of(config):
    """All flags of a config."""
    for name, hint in get_type_hints(config, include_extras=True).items():
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if dataclasses.is_dataclass(plain):
            yield from flags_of(plain)
        elif name in {field.name for field in dataclasses.fields(config)}:
            yield Flag(config, name, hint)


class Lines:
    """Random lines of a program: some flags, as one may give them, and in most lines a few that nobody should."""

    def __init__(self, name, home, seed=0):
        self.random = random.Random(f"{name} {seed}")
        self.name = name
        self.flags = {} if name in EXPERIMENTS else {flag.name: flag for flag in flags_of({**OTHERS, **BENCH}[name])}
        self.models = MODELS if name in EXPERIMENTS else ()
        (home / "file").touch()
        (home / "text").write_text("The wave comes round and round. " * 300)
        (home / "run").mkdir(exist_ok=True)
        below = (
            "ok",
            "a b",
            "ü",
            "a\nb",
            "\udcff",
            "file",
            "file/x",
            "n" * 300,
            "d/" * 3000,
            "run",
            "text",
            "x.png",
            "x.gif",
        )
        self.paths = ["", str(home), "/dev/null", "/dev/null/x", "/proc/x", *(f"{home}/{each}" for each in below)]
        self.text = str(home / "text")
        self.axes, self.presets = [], list(EXPERIMENTS[name].EXPERIMENT.presets) if name in EXPERIMENTS else []

    def draw(self):
        """One, as a list of words."""
        hostility = self.random.choice([0.0, 0.0, 0.3, 1.0])
        model = self._of_a_model() if self.models else None
        names = self.random.choices(list(self.flags), k=self.random.choice([1, 1, 2, 2, 3, 5]))
        parts = [self._flag(self.flags[name], hostility) for name in names]
        if model and "model" not in names:
            parts.append(["--model", model])
        if self.presets and self.random.random() < 0.2:
            parts.append(["--preset", self.random.choice(self.presets)])
        if self.axes and self.random.random() < 0.25:
            parts += [self._axis(hostility) for _ in range(self.random.choice([1, 1, 2]))]
        if self.random.random() < 0.1 * hostility:
            parts.append(self.random.choice(OF_NO_PROGRAM).split(" "))
        if "dataset" in self.flags and "dataset" not in names:
            parts.append(["--dataset", "digits"])
        if "text" in self.flags and not {"text", "data_dir"} & set(names):
            parts.append(["--text", self.text])
        if self.name in EXPERIMENTS and self.name != "hds" and "n_hid" not in names and self.random.random() < 0.9:
            parts.append(["--n-hid", "6"])  # To trace what is large takes its time.
        if self.name == "figures" and self.random.random() < 0.7:
            parts.append([self.random.choice(self.paths)])
        self.random.shuffle(parts)
        return [self.name] * (self.name in BENCH) + [word for part in parts for word in part]

    def _of_a_model(self):
        """The name of one, whose flags and axes are now those of the lines."""
        model = self.random.choice(["wrnn", "wrnn", *self.models])
        sections = EXPERIMENTS[self.name].EXPERIMENT.sections(model)
        self.flags = {flag.name: flag for kind in sections.values() for flag in flags_of(kind)}
        self.flags["model"].words = list(self.models)
        self.axes = list(hyper_parameters(sections))
        return model

    def _flag(self, flag, hostility):
        if flag.name in ("run", "runs"):
            return [self.random.choice(self.paths)]
        name = "--" + (flag.name if self.random.random() < 0.05 else flag.name.replace("_", "-"))
        if flag.kinds == {bool} and self.random.random() > 0.2 * hostility:
            return [name.replace("--", "--no-") if self.random.random() < 0.3 else name]
        if self.random.random() < 0.05 * hostility:
            return [self.random.choice([name, name[:-1]])]
        several = flag.is_tuple or self.random.random() < 0.05 * hostility
        values = [self._value(flag, hostility) for _ in range(self.random.choice([0, 1, 2, 3]) if several else 1)]
        return [f"{name}={values[0]}"] if values and self.random.random() < 0.3 else [name, *values]

    def _axis(self, hostility):
        flag = self.flags[self.random.choice(self.axes)]
        values = [self._value(flag, hostility) for _ in range(self.random.choice([1, 2, 2, 3]))]
        return [f"--grid.{flag.name.replace('_', '-')}", *values]

    def _value(self, flag, hostility):
        if flag.name in ("logdir", "data_dir", "out", "text", "run"):
            return self.random.choice(self.paths)
        if flag.name == "preset" and self.presets and self.random.random() < 0.7:
            return self.random.choice(self.presets)
        is_hostile = self.random.random() < hostility
        kind = self.random.choice(sorted(flag.kinds, key=str)) if flag.kinds else str
        if is_hostile:
            return self.random.choice([*HOSTILE.get(kind, "").split(), *self.random.sample(WORDS, 6)])
        return self.random.choice([*GIVEN.get(kind, "").split(), *flag.words] or ["localhost:7777"])


@pytest.fixture
def undone(monkeypatch, tmp_path):
    """The folder that one is in; what would train, draw or measure there makes its folder and raises ``Done``."""

    def fit(trainer, task, train, directory):
        directory.create()
        raise Done(trainer, task, train)

    def fit_sweep(sweep, progress, chunk):
        raise Done(sweep.make_trainer(None), sweep.task, sweep.jobs[0].config)

    def done(*_):
        raise Done

    def unreachable(*_):
        raise DownloadError("no network")

    monkeypatch.setattr(experiment.fitting, "fit", fit)
    monkeypatch.setattr(grid, "fit_sweep", fit_sweep)
    monkeypatch.setattr(hosts, "Messenger", done)
    monkeypatch.setattr(stored, "prepare", unreachable)
    monkeypatch.setattr(bench, "build_once", lambda _: None)
    for module in (bench.grid, bench.kernels, bench.loop, bench.scaling):
        monkeypatch.setattr(module, "race", done)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@contextlib.contextmanager
def bounded():
    def ring(*_):
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ending(main, line):
    """How a line ends, and what it would have done: "done", "said" (what it was asked to print), "refused", or what is
    wrong."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with bounded(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(line)
    except Done as done:
        return "done", done.args
    except SystemExit as end:
        said = err.getvalue()
        is_one_line = said.startswith("error: ") and said.count("\n") == 1 and said.endswith("\n")
        if end.code == 2 and is_one_line and len(said) < LONGEST and said.strip().isprintable():
            return "refused", ()
        return f"ends with {end.code}: {said[-300:]!r}", ()
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}", ()
    return "said", ()


def tried(name, count, work, home):
    """The endings of so many lines, and what the good ones would have done."""
    lines, endings, asked = Lines(name, home), Counter(), []
    for _ in range(count):
        line = lines.draw()
        end, what = ending(MAINS[name], line)
        endings[end] += 1
        left = [path.name for path in work.iterdir()]
        assert end in ("done", "said", "refused"), f"{name} {line}: {end}"
        assert end != "refused" or not left, f"{name} {line} leaves {left}"
        asked += [what] if what else []
        for folder in left:
            shutil.rmtree(work / folder)
    return endings, asked


def test_some_hostile_lines(undone, tmp_path, monkeypatch):
    """A few of some programs; all of them are a slow test."""
    monkeypatch.setattr(experiment, "require_room", lambda *_: None)
    total = Counter()
    for name in [name for name in MAINS if name not in ("smnist", "psmnist", "nscifar10", "generate")]:
        total += tried(name, 4, undone, tmp_path)[0]
    assert min(total["refused"], total["done"]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", MAINS)
def test_a_hostile_line_is_refused_in_one_line_or_can_be_done(name, undone, tmp_path):
    """Thousands of lines: none ends otherwise, hangs, or leaves anything behind where it is refused. What those that
    are not refused would train can be traced, and one is trained."""
    endings, asked = tried(name, 200 if name in EXPERIMENTS else 300, undone, tmp_path)
    print(name, dict(endings))
    assert endings["refused"] > 60
    assert endings["done"] > 20 or name in ("figures", "report", "generate")  # There is nothing to read.
    steps = {id(one): size_of_a_step(*one) for one in random.Random(name).sample(asked, min(TRACED, len(asked)))}
    for trainer, task, train in (one for one in asked if id(one) in steps):
        hparams = train.hparams(task.epoch_steps(train.batch))
        given = jax.tree.leaves(hparams)
        assert all((np.float32(value) == 0) == (value == 0) and not np.isnan(value) for value in given), hparams
        before = jax.eval_shape(trainer.init, 0)
        chex.assert_trees_all_equal_shapes_and_dtypes(before, jax.eval_shape(trainer.advance, before, hparams, 0))
    if steps:
        trainer, task, train = min((one for one in asked if id(one) in steps), key=lambda one: steps[id(one)])
        state = trainer.advance(trainer.init(train.seed), train.hparams(task.epoch_steps(train.batch)), 2)
        assert int(state.step) == 2 or not state.finite


def size_of_a_step(trainer, task, train):
    """B·T·D of a batch."""
    source = task.source._replace(fixed=dict(task.source.fixed))
    inputs, _ = jax.eval_shape(lambda source: task.batch(source, jax.random.key(0), at_step(0), train.batch), source)
    return inputs.size


def test_every_number_has_its_range_and_every_choice_its_words():
    """Of all sections of the experiments' configs: what is beyond is refused by the field's name."""
    beyond = {int: (-1, 2**31, 10**30), float: (np.nan, np.inf, -np.inf, 1e39, -5.0), str: ("none of them", "")}
    seen = set()
    sections = [module.EXPERIMENT.sections(model) for module in EXPERIMENTS.values() for model in MODELS]
    for kind in {kind: None for of_one in sections for kind in of_one.values()}:
        for flag in flags_of(kind):
            if kind is RunConfig or flag.name in (
                "data_dir",
                "text",
                "model",
            ):  # What they name is found out when it is used.
                continue
            (typ,) = flag.kinds or {str}
            for value in beyond.get(typ, ()):
                with pytest.raises(InvalidValue) as refused:
                    kind(**{flag.name: (value,) if flag.is_tuple and flag.name != "speed" else value})
                assert refused.value.field == flag.name
                seen.add((kind, flag.name))
    assert len(seen) > 100


def test_a_line_is_parsed_once(monkeypatch):
    """That takes some ten milliseconds; a grid's members are made of what was read."""
    parses = []
    parse = cli.tyro.cli
    monkeypatch.setattr(cli.tyro, "cli", lambda *args, **options: parses.append(args) or parse(*args, **options))
    for line in ("--T 30", "--T 30 --preset paper --model irnn", "--grid.lr 1 2 --grid.model wrnn lstm", "--lr -1"):
        parses.clear()
        with contextlib.suppress(InvalidValue):
            expand(copy.EXPERIMENT, line.split())
        assert len(parses) == 1, line


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("copy", "--coordinator localhost:7777", "--coordinator localhost:7777: must be left out, or go with --distri"),
        ("copy", "--num-processes 2 --process-id 0", "--num-processes 2: must be left out, or go with --distributed"),
        ("copy", "--grid.lr 1 2 --process-id 0", "--process-id 0: must be left out, or go with --distributed"),
        ("copy", "--distributed", "--distributed True: must be left out: only a grid's members"),
        ("copy", "--grid-chunk 2", "--grid-chunk 2: must be left out: only a grid's members"),
        ("copy", "--seeds 2 --eval-only", "--eval-only True: must be left out for a grid"),
        ("copy", "--stop-below 1e-400", "--stop-below 5e-324: must be from 1.18e-38 to 3.4e+38, which float32 holds"),
        ("copy", "--grad-clip=-1e-400", "--grad-clip -5e-324: must be a finite number, 0 or more"),
        ("copy", "--grid.weight-decay 0 1e-400", "--grid.weight-decay 5e-324: must be from 1.18e-38"),
        ("copy", "--n-ch 131073", "--n-ch 131073: must be a whole number, 131072 at most"),
        ("copy", "--ksize 513 --n-hid 600", "--ksize 513: must be a whole number, 511 at most"),
        (
            "loop",
            "loop --T 1000000000",
            "--T 1000000000: must be smaller, or other sizes: this takes 284.1 TiB of memory",
        ),
        ("grid", "grid --T 5 1000000000", "--T 1000000000: must be smaller, or other sizes: this takes 284.1 TiB"),
        ("scaling", "scaling --sweeps", "--sweeps : must be one or more of T, T, identity, neurons, channels, batch"),
        ("smnist", "--grid.lr 1 2 --data-dir /none/\udcff", "--data-dir /none/\\udcff: must be a folder"),
        ("hds", "--grid.curriculum 10 20", "--grid.curriculum 10: must be numbers with commas between, as 10,20"),
        ("hds", "--grid.curriculum 9, --curriculum 5", "--grid.curriculum 9,: must be left out, or --curriculum is"),
        ("hds", "--grid.curriculum 10,20 20,10", "--grid.curriculum 20 10: must be numbers of steps that rise"),
        ("selective", "--tokens 17 --T 16", "--tokens 17: must be at most 16, the steps among which they stand"),
        ("recall", "--power 0.5", "--power 0.5: must be left out: only for --variant multi"),
        ("recall", "--variant multi --pairs 5 --T 18", "--T 18: must be even, and 20 or more"),
        ("recall", "--grid.pairs 2 3 --T 6", "--T 6: must be left out, or 8"),
        ("language", "--units word", "--units word: must be one of character, byte"),
        ("language", "--sha256 0", "--sha256 0: must be 64 digits of 0 to 9 and a to f"),
        ("language", "--text .", "a file, which a folder is not"),
        ("language", "--text none", "a file that can be read (No such file or directory)"),
        ("language", "", "or try --text with a file of your own"),
        ("hds", "--s 513", "--s 513: must be at most 512"),
        ("hds", "--s 64 --d 9", "--d 9: must be at most 8 for s = 64: s vectors have 512 elements at most"),
        ("hds", "--horizon 10001", "--horizon 10001: must be at most 10000"),
        ("hds", "--curriculum 10 10001", "--curriculum 10001: must be at most 10000"),
        (
            "hds",
            "--task xor --d 64 --horizon 5000",
            "--horizon 5000: must be at most 4096 for vectors of 64, of which f takes 8",
        ),
        ("hds", "--task xor --s 512 --d 1 --horizon 257", "--horizon 257: must be at most 256 for vectors of 1"),
        ("hds", "--task fibonacci --horizon 10000", "the values of this series leave the range of float32"),
    ],
)
def test_what_would_mean_something_else_or_nothing_is_refused(capsys, undone, name, line, said):
    assert said in refusal(capsys, MAINS[name], *line.split())
    assert not list(undone.iterdir())


RINGING = """
import atexit, functools, importlib, os, runpy, signal, sys

def ring():
    os.kill(os.getpid(), signal.SIGINT)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "jax" and moment == "import":
            ring()

moment, *arguments = sys.argv[1:]
sys.meta_path.insert(0, Finder())
sys.argv = ["-m"]
import experiments
if moment == "exit":
    atexit.register(ring)
elif moment != "import":
    module, name = moment.split(":")
    owner = functools.reduce(getattr, name.split(".")[:-1], importlib.import_module(module))
    name = name.split(".")[-1]
    usual = getattr(owner, name)
    setattr(owner, name, lambda *args, **options: (ring(), usual(*args, **options))[1])
sys.argv[1:] = arguments
runpy.run_module("experiments.copy", run_name="__main__", alter_sys=True)
"""
"""Copy, that presses Ctrl-C itself: while JAX is imported, when a function is called, or at Python's end."""
MOMENTS = {
    "import": (130, "interrupted before it began", None),
    "experiments.experiment:assemble": (130, "interrupted; what is saved is whole", None),
    "wrnn_jax.training.fit:_start": (130, "interrupted; what is saved is whole", []),
    "wrnn_jax.training.fit:_status_at_start": (130, "SIGINT: stopping after this call, then saving", [1]),
    "wrnn_jax.training.fit:Checkpoints.save": (130, "SIGINT: stopping after this call, then saving", [2]),
    "wrnn_jax.training.fit:evaluate": (130, "interrupted; what is saved is whole", [2, 4]),
    "exit": (0, None, [2, 4]),
}
"""When -> the exit code, what is said on standard error, and the steps that are saved."""


@pytest.mark.slow
def test_ctrl_c_at_any_moment_is_one_line_and_what_is_saved_stays(tmp_path):
    """While importing, before anything is made, before and after compiling, while saving, evaluating, and ending."""
    flags = "--T 0 --n-hid 5 --n-ch 2 --batch 8 --stop-below 0 --max-steps 4 --checkpoint-interval 2 --logdir"

    def press(moment):
        command = [sys.executable, "-c", RINGING, moment, *flags.split(), str(tmp_path / moment)]
        quick = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        return subprocess.run(command, cwd=ROOT, env=quick, capture_output=True, text=True, timeout=300, check=False)

    with ThreadPoolExecutor(2) as both:
        pressed = dict(zip(MOMENTS, both.map(press, MOMENTS), strict=True))
    for moment, (code, said, steps) in MOMENTS.items():
        done, saved = pressed[moment], tmp_path / moment / "checkpoints"
        lines = done.stderr.strip().splitlines()
        assert (done.returncode, len(lines)) == (code, said is not None), (moment, done.stderr)
        assert said is None or lines[0].startswith(said), (moment, lines)
        assert steps == (sorted(int(path.name) for path in saved.iterdir()) if saved.exists() else None), moment
