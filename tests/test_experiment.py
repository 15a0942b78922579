"""The copy experiment in one process: command line, run directory, endings."""

import functools
import json
import os
import shutil
import signal
import struct
import sys
import threading
import time

import chex
import jax
import matplotlib.image
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

import helpers
from experiments import copy, hds, psmnist
from experiments.grid_flags import expand
from experiments.settings import readable_name
from wrnn_jax.models import configure
from wrnn_jax.training.checkpoint import Checkpoints
from wrnn_jax.training.loop import make_trainer

pytestmark = pytest.mark.usefixtures("standard_promotion", "undrawn")

TINY = ["--T", "0", "--n-hid", "5", "--n-ch", "2", "--batch", "8", "--stop-below", "0"]


def run(*arguments):
    """The exit code of ``python -m experiments.copy`` with these arguments."""
    return helpers.run(copy.main, *TINY, *arguments)


def refusal(capsys, *arguments):
    """The one line that such a refused command prints."""
    return helpers.refusal(capsys, copy.main, *TINY, *arguments)


@functools.cache
def first_state():
    task = copy.copy_task(copy.CopyConfig(T=0))
    return make_trainer(configure("wrnn", n_hid=5, n_ch=2).build(task.signature), task, 8).init(0)


def final_state(logdir):
    checkpoints = Checkpoints(logdir / "checkpoints")
    state, _ = checkpoints.restore(first_state())
    checkpoints.close()
    return state


def rows(logdir):
    return [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("flags", "flag", "value", "allowed"),
    [
        ("--T -1", "--T", "-1", "0 or more"),
        ("--n-hid 9 --ksize 4", "--ksize", "4", "an odd number from 1 to n-hid = 9"),
        ("--n-hid 9 --ksize 11", "--ksize", "11", "an odd number from 1 to n-hid = 9"),
        ("--ksize 1", "--ksize", "1", "3 or more for init = 'shift'"),
        ("--model irnn --ksize 3", "--ksize", "3", "left out"),
        ("--act sigmoid", "--act", "sigmoid", "relu, tanh, identity"),
        ("--backend parallel", "--backend", "parallel", "auto, scan, fused, native"),
        ("--backend native", "--backend", "native", "another while WRNN_JAX_NATIVE=0"),
        ("--preset best", "--preset", "best", "paper, authors, ablation-wrnn"),
        ("--schedule step", "--lr-period", "None", "given for --schedule step"),
        ("--schedule step --lr-period 10 --lr-factor 0.5", "--lr-factor", "0.5", "above 1"),
        ("--lr-period 10", "--lr-period", "10", "left out for a constant schedule"),
        ("--preset paper --T 20 --n-hid 100", "--T", "20", "(0, 10, 30, 80, 480)"),
        ("--preset paper --n-hid 7", "--n-hid", "7", "[100]"),
        ("--lr -0.01", "--lr", "-0.01", "above 0"),
        ("--lr abc", "--lr", "abc", "float"),
        ("--max-steps 1.5", "--max-steps", "1.5", "int"),
        ("--max-steps 2147483648", "--max-steps", "2147483648", "2147483647 at most"),
        ("--lr 1e-300", "--lr", "1e-300", "from 1.18e-38 to 3.4e+38"),
        ("--nhid 5", "--nhid", "5", ""),
    ],
)
def test_bad_input_is_one_line_with_flag_value_and_what_is_allowed(capsys, tmp_path, flags, flag, value, allowed):
    line = refusal(capsys, *flags.split(), "--logdir", tmp_path / "run")
    for part in (flag, value, allowed):
        assert part in line
    assert not (tmp_path / "run").exists(), "nothing is made for a run that cannot be"


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_is_refused(capsys, tmp_path, place):
    (tmp_path / "file").write_text("precious")
    assert "--logdir" in refusal(capsys, "--max-steps", 1, "--logdir", tmp_path / place)
    assert (tmp_path / "file").read_text() == "precious"


def test_help_explains_every_flag(capsys):
    copy.main(["--help"])
    text = capsys.readouterr().out
    flags = (
        "T n-hid n-ch ksize act init lr batch max-steps grad-clip log-interval model seed variant logdir resume "
        "preset list-presets stop-below checkpoint-interval keep-checkpoints eval-only schedule lr-factor lr-period "
        "encoder-init bias-init freeze-encoder freeze-recurrence backend"
    )
    for flag in flags.split():
        assert f"--{flag}" in text
    assert text.count("(default:") >= len(flags.split())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of 30 steps, to look at; tests that change it make their own."""
    logdir = tmp_path_factory.mktemp("runs") / "done"
    assert run("--max-steps", 30, "--log-interval", 10, "--checkpoint-interval", 10, "--logdir", logdir) == 0
    return logdir


def test_run_directory_tells_everything(done):
    config = json.loads((done / "config.json").read_text())
    assert config["config"]["model"] == {
        "model": "wrnn", "n_hid": 5, "n_ch": 2, "ksize": 3, "act": "relu", "init": "shift", "encoder_init": "sparse",
        "speed": None, "encoder": "dense", "encoder_rank": None, "encoder_taps": None, "encoder_colors": None,
        "use_bias": True, "bias_init": "zeros",
        "freeze_encoder": False, "freeze_recurrence": False, "backend": "fused",
        "n_layers": 1, "norm": "none", "residual": False, "dropout": 0.0, "pooling": "last",
    }  # fmt: skip
    assert config["versions"]["jax"] == jax.__version__
    assert "cpu" in config["device"]
    summary = json.loads((done / "summary.json").read_text())
    asked = (
        "experiment model T variant n_hid n_ch ksize act init encoder_init use_bias bias_init params steps max_steps "
        "status test_loss authors_loss recall solved_step memoryless_loss lr grad_clip weight_decay schedule batch "
        "seed device seconds steps_per_second"
    )
    assert set(asked.split()) <= summary.keys()
    neutral = {"n_layers", "norm", "dropout", "encoder", "encoder_rank", "freeze_encoder", "warmup"}
    assert not neutral & summary.keys(), "as in all tables"
    assert (summary["experiment"], summary["model"], summary["T"], summary["steps"]) == ("copy", "wrnn", 0, 30)
    # V: 10·10 + 10; u: 2·2·3 + 2; W: 10·10 + 10.
    assert summary["params"] == 110 + 14 + 110
    assert summary["authors_loss"] == pytest.approx(summary["test_loss"] / 50)
    assert summary["memoryless_loss"] == pytest.approx(10 * np.log(8) / 20)
    assert [row["step"] for row in rows(done)] == [10, 20, 30]
    assert rows(done)[-1]["test_loss"] == summary["test_loss"]
    assert sorted(path.name for path in (done / "checkpoints").iterdir()) == ["10", "20", "30"]


def test_tensorboard_events_are_the_metrics(done):
    """Read by the format's own definition: length, checksum, data, checksum."""
    (file,) = (done / "tensorboard").iterdir()
    data, found = file.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc32c(data[12 : 12 + length])
        found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
        data = data[16 + length :]
    names = ("train_loss", "test_loss", "authors_loss", "recall")
    expected = {(row["step"], name): pytest.approx(row[name], rel=1e-6) for row in rows(done) for name in names}
    assert found == expected


def test_figures_are_pictures(done):
    for name in ("task", "training", "waves"):
        image = matplotlib.image.imread(done / "figures" / f"{name}.png")
        assert image.shape[1] >= 900
        assert image[..., :3].std() > 0.05, "not one colour"


def test_a_finished_run_is_not_overwritten(done, capsys):
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    line = refusal(capsys, "--max-steps", 30, "--logdir", done)
    assert "--resume" in line
    line = refusal(capsys, "--max-steps", 30, "--lr", 0.5, "--logdir", done)
    assert "--lr 0.5: must be 0.001" in line
    line = refusal(capsys, "--max-steps", 30, "--seed", 3, "--logdir", done, "--resume")
    assert "--seed 3: must be 0" in line
    assert before == {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}


def test_eval_only_prints_the_metrics_and_writes_nothing(done, capsys):
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    assert run("--logdir", done, "--eval-only") == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    summary = json.loads((done / "summary.json").read_text())
    assert printed == {key: summary[key] for key in ("test_loss", "authors_loss", "recall")} | {"step": 30}
    assert before == {path: path.stat().st_mtime_ns for path in done.rglob("*")}


def test_eval_only_needs_a_run(capsys, tmp_path):
    assert "a run's folder with a checkpoint" in refusal(capsys, "--logdir", tmp_path / "none", "--eval-only")
    assert not (tmp_path / "none").exists()


def test_a_folder_with_other_files_is_not_taken_for_a_run(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "other files" in refusal(capsys, "--logdir", tmp_path)
    (tmp_path / "config.json").write_text("{ half")
    assert "config.json is unreadable" in refusal(capsys, "--logdir", tmp_path)


def test_resuming_equals_going_through(done, tmp_path):
    """Also from a state that is no multiple of any interval, and with other intervals than before."""
    assert run("--max-steps", 17, "--log-interval", 10, "--logdir", tmp_path / "r") == 0
    assert run("--max-steps", 30, "--log-interval", 10, "--logdir", tmp_path / "r", "--resume") == 0
    through, resumed = final_state(done), final_state(tmp_path / "r")
    chex.assert_trees_all_equal((through.params, through.opt_state), (resumed.params, resumed.opt_state))
    assert [row["step"] for row in rows(tmp_path / "r")] == [10, 17, 20, 30]


def test_resume_begins_a_run_that_was_not_begun_and_may_go_on_with_another_backend(tmp_path):
    """One line of a job script then does for the first start and for every later one."""
    for backend, steps in (("fused", 5), ("scan", 10)):
        flags = ("--backend", backend, "--max-steps", steps, "--log-interval", 5, "--resume")
        assert run(*flags, "--logdir", tmp_path / "r") == 0
        assert json.loads((tmp_path / "r" / "config.json").read_text())["config"]["model"]["backend"] == backend
    assert [row["step"] for row in rows(tmp_path / "r")] == [5, 10]


@pytest.mark.parametrize(
    "schedule", ["--schedule plateau --lr-period 1 --lr-factor 3 --lr 1e-9", "--schedule cosine --lr-period 25"]
)
def test_a_schedule_goes_on_where_it_was(tmp_path, schedule):
    flags = ("--log-interval", 5, *schedule.split())
    assert run("--max-steps", 30, *flags, "--logdir", tmp_path / "through") == 0
    for steps in (7, 30):
        assert run("--max-steps", steps, *flags, "--logdir", tmp_path / "r", "--resume") == 0
    through, resumed = final_state(tmp_path / "through"), final_state(tmp_path / "r")
    chex.assert_trees_all_equal((through.params, through.plateau), (resumed.params, resumed.plateau))
    if "plateau" in schedule:
        assert int(through.plateau.drops) > 0


def test_what_would_change_a_schedule_is_refused_on_resume(tmp_path, capsys):
    """The cosine ends with the run unless told otherwise; the plateau counts evaluations."""
    flags = ("--schedule", "cosine", "--logdir", tmp_path / "cosine")
    assert run("--max-steps", 4, *flags) == 0
    assert "--lr-period 8.0: must be 4.0" in refusal(capsys, "--max-steps", 8, *flags, "--resume")
    flags = ("--schedule", "plateau", "--max-steps", 4, "--logdir", tmp_path / "plateau")
    assert run("--log-interval", 2, *flags) == 0
    assert "--log-interval 3: must be 2" in refusal(capsys, "--log-interval", 3, *flags, "--resume")


def test_as_many_checkpoints_are_kept_as_asked_for(tmp_path):
    for keep, steps in ((2, [6, 8]), (0, [2, 4, 6, 8])):
        flags = ("--max-steps", 8, "--checkpoint-interval", 2, "--keep-checkpoints", keep)
        assert run(*flags, "--logdir", tmp_path / str(keep)) == 0
        assert sorted(int(path.name) for path in (tmp_path / str(keep) / "checkpoints").iterdir()) == steps


def test_a_run_of_another_experiment_is_refused(done, capsys, tmp_path):
    folder = tmp_path / "adding"
    shutil.copytree(done, folder)
    config = json.loads((folder / "config.json").read_text()) | {"experiment": "adding"}
    (folder / "config.json").write_text(json.dumps(config))
    assert "a run of copy: it holds one of adding" in refusal(capsys, "--logdir", folder, "--resume")


def test_resuming_drops_records_of_steps_that_are_done_again(done, tmp_path):
    shutil.copytree(done, tmp_path / "r")
    with (tmp_path / "r" / "metrics.jsonl").open("a") as file:  # As a run killed at step 37 would leave it.
        file.write(json.dumps(rows(tmp_path / "r")[-1] | {"step": 35}) + '\n{"step": 3')
    assert run("--max-steps", 40, "--log-interval", 10, "--logdir", tmp_path / "r", "--resume") == 0
    assert [row["step"] for row in rows(tmp_path / "r")] == [10, 20, 30, 40]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_newest_checkpoint_is_said_and_passed_over(done, capsys, tmp_path):
    shutil.copytree(done, tmp_path / "r")
    for path in (tmp_path / "r" / "checkpoints" / "30").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:7])
    assert run("--max-steps", 30, "--log-interval", 10, "--logdir", tmp_path / "r", "--resume") == 0
    assert "checkpoint 30 is unreadable" in capsys.readouterr().err
    chex.assert_trees_all_equal(final_state(tmp_path / "r"), final_state(done))


def test_resuming_a_finished_run_does_nothing_more(done, tmp_path, capsys):
    shutil.copytree(done, tmp_path / "r")
    assert run("--max-steps", 30, "--log-interval", 10, "--logdir", tmp_path / "r", "--resume") == 0
    assert "all 30 steps done" in capsys.readouterr().out
    chex.assert_trees_all_equal(final_state(tmp_path / "r"), final_state(done))


def test_stop_below_ends_at_the_first_evaluation_below(tmp_path, capsys):
    assert run("--max-steps", 50, "--log-interval", 5, "--stop-below", 100, "--logdir", tmp_path / "r") == 0
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["steps"] == 5
    assert "below --stop-below" in capsys.readouterr().out


@pytest.mark.drawn
def test_divergence_is_said_and_the_last_good_state_saved(tmp_path, capsys):
    assert run("--max-steps", 50, "--lr", 1e38, "--grad-clip", 0, "--logdir", tmp_path / "r") == 1
    out = capsys.readouterr().out
    assert "diverged" in out
    state = final_state(tmp_path / "r")
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["status"] == "diverged"
    assert summary["steps"] == int(state.step) < 50
    assert f"the state of step {int(state.step)} is saved" in out
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.opt_state)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(tmp_path, capsys, number):
    def send():
        for _ in range(600):
            if list((tmp_path / "r" / "checkpoints").glob("[0-9]*")):
                os.kill(os.getpid(), number)
                return
            time.sleep(0.1)

    sender = threading.Thread(target=send)
    sender.start()
    flags = ("--max-steps", 10_000_000, "--log-interval", 1_000_000, "--checkpoint-interval", 100)
    code = run(*flags, "--logdir", tmp_path / "r")
    sender.join()
    assert code == 128 + number
    out = capsys.readouterr().out
    state = final_state(tmp_path / "r")
    assert f"interrupted at step {int(state.step)}, saved; to continue: python3 -m experiments.copy" in out
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["status"] == "interrupted"


@pytest.mark.drawn
def test_default_folder_has_a_readable_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["copy"])
    assert run("--max-steps", 1, "--variant", "authors") == 0
    (folder,) = (tmp_path / "runs" / "copy").iterdir()
    assert folder.name == "T0_wrnn_n5_c2_lr0.001_clip1_variant-authors_batch-8_seed0"


def test_names_of_folders_stay_as_they_were():
    """Under them a run that was begun without --logdir is found again."""
    names = {
        (copy, "--ksize 5 --encoder-init dense --no-use-bias --speed 0.5 --batch 7"): (
            "T480_wrnn_n100_c6_lr0.001_clip1_ksize-5_speed-0.5_encoder-init-dense_use-bias-False_batch-7_seed0"
        ),
        (copy, "--encoder low-rank"): "T480_wrnn_n100_c6_lr0.001_clip1_encoder-low-rank_encoder-rank-8_seed0",
        (copy, "--model lstm --n-hid 3 --seed 2"): "T480_lstm_n3_lr0.001_clip1_seed2",
        (copy, "--model wave-ssm --n-layers 2"): "T480_wave-ssm_c64_lr0.001_clip1_n-layers-2_seed0",
        (hds, ""): "T1_srnn_n64_c1_lr0.003_clip1_seed0",
        (hds, "--model wrnn"): "T1_wrnn_n64_c8_lr0.003_clip1_seed0",
        (hds, "--model twm-lbc"): "T1_twm-lbc_n8_lr0.003_clip1_seed0",
        (hds, "--use-bias --init random"): "T1_srnn_n64_c1_lr0.003_clip1_init-random_use-bias-True_seed0",
        (psmnist, "--model irnn"): "mnist_irnn_n256_c1_lr0.001_clip1_seed0",
    }
    for (module, line), name in names.items():
        assert readable_name(module.EXPERIMENT, expand(module.EXPERIMENT, line.split())) == name


@pytest.mark.parametrize("value", ["9" * 5000, "\x1b[31m", "a\nb", "\udcff"])
def test_a_value_that_no_terminal_should_show_is_refused_in_a_line_of_some_length(capsys, value):
    for flag in ("--T", "--variant", "--grid.T"):
        line = refusal(capsys, flag, value)
        assert line.isprintable()
        assert len(line) < 2000
