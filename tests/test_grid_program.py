"""A grid from its command line to its files, in one process on small networks."""

import csv
import json
import shutil
import time

import chex
import jax
import matplotlib.image
import numpy as np
import pytest

from experiments import copy, smnist
from experiments.experiment import restore
from experiments.runs import open_run
from helpers import refusal, run
from wrnn_jax.report.runs import find_runs

pytestmark = pytest.mark.usefixtures("standard_promotion", "undrawn")

SMALL = ["--T", 0, "--n-hid", 5, "--n-ch", 1, "--batch", 8, "--stop-below", 0, "--log-interval", 4, "--max-steps", 10]
GRID = ["--grid.lr", "1e-2", "3e38", "--grid.model", "wrnn", "irnn", "--grid.grad-clip", "0", "1", "--seeds", 2]
GRID += ["--grid-chunk", 4]
"""Half of the members diverge: those that go on are as many as train at once, so that all is compiled once."""


def table(folder):
    with (folder / "grid.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A grid of two programs, trained; half of its members diverge."""
    folder = tmp_path_factory.mktemp("grid") / "grid"
    start = time.perf_counter()
    assert run(copy.main, *SMALL, *GRID, "--logdir", folder) == 0
    (folder.parent / "seconds").write_text(str(time.perf_counter() - start))
    return folder


def test_every_member_has_a_row(folder):
    rows = table(folder)
    assert len(rows) == 16
    assert list(rows[0])[:6] == ["rank", "member", "lr", "model", "grad_clip", "seed"]
    for row in rows:
        assert row["status"] == ("diverged" if row["lr"] == "3e+38" else "complete")
        assert (row["step"] == "10") == (row["status"] == "complete")
    lines = [json.loads(line) for line in (folder / "grid.jsonl").read_text().splitlines()]
    assert [str(line["member"]) for line in lines] == [row["member"] for row in rows]
    of_members = [line["seconds"] for line in lines]  # Each its own: not all that passed, sixteen times.
    assert min(of_members) > 0
    assert sum(of_members) < float((folder.parent / "seconds").read_text())
    best, *others = sorted(lines, key=lambda line: line["rank"] or np.inf)
    assert all(best["test_loss"] <= other["test_loss"] for other in others if other["status"] == "complete")


def test_a_member_is_an_ordinary_run(folder, capsys):
    """It opens as one, evaluates as one, and is what the report counts."""
    row = next(row for row in table(folder) if (row["lr"], row["model"], row["seed"]) == ("0.01", "irnn", "1"))
    member = open_run(folder / row["folder"])
    assert (member.config.model.model, member.config.train.lr, member.config.train.seed) == ("irnn", 1e-2, 1)
    assert [line["step"] for line in member.rows] == [4, 8, 10]
    capsys.readouterr()
    single = ["--model", "irnn", "--lr", "1e-2", "--seed", 1, "--grad-clip", row["grad_clip"]]
    assert run(copy.main, *SMALL, *single, "--logdir", member.path, "--eval-only") == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    np.testing.assert_allclose(printed["test_loss"], float(row["test_loss"]), rtol=1e-5)
    found = find_runs(folder)
    assert (len(found.runs), found.unfinished, found.skipped) == (16, (), ())


def test_a_member_is_its_run_alone(folder, tmp_path):
    for row in (table(folder)[0], table(folder)[-1]):
        flags = [
            flag
            for field in ("lr", "model", "grad-clip", "seed")
            for flag in (f"--{field}", row[field.replace("-", "_")])
        ]
        code = run(copy.main, *SMALL, *flags, "--logdir", tmp_path / row["member"])
        assert code == (1 if row["status"] == "diverged" else 0)
        summaries = [open_run(path).summary for path in (folder / row["folder"], tmp_path / row["member"])]
        kept = [{k: v for k, v in each.items() if k not in ("seconds", "steps_per_second")} for each in summaries]
        numbers = [[each.pop(name) for name in ("test_loss", "authors_loss", "recall")] for each in kept]
        assert kept[0] == kept[1]
        np.testing.assert_allclose(*np.array(numbers, float), rtol=1e-4)


def test_pictures_and_nothing_that_is_not_needed(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {"grid.json", "grid.csv", "grid.jsonl", "members", "figures"}
    for figure in ("heatmap", "curves"):
        assert matplotlib.image.imread(folder / "figures" / f"{figure}.png").std() > 0.05
    best = min(table(folder), key=lambda row: int(row["rank"] or 99))
    assert {path.stem for path in (folder / best["folder"] / "figures").iterdir()} == {"task", "training", "waves"}


def test_resuming_what_has_ended_trains_nothing_and_more_steps_go_on(folder, tmp_path):
    again = tmp_path / "grid"
    shutil.copytree(folder, again)
    assert run(copy.main, *SMALL, *GRID, "--logdir", again, "--resume") == 0
    assert table(again) == table(folder)
    more = [*SMALL[:-1], 13]
    assert run(copy.main, *more, *GRID, "--logdir", again, "--resume") == 0
    assert {row["step"] for row in table(again) if row["status"] == "complete"} == {"13"}
    row = table(again)[0]
    alone = ["--lr", row["lr"], "--model", row["model"], "--grad-clip", row["grad_clip"], "--seed", row["seed"]]
    assert run(copy.main, *more, *alone, "--logdir", tmp_path / "alone") == 0
    runs = open_run(again / row["folder"]), open_run(tmp_path / "alone")
    states = [restore(each.parts().trainer(), 0, each.path) for each in runs]
    chex.assert_trees_all_close(*jax.device_get(states), rtol=1e-4, atol=1e-5)


def test_validation_ranks_where_there_is_any(tmp_path):
    flags = [
        "--dataset",
        "digits",
        "--n-hid",
        6,
        "--n-ch",
        2,
        "--batch",
        100,
        "--max-steps",
        14,
        "--grid.lr",
        "1e-2",
        "1e-5",
    ]
    assert run(smnist.main, *flags, "--logdir", tmp_path / "grid") == 0
    rows = sorted(table(tmp_path / "grid"), key=lambda row: int(row["rank"]))
    assert float(rows[0]["val_acc"]) >= float(rows[1]["val_acc"])
    for row in rows:
        assert 0 <= float(row["test_acc"]) <= 1
        assert int(row["best_step"]) in (12, 14)


def test_refusals_are_one_line(folder, capsys):
    def refused(*arguments):
        return refusal(capsys, copy.main, *SMALL, *arguments, "--logdir", folder)

    assert "--logdir" in refused(*GRID)
    assert "it holds a run already" in refused(*GRID)
    changed = refused("--grid.lr", "1e-2", "1e-3", *GRID[3:], "--resume")
    assert changed.startswith("error: --grid.lr [0.01, 0.001]: must be [0.01, 3e+38], as in the run that")
    assert "--batch 9: must be 8, as in the run that" in refused(*GRID, "--resume", "--batch", 9)
    assert "--eval-only True: must be left out for a grid" in refused(*GRID, "--eval-only")
    assert "--grid-chunk 0: must be a whole number, 1 or more" in refused(*GRID, "--grid-chunk", 0)
    assert "--num-processes None" in refused(*GRID, "--distributed", "--coordinator", "127.0.0.1:1")
    assert "only a grid's members" in refused("--distributed")
    assert "it holds other files" in refused()


def test_a_grid_of_which_nothing_is_left_is_a_failure(tmp_path, capsys):
    flags = "--grid.lr", "3e38", "--seeds", 4, "--grid-chunk", 4
    assert run(copy.main, *SMALL, *flags, "--logdir", tmp_path / "grid") == 1
    assert "every member diverged" in capsys.readouterr().out
