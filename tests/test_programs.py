"""The programs beside copy, in one process on small networks: what they write, refuse, and draw."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from experiments import ablation, adding, figures, nscifar10, psmnist, recall, report, selective, smnist
from experiments.experiment import assemble, example, restore
from experiments.runs import Run, open_run
from helpers import by_gid, refusal, run
from wrnn_jax.datasets import stored
from wrnn_jax.datasets.download import DownloadError
from wrnn_jax.models import configure
from wrnn_jax.tasks import RecallConfig, SelectiveConfig
from wrnn_jax.training.state import with_best
from wrnn_jax.validation import InvalidValue

pytestmark = pytest.mark.usefixtures("standard_promotion", "undrawn")

SMALL = ["--n-hid", "6", "--n-ch", "2"]
DIGITS = [*SMALL, "--dataset", "digits", "--batch", "100", "--lr", "0.01"]
EPOCH = 12  # 1,257 training images in batches of 100


def summary(logdir):
    return json.loads((logdir / "summary.json").read_text())


def rows(logdir):
    return [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]


def final_state(logdir):
    return restore(open_run(logdir).parts().trainer(), 0, logdir)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of every program, to look at; tests that change one make their own."""
    folder = tmp_path_factory.mktemp("runs")
    adding_flags = ("--T", 10, *SMALL, "--max-steps", 20, "--log-interval", 10, "--batch", 8, "--stop-below", 0)
    assert run(adding.main, *adding_flags, "--logdir", folder / "adding") == 0
    assert run(adding.main, *adding_flags, "--seed", 1, "--logdir", folder / "adding1") == 0
    assert run(smnist.main, *DIGITS, "--epochs", 1, "--logdir", folder / "smnist") == 0
    psmnist_flags = ("--epochs", 3, "--keep-checkpoints", 0, "--logdir", folder / "psmnist")
    assert run(psmnist.main, *DIGITS, *psmnist_flags) == 0
    nscifar10_flags = ("--T", 11, "--max-steps", 2, "--batch", 50, "--logdir", folder / "nscifar10")
    assert run(nscifar10.main, *SMALL, "--dataset", "digits", *nscifar10_flags) == 0
    linear_flags = ("--model", "wave-ssm", "--scheme", "exact", "--n-layers", 2, "--stride", 2, "--max-steps", 2)
    assert run(adding.main, "--T", 10, *SMALL, *linear_flags, "--batch", 8, "--logdir", folder / "linear") == 0
    return folder


def test_adding_writes_its_result(runs):
    result = summary(runs / "adding")
    assert (result["experiment"], result["T"], result["n_hid"], result["n_ch"]) == ("adding", 10, 6, 2)
    # V: 12·2 + 12; u: 2·2·3 + 2; W: 12 + 1.
    assert result["params"] == 36 + 14 + 13
    assert result["memoryless_mse"] == pytest.approx(1 / 6)
    assert [row["step"] for row in rows(runs / "adding")] == [10, 20]
    assert rows(runs / "adding")[-1]["test_mse"] == pytest.approx(result["test_mse"], rel=1e-6)
    assert result["solved_step"] == next(
        (row["step"] for row in rows(runs / "adding") if row["test_mse"] <= 5e-2), None
    )


def test_solved_is_the_first_record_at_or_below_the_bound(tmp_path):
    """Also when later records are above it, and in a run that was resumed."""
    flags = ("--T", 2, *SMALL, "--batch", 32, "--lr", 0.02, "--log-interval", 20, "--stop-below", 0)
    for steps in (150, 300):
        assert run(adding.main, *flags, "--max-steps", steps, "--logdir", tmp_path, "--resume") == 0
    solved = [row["step"] for row in rows(tmp_path) if row["test_mse"] <= 5e-2]
    assert solved, "so small a task is solved"
    assert summary(tmp_path)["solved_step"] == solved[0] < 300


def test_adding_stops_once_it_is_as_good_as_the_papers(tmp_path, capsys):
    """By default, and that is not the same as solved."""
    assert run(adding.main, "--T", 2, *SMALL, "--batch", 8, "--max-steps", 1, "--logdir", tmp_path / "r") == 0
    assert json.loads((tmp_path / "r" / "config.json").read_text())["config"]["train"]["stop_below"] == 1e-4
    flags = ("--T", 2, *SMALL, "--batch", 8, "--log-interval", 5, "--stop-below", 100, "--logdir", tmp_path / "s")
    assert run(adding.main, *flags) == 0
    assert (summary(tmp_path / "s")["steps"], summary(tmp_path / "s")["status"]) == (5, "below the loss asked for")
    assert "test_mse" in capsys.readouterr().out


SELECTIVE = (selective, "--T 9 --tokens 3 --vocabulary 6", SelectiveConfig(9, 3, 6))
SINGLE = (recall, "--pairs 3 --keys 2 --values 4", RecallConfig("single", 3, 2, 4))
MULTI = (recall, "--variant multi --pairs 2 --keys 3 --values 4 --T 10", RecallConfig("multi", 2, 3, 4, 10))


@pytest.mark.parametrize(("program", "flags", "task", "share"), [(*SELECTIVE, "recall"), (*MULTI, "test_acc")])
def test_tasks_of_recalling_write_their_result(tmp_path, program, flags, task, share):
    how = ("--model", "srnn", "--n-hid", 3, "--batch", 4, "--max-steps", 2, "--log-interval", 2)
    assert run(program.main, *flags.split(), *how, "--logdir", tmp_path) == 0
    result, (row,) = summary(tmp_path), rows(tmp_path)
    assert 0 <= row[share] == pytest.approx(result[share], abs=1e-6)
    assert result[f"memoryless_{share.split('_')[-1]}"] == 1 / 4
    assert result["memoryless_loss"] == pytest.approx(np.log(4))
    assert open_run(tmp_path).config.task == task


@pytest.mark.parametrize(("program", "flags", "task"), [SELECTIVE, SINGLE, MULTI])
def test_tasks_of_recalling_are_drawn_with_the_steps_over_which_tokens_are_remembered(program, flags, task):
    experiment = program.EXPERIMENT
    parts = assemble(experiment, experiment.configure({**vars(task), "model": "srnn", "n_hid": 3}))
    state = SimpleNamespace(variables=parts.model.init(jax.random.key(0)), fixed={})
    seen = example(parts, state, index=5)
    figure = experiment.draw(parts.config, seen)
    inputs = seen.inputs.argmax(axis=-1)
    for line in by_gid(figure.axes[0], "remembered"):
        (first, last), (token, _) = line.get_xdata(), line.get_ydata()
        assert first < last
        assert inputs[first] == token, "from the step at which it was shown"
        if program is recall:
            assert inputs[last] == inputs[first - 1], "to the step of its key"
    due = seen.targets if program is selective else seen.targets.due[seen.targets.places.argsort()]
    np.testing.assert_array_equal(by_gid(figure.axes[1], "due")[0].get_ydata(), due)
    np.testing.assert_array_equal([line.get_ydata()[0] for line in by_gid(figure.axes[0], "remembered")], due)


def test_images_write_their_result(runs):
    result = summary(runs / "psmnist")
    assert (result["experiment"], result["dataset"], result["permutation_seed"]) == ("psmnist", "digits", 0)
    assert (result["steps"], result["epochs"], result["epochs_done"]) == (3 * EPOCH, 3, 3)
    assert result["best_step"] in (EPOCH, 2 * EPOCH, 3 * EPOCH)
    validation = [row["val_acc"] for row in rows(runs / "psmnist")]
    assert result["val_acc"] == pytest.approx(max(validation), abs=1e-6)
    assert result["best_step"] == EPOCH * (1 + int(np.argmax(validation)))
    assert 0 <= result["test_acc"] <= 1
    assert (result["memoryless_loss"], result["memoryless_acc"]) == (pytest.approx(np.log(10)), 0.1)
    assert "data_dir" not in result


def test_the_test_set_is_not_read_in_the_course_of_training(runs):
    for name in ("smnist", "psmnist", "nscifar10"):
        for row in rows(runs / name):
            assert {"val_loss", "val_acc", "train_loss"} <= row.keys()
            assert not [key for key in row if key.startswith("test")]


def test_test_accuracy_is_that_of_the_parameters_that_validation_picked(runs):
    """Counted image by image, with the parameters and the permutation that the checkpoint holds."""
    run_ = open_run(runs / "psmnist")
    parts, state = run_.parts(), final_state(runs / "psmnist")
    images, labels = parts.task.source.data["test"]
    order = np.asarray(state.fixed["permutation"])
    xs = images.reshape(len(images), 64)[:, order, None].astype(np.float32) / np.float32(16)
    answers = np.asarray(parts.model.apply(with_best(state).variables, xs)[0]).argmax(axis=-1)
    assert summary(runs / "psmnist")["test_acc"] == pytest.approx(np.mean(answers == labels), abs=1e-6)
    assert int(state.best.step) == summary(runs / "psmnist")["best_step"]


def test_resuming_an_image_run_equals_going_through(runs, tmp_path):
    """From the middle of an epoch, best parameters and permutation included."""
    for more in (("--max-steps", 17), ("--epochs", 3)):
        assert run(psmnist.main, *DIGITS, "--epochs", 3, *more, "--logdir", tmp_path / "r", "--resume") == 0
    chex.assert_trees_all_equal(
        jax.device_get(final_state(tmp_path / "r")), jax.device_get(final_state(runs / "psmnist"))
    )
    assert summary(tmp_path / "r")["test_acc"] == summary(runs / "psmnist")["test_acc"]
    assert [row["step"] for row in rows(tmp_path / "r")] == [EPOCH, 17, 2 * EPOCH, 3 * EPOCH]


def test_the_permutation_is_the_checkpoints(runs, tmp_path):
    """A library that drew another for the same seed would still go on with the run's own."""
    logdir = tmp_path / "r"
    shutil.copytree(runs / "psmnist", logdir)
    run_ = open_run(logdir)
    parts = run_.parts()
    other = np.arange(64, dtype=np.int32)[::-1].copy()
    changed = parts._replace(task=parts.task._replace(source=parts.task.source._replace(fixed={"permutation": other})))
    state = restore(changed.trainer(), 0, logdir)
    np.testing.assert_array_equal(state.fixed["permutation"], parts.task.source.fixed["permutation"])


def test_what_validation_depends_on_may_not_change(runs, capsys):
    logdir = ("--logdir", runs / "psmnist", "--resume")
    for flags, said in (
        (("--log-interval", 5), "--log-interval 5: must be 12"),
        (("--permutation-seed", 3), "--permutation-seed 3: must be 0"),
        (("--batch", 90), "--batch 90: must be 100"),
    ):
        assert said in refusal(capsys, psmnist.main, *DIGITS, "--epochs", 3, *flags, *logdir)


def test_eval_only_prints_the_summarys_numbers(runs, capsys):
    assert run(psmnist.main, *DIGITS, "--epochs", 3, "--logdir", runs / "psmnist", "--eval-only") == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = summary(runs / "psmnist")
    metrics = ("val_loss", "val_acc", "test_loss", "test_acc", "train_acc")
    assert printed == {key: result[key] for key in metrics} | {"step": 36}


def test_figures_find_data_that_was_moved_and_curves_need_none(runs, tmp_path, capsys, monkeypatch):
    """By --data-dir; else where it was, if that is there; else as training does, by TFDS_DATA_DIR."""
    logdir = tmp_path / "r"
    shutil.copytree(runs / "psmnist", logdir)
    about = json.loads((logdir / "config.json").read_text())
    about["config"]["task"] |= {"dataset": "mnist", "data_dir": str(tmp_path / "gone")}
    (logdir / "config.json").write_text(json.dumps(about))
    assert run(figures.main, logdir, "--out", tmp_path / "curves.png") == 0
    assert open_run(logdir).config.task.data_dir is None
    assert open_run(logdir, "moved").config.task.data_dir == "moved"
    (tmp_path / "gone").mkdir()
    assert open_run(logdir).config.task.data_dir == str(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (tmp_path / "file").write_text("")
    capsys.readouterr()
    example = logdir, "--figure", "example", "--out", tmp_path / "e.png"
    said = f"--data-dir {tmp_path / 'file'}: must be a folder"
    assert said in refusal(capsys, figures.main, *example, "--data-dir", tmp_path / "file")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file"))
    assert said in refusal(capsys, figures.main, *example)


def test_noisy_rows_have_noise_of_their_own_seed_in_the_checkpoint(runs):
    noise = np.asarray(final_state(runs / "nscifar10").fixed["noise"])
    assert noise.shape == (11 - 8, 8)
    assert summary(runs / "nscifar10")["T"] == 11


@pytest.mark.parametrize(
    ("main", "flags", "said"),
    [
        (adding.main, "--T 1", "--T 1: must be 2 or more: a marker in each half"),
        (smnist.main, "--dataset digits --data-dir /tmp", "left out with digits"),
        (smnist.main, "--dataset digits --batch 2000", "--batch 2000: must be at most 1257, the training set"),
        (nscifar10.main, "--dataset digits --T 5", "--T 5: must be 8 or more: digits has 8 rows"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, main, flags, said):
    assert said in refusal(capsys, main, *SMALL, *flags.split(), "--logdir", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_neither_network_nor_data_is_one_line_that_says_what_to_do(capsys, tmp_path, monkeypatch):
    def unreachable(*_):
        raise DownloadError("no network")

    monkeypatch.setattr(stored, "prepare", unreachable)
    line = refusal(capsys, smnist.main, "--data-dir", tmp_path / "nowhere", "--logdir", tmp_path / "r")
    for part in ("--data-dir", "TFDS_DATA_DIR", "no network", "--dataset digits"):
        assert part in line
    assert not list(tmp_path.iterdir())


def picture(path):
    image = matplotlib.image.imread(path)
    return image.shape[1] >= 600 and image[..., :3].std() > 0.02


def test_every_run_draws_its_task_training_and_waves(runs):
    for name in ("adding", "smnist", "psmnist", "nscifar10", "linear"):
        for stem in ("task", "training", "waves"):
            assert picture(runs / name / "figures" / f"{stem}.png")


@pytest.mark.parametrize(
    ("figure", "names"),
    [
        ("bump", []),
        ("spectra", ["adding", "psmnist"]),
        ("curves", ["adding", "adding1"]),
        ("curves", ["smnist"]),
        ("example", ["nscifar10"]),
        ("parameters", ["psmnist", "smnist"]),
        ("speeds", ["psmnist"]),
        ("training", ["psmnist"]),
        ("spectra", ["adding", "linear"]),
        ("speeds", ["linear"]),
        ("impulse", ["linear"]),
        ("learned", ["linear"]),
    ],
)
def test_figures_are_drawn_from_run_directories(runs, tmp_path, capsys, figure, names):
    out = tmp_path / "figure.png"
    assert run(figures.main, *(runs / name for name in names), "--figure", figure, "--out", out) == 0
    assert str(out) in capsys.readouterr().out
    assert picture(out)


def test_ring_is_an_animation(runs, tmp_path):
    assert run(figures.main, runs / "adding", "--figure", "ring", "--out", tmp_path / "ring.gif") == 0
    with Image.open(tmp_path / "ring.gif") as gif:
        assert gif.n_frames == 10


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--figure pie", "--figure pie: must be one of bump, spectra, curves"),
        ("{psmnist} --out a.gif", "--out a.gif: must be a file name that ends in .png, .pdf, .svg"),
        ("{psmnist} --figure ring --out a.png", "must be a file name that ends in .gif"),
        ("", "1 or more run directories for curves"),
        ("{psmnist} {smnist} --figure speeds", "1 run directories for speeds"),
        ("{psmnist} {adding}", "runs of one task"),
        ("{adding} --figure training", "more than one checkpoint"),
        ("{adding} --figure parameters", "runs of smnist and psmnist alone"),
        ("{adding} --figure spectra --channel 2", "--channel 2: must be 0 to 1"),
        ("{linear} --figure spectra --layer 2", "--layer 2: must be 0 to 1, the layers of"),
        ("{adding} --figure impulse", "--model wrnn: must be wave-ssm: a network of linear waves"),
        ("{adding} --figure example --index 1000", "--index 1000: must be 0 to 999"),
        ("{psmnist}/figures", "config.json is unreadable"),
        ("{psmnist} {psmnist} --figure training", "runs of different models: there are two of shift start"),
    ],
)
def test_figures_refuse_what_they_cannot_draw(runs, tmp_path, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    places = {name: runs / name for name in ("adding", "smnist", "psmnist", "linear")}
    assert said in refusal(capsys, figures.main, *flags.format(**places).split())
    assert not list(tmp_path.iterdir())


def test_rows_of_waves_through_training_are_named_by_what_tells_their_models_apart():
    """As in Fig. 18: one start in several architectures, or several starts in one."""

    def names(*models):
        return figures._architectures([Run(Path("r"), None, SimpleNamespace(model=model)) for model in models])

    several = configure("wrnn"), configure("wrnn-local"), configure("irnn", init="shift")
    assert names(*several) == ["wrnn", "wrnn-local", "irnn"]
    both = ["wrnn, shift start", "wrnn-local, shift start", "irnn, shift start", "wrnn, identity start"]
    assert names(*several, configure("wrnn", init="identity")) == both
    assert names(configure("wrnn"), configure("wrnn", init="random")) == ["shift start", "random start"]
    assert names(configure("wrnn", n_hid=50), configure("wrnn")) == ["n-hid 50", "n-hid 100"]
    assert names(configure("wrnn")) == ["shift start"]
    with pytest.raises(InvalidValue, match="there are two of speed log"):
        names(configure("wrnn", speed="log"), configure("wrnn"), configure("wrnn", speed="log"))


def test_runs_of_seeds_are_one_curve_and_other_settings_another(runs, tmp_path):
    from experiments.runs import grouped

    groups = grouped([open_run(runs / name) for name in ("adding", "adding1")])
    assert {name: len(members) for name, members in groups.items()} == {"wrnn, T10": 2}
    flags = ("--T", 10, *SMALL, "--max-steps", 1, "--batch", 8, "--lr", 0.1, "--logdir", tmp_path / "r")
    assert run(adding.main, *flags) == 0
    groups = grouped([open_run(path) for path in (runs / "adding", runs / "adding1", tmp_path / "r")])
    assert sorted(len(members) for members in groups.values()) == [1, 2]
    assert any("lr0.1" in name for name in groups)


def test_report_is_written_from_runs(runs, tmp_path, capsys):
    assert run(report.main, runs, "--out", tmp_path / "report") == 0
    assert "6 runs, 0 unfinished" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    # None of them has the paper's size or data: no line of its tables is filled, and all are listed.
    assert "no run" in page
    for name in ("adding1", "smnist", "psmnist", "nscifar10"):
        assert name in page
    (tmp_path / "empty").mkdir()
    assert "a folder with a run below it" in refusal(capsys, report.main, tmp_path / "empty")
    assert "a folder that exists" in refusal(capsys, report.main, tmp_path / "none")


def test_ablation_prints_its_table_and_does_nothing_twice(tmp_path, capsys, monkeypatch):
    flags = ("--rows", "irnn", "irnn-shift", "--T", 0, "--max-steps", 2, "--log-interval", 1, "--logdir", tmp_path)
    assert run(ablation.main, *flags) == 0
    out = capsys.readouterr().out
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table[2:]] == ["iRNN", "iRNN + Σ-init"]
    for row, line in zip(("irnn", "irnn-shift"), table[2:], strict=True):
        loss = summary(tmp_path / f"T0_{row}_seed0")["authors_loss"]
        assert f"{loss:.3f}" in line
        assert "2 steps" in line
    monkeypatch.setattr(ablation, "run", lambda *_, **__: pytest.fail("both have ended"))
    assert run(ablation.main, *flags) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")] == table


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--rows lstm", "--rows lstm: must be one of wrnn, wrnn-no-v"),
        ("--T 7", "--T 7: must be one of 0, 10, 30, 80"),
        ("--seeds 0", "--seeds 0"),
    ],
)
def test_ablation_refuses_bad_input(tmp_path, capsys, flags, said):
    assert said in refusal(capsys, ablation.main, *flags.split(), "--logdir", tmp_path)
    assert not list(tmp_path.iterdir())
