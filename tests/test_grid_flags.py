"""A grid's members are what their own command lines would be; what makes no grid is refused in one line."""

import dataclasses
import itertools
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from experiments import cli, copy, devices, psmnist
from experiments.grid_flags import LIMIT, TRACED, expand, groups, hyper_parameters, split_arguments, typed
from experiments.presets import Preset
from wrnn_jax import models
from wrnn_jax.models import MODELS
from wrnn_jax.training.rundir import UNCHANGING
from wrnn_jax.validation import InvalidValue


def long_for_irnn(before):
    """Settings that depend on T and model, which a preset may refuse."""
    if before["T"] > 99:
        raise InvalidValue("T", before["T"], "99 at most")
    return {"max_steps": 1000 if before["model"] == "irnn" else 10, "lr": 0.5 / (1 + before["T"])}


def step(before):
    return {"schedule": "step", "lr_factor": 10.0, "lr_period": 7.0}


PRESETS = {
    "single": Preset("one run", long_for_irnn, ()),
    "sweep": Preset("axes", step, (), lambda settled: {"lr": (0.1, 0.2), "act": ("relu", "tanh"), "lr_factor": (2.0,)}),
    "by-model": Preset("axes by model", step, (), lambda all: {"lr": (0.1,)} if "ksize" in all else {"T": (1,)}),
    "of-irnn": Preset("one of a model", step, (), defaults={"model": "irnn", "T": 3, "act": "tanh"}),
}
EXPERIMENT = copy.EXPERIMENT._replace(presets=PRESETS)


def grid(line, experiment=EXPERIMENT):
    return expand(experiment, line.split())


def alone(line, settings, experiment=EXPERIMENT):
    """The config of a single run's command line."""
    return expand(experiment, [*line.split(), *typed(settings)])


LINES = {
    "--T 30": "--grid.lr 1e-2 1e-3 1e-4 --grid.grad-clip 0 1 10 --seeds 3",
    "--max-steps 7": "--grid.model wrnn irnn srnn --grid.T 0 10 --grid.lr 0.1",
    "": "--grid.freeze-encoder True False --grid.lr=1e-5 --grid.bias_init random zeros --grid.speed log 0.5",
    "--n-hid 9": "--grid.ksize 9 3 --grid.n_ch 2 1 --grid.seed 5 0 --grid.weight-decay 0 1e-9",
    "--schedule step": "--grid.lr-period 1 10 --grid.lr-factor 3.33 10",
    "--lr-period 10": "--grid.schedule exponential cosine step --grid.batch 1 2",
    "--preset single": "--grid.T 0 10 --grid.model wrnn irnn --grid.grad-clip 1",
    "--seed 4 --logdir here": "--seeds 2",
    "--schedule cosine --T 1 --yes": "--grid.lr-period 1.5 7 --grid.speed -0.5,1,1,0,1,0.25 log",
}


@pytest.mark.parametrize("line", LINES)
def test_a_member_is_what_its_own_command_line_is(line):
    made = grid(f"{line} {LINES[line]}")
    assert len(made.members) == math.prod(map(len, made.axes.values()))
    for member in made.members:
        expected = alone(line, member.settings)
        assert dataclasses.replace(member.config, run=expected.run) == expected
        assert list(member.settings) == list(made.axes)
        assert all(value in made.axes[field] for field, value in member.settings.items())


AXES = {
    "lr": (float, st.floats(1e-37, 1e38).map(repr)),
    "grad_clip": (float, st.one_of(st.just(0.0), st.floats(1e-37, 1e38)).map("{:.3e}".format)),
    "seed": (int, st.integers(0, 2**31 - 1).map(str)),
    "T": (int, st.integers(0, 1000).map("{:05d}".format)),
    "n_hid": (int, st.integers(3, 50).map(str)),
    "act": (str, st.sampled_from(["relu", "tanh", "identity"])),
    "model": (str, st.sampled_from(["wrnn", "wrnn-local", "irnn", "irnn-shift", "srnn"])),
}
"""Field -> its type, and values as one writes them."""


@st.composite
def grids(draw):
    chosen = draw(st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=3, unique=True))
    return {
        field: draw(st.lists(texts, min_size=1, max_size=2, unique_by=kind))
        for field, (kind, texts) in ((field, AXES[field]) for field in chosen)
    }


@given(grids())
def test_members_are_the_product_in_order(written):
    words = [word for field, texts in written.items() for word in (f"--grid.{field.replace('_', '-')}", *texts)]
    made = expand(EXPERIMENT, words)
    axes = {field: tuple(map(AXES[field][0], texts)) for field, texts in written.items()}
    seeds = axes.pop("seed", (0,))
    assert list(made.axes.items()) == [*axes.items(), ("seed", seeds)]
    nested = [field for field in made.axes if field not in TRACED] + [field for field in made.axes if field in TRACED]
    product = itertools.product(*(made.axes[field] for field in nested))
    assert [tuple(member.settings[field] for field in nested) for member in made.members] == list(product)
    for member in (made.members[0], made.members[-1]):
        assert member.config == alone("", member.settings)


def test_members_of_one_program_are_one_group():
    made = grid("--grid.lr 1e-2 1e-3 --grid.T 0 10 --grid.grad-clip 0 1 --grid.model wrnn irnn --seeds 2")
    together = groups(made.members)
    assert [len(group) for group in together] == [8] * 4
    assert list(itertools.chain(*together)) == list(made.members), "they stand together already"
    for group in together:
        assert len({(member.config.task, member.config.model) for member in group}) == 1
        assert {member.config.train.seed for member in group} == {0, 1}
    programs = [(member.config.task.T, member.config.model.model) for member, *_ in together]
    assert programs == [(0, "wrnn"), (0, "irnn"), (10, "wrnn"), (10, "irnn")]
    assert groups(made.members[::-1]) == [group[::-1] for group in together[::-1]]


def test_groups_look_at_configs_not_at_the_grid():
    """The same programs from two grids, elsewhere on disk; another batch size is another program."""
    here, there = grid("--grid.lr 1 2 --logdir here"), grid("--grid.weight-decay 0 3 --logdir there")
    assert len(groups(here.members + there.members)) == 1
    assert len(groups(here.members + grid("--grid.lr 1 2 --batch 7").members)) == 2
    assert len(groups(grid("--grid.batch 7 8").members)) == 2
    assert groups(()) == []


def test_no_grid_is_a_single_run():
    fixed = "--preset sweep --lr 1 --act relu --lr-factor=2 --schedule step --lr-period 4"
    for line in ("--T 30 --lr 1e-2", "--seeds 1 --seed 3", "--preset single --T 10", fixed):
        assert grid(line) == alone(line, {})
    assert len(grid("--grid.lr 1").members) == 1, "what is asked for is a grid"


def test_seeds_are_the_seed_and_those_after_it():
    made = grid("--seed 3 --seeds 4 --grid.lr 1 2")
    assert made.axes == {"lr": (1.0, 2.0), "seed": (3, 4, 5, 6)}
    assert [member.config.train.seed for member in made.members] == [3, 4, 5, 6] * 2
    assert grid("--grid.seed 9 2 --grid.lr 1").axes == {"lr": (1.0,), "seed": (9, 2)}


def test_base_is_the_line_without_the_grid():
    for line in ("--T 7 --seeds 2", "--preset single --T 7 --seeds 2"):
        base = grid(line).base
        assert base == grid(f"{line} --grid.lr 3 4 --grid.act tanh").base
        assert base == EXPERIMENT.configure({"T": 7, "seeds": 2, "preset": base.run.preset})
    # By itself refused, with a value for each it is not.
    assert grid("--schedule step --grid.lr-period 3 4").base.train.lr_period == 3.0
    assert grid("--preset single --grid.T 3 4").base.task.T == 3


def test_arguments_are_split_where_a_flag_begins():
    line = "--T 3 --grid.lr -1e-2 1 -inf --resume --grid.n-hid=3 --grid.act relu --lr=-1 -h x"
    of_grid, rest = split_arguments(line.split())
    assert of_grid == {"lr": ["-1e-2", "1", "-inf"], "n_hid": ["3"], "act": ["relu"]}
    assert rest == ["--T", "3", "--resume", "--lr=-1", "-h", "x"]
    assert split_arguments(["--grid.lr=1", "2"]) == ({"lr": ["1"]}, ["2"]), "the second is nobody's"


@pytest.mark.parametrize("experiment", [EXPERIMENT, psmnist.EXPERIMENT])
def test_what_may_be_searched_is_all_that_changes_what_is_computed(experiment):
    for model in ("wrnn", "lstm"):
        default = experiment.configure({"model": model})
        parts = (default.task, default.model, default.train)
        fields = {field.name: getattr(part, field.name) for part in parts for field in dataclasses.fields(part)}
        assert set(hyper_parameters(experiment.sections(model))) == fields.keys() - UNCHANGING
        assert set(TRACED) <= fields.keys()
        for name, value in fields.items():
            # Each value as it is by default: where there is one, it is read back as itself.
            if name not in UNCHANGING and value is not None:
                line = "" if name == "model" else f"--model {model} "
                (member,) = grid(f"{line}--grid.{name} {value}", experiment).members
                assert member.settings[name] == value
                assert type(member.settings[name]) is type(value)
                assert member.config == default


def test_members_of_a_grid_over_models_have_their_own_types():
    made = grid("--grid.model wrnn lstm irnn --grid.lr 1 2 --n-hid 7 --no-use-bias")
    assert [type(member.config.model) for member in made.members] == [
        MODELS[name].config for name in ("wrnn", "lstm", "irnn") for _ in range(2)
    ]
    assert {(member.config.model.n_hid, member.config.model.use_bias) for member in made.members} == {(7, False)}
    assert [member.config.model.act for member in made.members[::4]] == ["relu", "relu"]


@dataclasses.dataclass(frozen=True)
class OwnConfig(models.ModelConfig):
    """A model of one's own."""

    dt: float = 0.5
    """A step in time."""
    form: str = "plain"


OWN = models.Entry("own", OwnConfig, "here", {"dt": 0.25})
CLASHES = models.Entry("clashes", dataclasses.make_dataclass("C", [("T", int, 3)], bases=(OwnConfig,), frozen=True), "")
NEEDS = models.Entry("needs", dataclasses.make_dataclass("N", [("x", int)], bases=(object,), frozen=True), "")
CALLS = models.Entry("calls", dataclasses.make_dataclass("F", [("f", type, int)], bases=(OwnConfig,), frozen=True), "")


def test_a_model_of_ones_own_has_flags_and_axes_of_its_own(capsys):
    name = f"{__name__}:OWN"
    assert grid(f"--model {name}").model == OwnConfig(name, 0.25)
    assert grid(f"--model={name} --dt 2 --form x").model == OwnConfig(name, 2.0, "x")
    made = grid(f"--model {name} --grid.dt 0.1 0.2 --grid.lr 1 2")
    assert [(member.config.model.dt, member.config.train.lr) for member in made.members] == [
        (0.1, 1.0), (0.1, 2.0), (0.2, 1.0), (0.2, 2.0),
    ]  # fmt: skip
    with pytest.raises(SystemExit) as exit:
        grid(f"--model {name} --help")
    said = capsys.readouterr().out
    assert exit.value.code == 0
    assert "A step in time. (default: 0.25)" in said
    assert "--ksize" not in said
    assert "wrnn-local | irnn" in said


def test_help_is_of_one_model(capsys):
    """All of its flags with what they mean and are by default in the experiment, and those of no other model."""
    for experiment, model, default in ((copy.EXPERIMENT, "wrnn", 6), (psmnist.EXPERIMENT, "wrnn-mlp", 16)):
        with pytest.raises(SystemExit):
            grid(f"--model {model} --help", experiment)
        said = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert f"Channels: circular rings of n-hid neurons each. (default: {default})" in said
        flags = {f"--{field.replace('_', '-')}" for field in vars(experiment.configure({"model": model}).model)}
        assert all(flag in said for flag in flags)
    with pytest.raises(SystemExit):
        grid("--preset of-irnn --help")
    assert "--ksize" not in capsys.readouterr().out


def test_a_preset_may_have_axes():
    made = grid("--preset sweep")
    assert made.axes == {"lr": (0.1, 0.2), "act": ("relu", "tanh"), "lr_factor": (2.0,), "seed": (0,)}
    assert {member.config.train.lr_period for member in made.members} == {7.0}
    assert [(m.config.model.act, m.config.train.lr, m.config.train.lr_factor) for m in made.members] == [
        ("relu", 0.1, 2.0), ("relu", 0.2, 2.0), ("tanh", 0.1, 2.0), ("tanh", 0.2, 2.0),
    ]  # fmt: skip


def test_flags_beside_a_preset_replace_its_axes_or_take_them_out():
    made = grid("--preset sweep --grid.T 1 2 --grid.lr 5 --act relu --seeds 2")
    assert list(made.axes.items()) == [("lr", (5.0,)), ("lr_factor", (2.0,)), ("T", (1, 2)), ("seed", (0, 1))]
    assert {member.config.model.act for member in made.members} == {"relu"}
    # Of the schedule that only the preset names.
    made = grid("--preset sweep --grid.lr-factor 3 4 --grid.lr-period 5")
    assert {(m.config.train.lr_factor, m.config.train.lr_period) for m in made.members} == {(3.0, 5.0), (4.0, 5.0)}
    assert list(grid("--preset by-model --model irnn").axes) == ["T", "seed"]


def test_a_preset_may_be_of_one_model_and_what_is_given_wins():
    config = grid("--preset of-irnn --lr-factor 3")
    assert (config.model.model, config.model.act, config.task.T) == ("irnn", "tanh", 3)
    assert (config.train.lr_factor, config.train.lr_period) == (3.0, 7.0)
    assert grid("--preset of-irnn --act relu --T 5 --model irnn").model.act == "relu"


ALLOWED = "must be one of T, variant, model, n-hid, use-bias, n-layers, norm,"
NO_KSIZE = "must be left out: irnn has no ksize (flags of irnn: --help --model irnn)"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--grid.lr", "--grid.lr : must be given one or more values"),
        ("--grid.speed 0.5 lag", "--grid.speed lag: must be a number or numbers with commas between,"),
        ("--grid.lr 1e-3 0.001", "--grid.lr 0.001: must be there once: it is given twice"),
        ("--grid.grad-clip 1 --grid.grad_clip 2", "--grid.grad-clip : must be given once, with all values"),
        ("--grid.foo 1 2", f"--grid.foo 1 2: {ALLOWED}"),
        ("--grid.logdir here there", f"--grid.logdir here there: {ALLOWED}"),
        ("--grid.lr abc 1", "--grid.lr abc: must be a number"),
        ("--grid.ksize None", "--grid.ksize None: must be a whole number"),
        ("--grid.freeze-encoder yes", "--grid.freeze-encoder yes: must be True or False"),
        ("--grid.lr 1e-2 -1e-2", "--grid.lr -0.01: must be a finite number above 0"),
        ("--grid.lr 1 2 --lr 3", "--grid.lr 1.0 2.0: must be left out, or --lr is"),
        ("--grid.n-hid 5 --n_hid 3", "--grid.n-hid 5: must be left out, or --n-hid is"),
        ("--grid.freeze-encoder True --no-freeze-encoder", "--grid.freeze-encoder True: must be left out, or"),
        ("--grid.seed 1 2 --seeds 3", "--grid.seed 1 2: must be left out, or --seeds is"),
        ("--seeds 0", "--seeds 0: must be a whole number, 1 or more"),
        ("--seed 2147483647 --seeds 2", "--seeds 2: must be a whole number, 1 at most"),
        ("--seeds 2147483647 --yes", "--grid of 2147483647 members: must be of 10000 at most"),
        ("--seeds 101", "--grid of 101 members: must be of 100 at most, or go with --yes"),
        ("--preset sweep --seeds 26", "--grid of 104 members: must be of 100 at most, or go with --yes"),
        ("--grid.model wrnn irnn --grid.ksize 5", f"--grid.ksize 5: {NO_KSIZE}"),
        ("--model irnn --grid.ksize 5", f"--grid.ksize 5: {NO_KSIZE}"),
        ("--model irnn --ksize=5", f"--ksize 5: {NO_KSIZE}"),
        ("--model lstm --no-freeze-encoder", "--freeze-encoder : must be left out: lstm has no freeze-encoder (flags"),
        ("--preset of-irnn --ksize 5", f"--ksize 5: {NO_KSIZE}"),
        ("--preset of-irnn --model wrnn", "--model wrnn: must be left out, or irnn, which --preset of-irnn is of"),
        ("--preset best", "--preset best: must be one of single, sweep, by-model, of-irnn"),
        ("--model none:such", "--model none:such: must be of a module that can be imported (No module"),
        (f"--model {__name__}:grid", f"--model {__name__}:grid: must be an Entry of"),
        (f"--model {__name__}:CLASHES", "must be one whose fields are no flags of the task section: T is one"),
        (
            f"--model {__name__}:CALLS",
            "must be one whose fields are numbers, words, True or False, or tuples of them: f",
        ),
        (f"--model {__name__}:NEEDS", "must be an Entry whose config is a subclass of ModelConfig"),
        ("--norm none --norm sum", "--norm sum: must be one of none, layer, batch, batch-time"),
        (
            "--grid.n-hid 3 9 --grid.ksize 3 5 --grid.act relu",
            "--grid.ksize 5: must be an odd number from 1 to n-hid = 3 (with --n-hid=3 --act=relu)",
        ),
        ("--grid.lr-factor 2 3", "--grid.lr-factor 2.0: must be left out: only for step, exponential"),
        ("--grid.schedule constant step", "--lr-period None: must be given for --schedule step (with --schedule=step)"),
        ("--ksize 5 --grid.model wrnn irnn", f"--ksize 5: {NO_KSIZE}"),
        ("--lr -1 --grid.T 1 2", "--lr -1.0: must be a finite number above 0 (with --T=1)"),
        ("--preset single --grid.T 1 100", "--grid.T 100: must be 99 at most"),
        (
            "--preset by-model --grid.model wrnn irnn",
            "--preset by-model: must be one that has the same grid for every member (with --model=irnn)",
        ),
        ("--grid.lr=1 2", "Unrecognized options: 2 "),
        ("--grid.lr 1 2 --Lr 3", "Unrecognized options: --Lr, 3 "),
    ],
)
def test_what_makes_no_grid_is_one_line(capsys, monkeypatch, line, said):
    """In the form that the command line gives to what is refused."""
    monkeypatch.setattr(devices, "prepare_jax", lambda: None)
    with pytest.raises(SystemExit) as exit:
        cli.main("program", copy.Config, lambda grid: 0, ["x"], lambda _: grid(line))
    assert exit.value.code == 2
    (only,) = capsys.readouterr().err.splitlines()
    assert only.startswith("error: ")
    assert said in only


def test_many_members_want_a_yes():
    assert len(grid(f"--seeds {LIMIT}").members) == LIMIT
    assert len(grid(f"--seeds {LIMIT + 1} --yes").members) == LIMIT + 1
