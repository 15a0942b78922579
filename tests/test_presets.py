"""The paper's settings: a preset for every published row of ours, and each row of the report has one."""

import dataclasses
import math
import shlex

import jax
import pytest

from experiments import devices
from experiments.ablation import Config as AblationConfig
from experiments.grid_flags import groups
from experiments.program import run_from_command_line
from experiments.runs import EXPERIMENTS
from wrnn_jax.models import count_parameters
from wrnn_jax.report.groups import misfits
from wrnn_jax.report.papertables import PAPER_TABLES
from wrnn_jax.report.published import COPY_BEST, COPY_GRID, COPY_T
from wrnn_jax.report.runs import Run
from wrnn_jax.tasks import SelectiveConfig
from wrnn_jax.typing import Signature

SWEEP = "paper-sweep"
OURS = ("small", "full", "delay-line")
"""Of networks that are in no paper's table."""
ROWS = [
    (experiment.name, name, flags)
    for experiment in EXPERIMENTS.values()
    for name, preset in experiment.presets.items()
    for flags in preset.rows
    if preset.grid is None and name not in OURS
]
OF_OTHERS = ("selective", "recall")
"""Tasks whose published rows are of other networks: the report has no table of them."""
SWEEPS = [
    (experiment.name, flags)
    for experiment in EXPERIMENTS.values()
    if experiment.name not in OF_OTHERS and SWEEP in experiment.presets
    for flags in experiment.presets[SWEEP].rows
]


@pytest.fixture(scope="module")
def parsed():
    """``parsed(experiment, arguments)``: the config, or the grid, that a command line comes to."""
    seen = []

    def parse(name, arguments):
        run_from_command_line(EXPERIMENTS[name], arguments)
        return seen.pop()

    with pytest.MonkeyPatch.context() as patched:
        for what_acts in ("run", "run_grid"):
            patched.setattr(f"experiments.program.{what_acts}", lambda experiment, asked, *_: seen.append(asked) or 0)
        patched.setattr(devices, "prepare_jax", lambda: None)
        yield parse


def lines_of(name, config):
    """The lines of the report that a run with this config is for, as (title, name, facts)."""
    known = {"experiment": name, "status": "complete", "test_loss": 0.0, "test_mse": 0.0, "solved_step": None}
    known |= {key: value for part in (config.task, config.model, config.train) for key, value in vars(part).items()}
    run = Run("run", known, {})
    tables = [table for table in PAPER_TABLES if table.holds(known)]
    return [
        (table.title, line.name, line.facts)
        for table in tables
        for line in table.lines
        if line.wants is not None and not misfits(run, line.wants, ())
    ]


@pytest.fixture(scope="module")
def configs(parsed):
    return [(name, parsed(name, ["--preset", preset, *shlex.split(flags)])) for name, preset, flags in ROWS]


def test_every_published_line_of_ours_has_a_preset_and_every_preset_a_line(configs):
    covered = set()
    for name, config in configs:
        lines = [line for line in lines_of(name, config) if "Fig. 7" not in line[0]]
        # Some settings of copy go further than the tables: n = 625, and the lengths of the authors' sweep.
        beyond = name == "copy" and (config.model.n_hid == 625 or config.task.variant == "authors")
        assert len(lines) == (name not in OF_OTHERS) or beyond
        covered.update(lines)
    published = {
        (table.title, line.name, line.facts)
        for table in PAPER_TABLES
        for line in table.lines
        if line.wants is not None and not table.slug.endswith("-sizes")
    }
    assert covered == published


def test_the_sizes_of_fig_7_are_a_grid_each_member_of_which_has_a_line(parsed):
    name = "psmnist"
    grids = [parsed(name, ["--preset", "sizes", "--model", model, "--epochs", "1"]) for model in ("wrnn", "irnn")]
    found = [
        [line for line in lines_of(name, member.config) if "Fig. 7" in line[0]]
        for grid in grids
        for member in grid.members
    ]
    (table,) = (table for table in PAPER_TABLES if table.slug == f"{name}-sizes")
    assert found == [[(table.title, line.name, line.facts)] for line in table.lines]
    assert [grid.base.train.epochs for grid in grids] == [1, 1]  # Flags win.
    assert [grid.base.model.n_ch for grid in grids] == [16, 1]
    paper = parsed(name, ["--preset", "paper", "--model", "irnn", "--epochs", "1"])
    assert paper.model in [member.config.model for member in grids[1].members]
    assert paper.train == grids[1].base.train


def test_every_preset_trains_as_long_as_the_paper_does(configs):
    for name, config in configs:
        train = config.train
        if name in ("copy", "adding"):
            assert (train.max_steps, train.batch, train.stop_below) == (60_000, 128, 0.0)
        elif name == "hds":  # 20,000 at most: with our start and schedule fewer are enough.
            assert (train.max_steps, train.batch, train.stop_below, train.grad_clip) == (8_000, 64, 0.0, 1.0)
        elif name == "selective":
            assert (train.max_steps, train.batch, train.lr, train.schedule) == (400_000, 64, 1e-4, "constant")
            assert config.task == SelectiveConfig(T=4096, tokens=16, vocabulary=16)
        elif name == "recall":  # The last batch of an epoch may be a part of one.
            epochs, size = {"single": (200, 5_000), "multi": (64, 100_000)}[config.task.variant]
            assert 0 <= train.max_steps * train.batch - epochs * size < epochs * train.batch
            assert (config.task.T, config.task.pairs) in ((22, 10), (64, 4), (128, 8), (256, 16), (512, 64))
            assert (config.task.keys, config.task.values) in ((4, 4), (4095, 4096))
        else:
            is_exception = config.model.model == "irnn" and name in ("psmnist", "nscifar10")
            assert train.epochs == (250 if is_exception else 120)
            assert train.batch == (256 if name == "nscifar10" else 128)


@pytest.mark.parametrize(
    ("T", "model", "n_hid", "lr", "clip"),
    [
        (480, "wrnn", 100, 1e-4, 1.0),
        (10, "wrnn", 100, 1e-3, 0.0),
        (80, "irnn", 100, 1e-4, 1.0),
        (0, "irnn", 625, 1e-3, 1.0),
    ],
)
def test_copy_has_the_settings_of_the_appendix(parsed, T, model, n_hid, lr, clip):
    arguments = ["--preset", "paper", "--T", str(T), "--model", model, "--n-hid", str(n_hid)]
    train = parsed("copy", arguments).train
    assert (train.lr, train.grad_clip, train.loss_divisor) == (lr, clip, 128.0), "a clip on their scale"
    train = parsed("copy", [*arguments, "--lr", "0.5", "--stop-below", "1"]).train
    assert (train.lr, train.stop_below, train.grad_clip) == (0.5, 1.0, clip), "flags win"


def test_the_authors_sweep_of_copy_has_lengths_of_its_own(parsed, capsys):
    """Their T is ours + 10: what the paper calls 30, 80 and 480 are 50, 100 and 500 there."""
    for T, authors_T in zip(COPY_T, (10, 20, 50, 100, 500), strict=True):
        paper = parsed("copy", ["--preset", "paper", "--T", str(T)])
        authors = parsed("copy", ["--preset", "authors", *([] if T == 480 else ["--T", str(authors_T - 10)])])
        assert (authors.task.T, authors.task.variant) == (authors_T - 10, "authors")
        assert (authors.train, authors.model) == (paper.train, paper.model)
    swept = parsed("copy", ["--preset", "authors-sweep", "--T", "40"])
    assert {(m.config.task.T, m.config.task.variant, m.config.train.loss_divisor) for m in swept.members} == {
        (40, "authors", 128.0)
    }
    with pytest.raises(SystemExit) as exit:
        run_from_command_line(EXPERIMENTS["copy"], ["--preset", "authors", "--T", "30"])
    assert exit.value.code == 2
    assert "one of (0, 10, 40, 90, 490): the authors' sweep" in capsys.readouterr().err


def test_the_irnn_of_the_image_tasks_starts_as_the_authors_program(parsed):
    """Its encoder, a linear layer, is left as the framework draws it; that of copy and adding is not."""
    for name in ("smnist", "psmnist", "nscifar10"):
        model = parsed(name, ["--preset", "paper", "--model", "irnn"]).model
        assert (model.encoder_init, model.bias_init, model.init) == ("uniform", "random", "identity")
        model = parsed(name, ["--preset", "paper", "--model", "irnn", "--no-use-bias", "--encoder-init", "dense"]).model
        assert (model.encoder_init, model.bias_init) == ("dense", "zeros")
        assert parsed(name, ["--preset", "paper", "--model", "wrnn"]).model.encoder_init == "sparse"
    for name in ("copy", "adding"):
        assert (
            parsed(
                name, ["--preset", "paper", "--model", "irnn", "--T", "100" if name == "adding" else "10"]
            ).model.encoder_init
            == "dense"
        )


@pytest.mark.parametrize(
    ("row", "model", "init", "encoder_init"),
    [
        ("wrnn", "wrnn", "shift", "sparse"),
        ("wrnn-no-v", "wrnn", "shift", "dense"),
        ("wrnn-no-shift", "wrnn", "random", "sparse"),
        ("wrnn-no-v-no-shift", "wrnn", "random", "dense"),
        ("irnn", "irnn", "identity", "dense"),
        ("irnn-shift", "irnn-shift", "shift", "dense"),
        ("irnn-shift-v", "irnn-shift-sparse", "shift", "sparse"),
    ],
)
def test_ablation_takes_away_what_its_name_says(parsed, row, model, init, encoder_init):
    for config in (
        parsed("copy", ["--preset", f"ablation-{row}", "--T", "10"]),
        *AblationConfig(rows=(row,), T=(10,)).configs(),
    ):
        assert (config.model.model, config.model.init, config.model.encoder_init) == (model, init, encoder_init)
        assert (config.task.T, config.train.max_steps) == (10, 60_000)


@pytest.mark.parametrize(("name", "flags"), SWEEPS)
def test_a_sweep_is_the_papers_grid_around_the_papers_settings(parsed, name, flags):
    grid = parsed(name, ["--preset", SWEEP, *shlex.split(flags)])
    is_irnn_on_copy = (name, grid.base.model.model) == ("copy", "irnn")
    assert len(grid.members) == {"copy": 72 if is_irnn_on_copy else 9, "adding": 15, "hds": 24}.get(name, 60)
    programs = 8 if is_irnn_on_copy or name == "hds" else 1  # init x act x n_hid, or task x n_hid
    assert len(groups(grid.members)) == programs
    configs = {(member.config.task, member.config.model, member.config.train) for member in grid.members}
    assert len(configs) == len(grid.members)
    paper = parsed(name, ["--preset", "paper", *shlex.split(flags)])
    assert (grid.base.task, grid.base.model, grid.base.train) == (paper.task, paper.model, paper.train)
    for member in grid.members:
        changed = {
            field
            for section in ("task", "model", "train")
            for field, value in dataclasses.asdict(getattr(member.config, section)).items()
            if value != getattr(getattr(paper, section), field)
        }
        assert changed <= set(grid.axes) - {"seed"}, "nothing else than the grid's own"
    # The settings of the preset "paper", the published ones and ours, are a member.
    assert (paper.model, paper.train) in {(member.config.model, member.config.train) for member in grid.members}


def test_the_second_papers_authors_have_a_preset_of_their_own(parsed):
    """Twenty seeds of two curricula, from the framework's start, at a constant rate; the whole table with --yes."""
    grid = parsed("hds", ["--preset", "authors", "--task", "T2", "--n-hid", "64"])
    assert grid.axes == {"mastery": (0.9, 0.98), "seed": tuple(range(20))}
    model, train = grid.base.model, grid.base.train
    assert (model.init, model.encoder_init, model.use_bias) == ("random", "uniform", False)
    assert (train.lr, train.schedule, train.max_steps, train.grad_clip) == (1e-3, "constant", 20_000, 1.0)
    whole = parsed("hds", ["--preset", "authors-sweep", "--yes"])
    assert len(whole.members) == 4 * 2 * 3 * 2 * 20
    assert {lines_of("hds", member.config)[0] for member in whole.members} == {
        (table.title, line.name, line.facts) for table in PAPER_TABLES if table.slug == "hds" for line in table.lines
    }
    single = parsed("hds", ["--preset", "authors", "--task", "T1", "--mastery", "0.98", "--seeds", "1", "--lr", "0.5"])
    assert (single.task.mastery, single.train.lr, single.train.max_steps) == (0.98, 0.5, 20_000), "flags win"


@pytest.mark.parametrize(
    ("name", "arguments", "parameters"),
    [
        ("psmnist", "--preset full", 209_292),
        ("psmnist", "--preset small", 80_076),
        ("smnist", "--preset full --dataset digits", 112_012),
        ("nscifar10", "--preset full", 267_594),
        ("psmnist", "--preset delay-line", 407_050),
        ("copy", "--preset small", 37_482),
        ("adding", "--preset small", 50_962),
    ],
)
def test_deep_waves_have_presets_of_their_own(parsed, name, arguments, parameters):
    config = parsed(name, arguments.split())
    steps, inputs = config.task.shape
    signature = Signature(inputs, 10, steps, "all" if name == "copy" else "last")
    found = count_parameters(jax.eval_shape(config.model.build(signature).init, jax.random.key(0)).params)
    assert found == parameters
    assert (config.train.schedule, config.train.weight_decay_kind) == ("cosine", "decoupled")
    assert parsed(name, [*arguments.split(), "--lr", "0.5"]).train.lr == 0.5, "flags win"


def test_best_settings_of_copy_lie_within_its_grid():
    assert math.prod(map(len, COPY_GRID["wrnn"].values())) == 9
    for (model, n_hid), best in COPY_BEST.items():
        grid = COPY_GRID[model]
        assert n_hid in grid.get("n_hid", (100,))
        for field, values in best.items():
            assert len(values) == len(COPY_T)
            assert set(values) <= set(grid[field])


def test_flags_beside_a_sweep_replace_or_fix_its_axes(parsed):
    def swept(name, flags):
        return parsed(name, ["--preset", SWEEP, *flags.split()])

    grid = swept("copy", "--T 30 --model irnn --n-hid 100 --act relu --grid.lr 1e-3 --seeds 3")
    assert grid.axes == {
        "lr": (1e-3,),
        "grad_clip": (0.0, 1.0, 10.0),
        "init": ("identity", "random"),
        "seed": (0, 1, 2),
    }
    grid = swept("psmnist", "--grid.lr-factor 2 --lr 1e-3 --epochs 3 --grid.model wrnn wrnn-mlp")
    assert len(grid.members) == 5 * 2 * 2
    assert {(m.config.train.lr_factor, m.config.train.epochs, m.config.train.lr) for m in grid.members} == {
        (2.0, 3, 1e-3)
    }


def test_sizes_are_the_papers(parsed):
    """By parameters: V, b_V, u, b_u, W and b, as the authors' layers have them."""
    sizes = {
        ("adding", "--T 100"): (100, 27),
        ("smnist", ""): (256, 16),
        ("psmnist", "--model wrnn-mlp"): (256, 16),
        ("psmnist", "--model irnn"): (256, 1),
        ("nscifar10", "--model irnn"): (529, 1),
        ("nscifar10", ""): (256, 16),
    }
    for (name, flags), size in sizes.items():
        model = parsed(name, ["--preset", "paper", *flags.split()]).model
        assert (model.n_hid, model.n_ch) == size


def test_the_list_of_presets_is_commands(capsys):
    """Those that the other tests here parse."""
    for name, experiment in EXPERIMENTS.items():
        run_from_command_line(experiment, ["--list-presets"])
        said = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        rows = [(preset, row) for preset, about in experiment.presets.items() for row in about.rows]
        assert said == [f"python3 -m experiments.{name} --preset {preset} {row}".strip() for preset, row in rows]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("adding", "--preset paper --T 50", "--T 50: must be one of (100, 200, 400, 700, 1000)"),
        ("adding", "--preset paper --T 100 --model srnn", "--model srnn: must be one of wrnn, irnn"),
        ("copy", "--preset ablation-wrnn --T 480", "--T 480: must be one of (0, 10, 30, 80)"),
        ("smnist", "--preset paper --dataset digits", "--dataset digits: must be mnist"),
        ("nscifar10", "--preset paper --dataset digits", "--dataset digits: must be cifar10"),
        ("nscifar10", "--preset paper --model wrnn-mlp", "--model wrnn-mlp: must be one of wrnn, irnn"),
        ("psmnist", "--preset sizes --model wrnn-mlp", "--model wrnn-mlp: must be one of wrnn, irnn"),
        ("psmnist", "--preset best", "--preset best: must be one of paper"),
        ("recall", "--preset zoology --T 32", "--T 32: must be one of (64, 128, 256, 512), as in the paper"),
        ("selective", "--preset paper", "--preset paper: must be one of mamba"),
    ],
)
def test_what_the_paper_does_not_have_is_refused(capsys, name, arguments, said):
    with pytest.raises(SystemExit) as exit:
        run_from_command_line(EXPERIMENTS[name], arguments.split())
    assert exit.value.code == 2
    assert said in capsys.readouterr().err
