"""Members ranked, settings compared over their seeds, and the files and the table that say so."""

import csv
import json
import math
import os
import random
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrnn_jax.grids.results import Setting, ranked, ranking_table, settings, write_rows
from wrnn_jax.validation import InvalidValue

STATUSES = ("solved", "below the loss asked for", "complete", "diverged", "interrupted", "running", "pending")
AXES = ("model", "lr", "seed")
NUMBERS = st.one_of(st.none(), st.floats(-1e30, 1e30), st.sampled_from([0.5, 0.25, math.nan, math.inf, -math.inf]))


@st.composite
def grids(draw):
    """The rows of a grid of 2 models, 2 learning rates and up to 3 seeds, in any order."""
    members = list(product(("wrnn", "irnn"), (1e-2, 1e-3), range(draw(st.integers(1, 3)))))
    rows = [
        {
            "member": index,
            **dict(zip(AXES, values, strict=True)),
            "status": draw(st.sampled_from(STATUSES)),
            "loss": draw(NUMBERS),
            "solved_step": draw(st.sampled_from([None, None, 300])),
        }
        for index, values in enumerate(members)
    ]
    return draw(st.permutations(rows))


def row(member, loss, status="complete", **others):
    return {"member": member, "status": status, "loss": loss, **others}


def has_number(row):
    return row["loss"] is not None and bool(np.isfinite(row["loss"]))


def is_before(one, other, greatest):
    """The definition, of two members with numbers."""
    diverged = [row["status"] == "diverged" for row in (one, other)]
    if diverged[0] != diverged[1]:
        return diverged[1]
    if one["loss"] != other["loss"]:
        return (one["loss"] > other["loss"]) == greatest
    return one["member"] < other["member"]


# Ranks


@given(grids(), st.booleans())
def test_a_rank_counts_the_members_before(rows, greatest):
    result = ranked(rows, "loss", greatest)
    assert sorted(row["member"] for row in result) == list(range(len(rows)))
    with_number = [row for row in rows if has_number(row)]
    for member in result:
        before = sum(is_before(other, member, greatest) for other in with_number) if has_number(member) else None
        assert member["rank"] == (None if before is None else 1 + before)
    assert [member["rank"] for member in result] == [
        *range(1, len(with_number) + 1),
        *[None] * (len(rows) - len(with_number)),
    ]


@given(grids(), st.booleans(), st.randoms(use_true_random=False))
def test_ranks_do_not_depend_on_the_order_of_rows(rows, greatest, rng):
    shuffled = rng.sample(rows, len(rows))
    assert repr(ranked(rows, "loss", greatest)) == repr(ranked(shuffled, "loss", greatest))


@given(grids())
def test_greatest_is_least_of_the_negative(rows):
    negative = [{**row, "loss": None if row["loss"] is None else -row["loss"]} for row in rows]
    by_greatest, by_least = ranked(rows, "loss", True), ranked(negative, "loss", False)
    assert [row["member"] for row in by_greatest] == [row["member"] for row in by_least]


def test_diverged_members_come_after_all_others_however_good():
    rows = [row(0, 1e-9, "diverged"), row(1, 5.0), row(2, None), row(3, 1.0, "interrupted"), row(4, math.nan)]
    assert [(r["rank"], r["member"]) for r in ranked(rows, "loss", False)] == [
        (1, 3),
        (2, 1),
        (3, 0),
        (None, 2),
        (None, 4),
    ]
    assert rows[0] == row(0, 1e-9, "diverged"), "the rows given are left as they are"


# Settings


@given(grids())
def test_a_setting_has_mean_and_sd_of_its_seeds_that_did_not_diverge(rows):
    result = settings(rows, AXES, "loss")
    assert [tuple(setting.fields.values()) for setting in result] == list(product(("wrnn", "irnn"), (1e-2, 1e-3)))
    for setting in result:
        members = [row for row in rows if all(row[name] == value for name, value in setting.fields.items())]
        values = np.array([r["loss"] for r in members if has_number(r) and r["status"] != "diverged"])
        assert setting.measured == len(values)
        if len(values):
            scale = np.abs(values).max()
            assert setting.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-9 * scale)
        else:
            assert setting.mean is None
        if len(values) > 1:
            assert setting.sd == pytest.approx(values.std(ddof=1), rel=1e-6, abs=1e-9 * scale)
        else:
            assert setting.sd is None
        assert setting.diverged == sum(r["status"] == "diverged" for r in members)
        assert setting.measured + setting.diverged + setting.missing == setting.members == len(members)
        assert setting.solved == sum(r["status"] == "solved" or r["solved_step"] == 300 for r in members)


@given(grids(), st.booleans())
def test_a_setting_that_some_seeds_do_not_survive_comes_after_all_that_do(rows, greatest):
    in_order = sorted(settings(rows, AXES, "loss"), key=lambda setting: setting.order(greatest))
    groups = [(setting.mean is None, setting.diverged / setting.members) for setting in in_order]
    assert groups == sorted(groups)
    for one, other in pairwise(in_order):
        if one.mean is not None and other.mean is not None and one.diverged == other.diverged:
            assert one.mean >= other.mean if greatest else one.mean <= other.mean


def test_a_grid_of_seeds_alone_is_one_setting():
    rows = [row(seed, loss, seed=seed) for seed, loss in enumerate([1.0, 2.0, 6.0])]
    (setting,) = settings(rows, ["seed"], "loss")
    assert setting == Setting({}, mean=3.0, sd=math.sqrt(7), measured=3, diverged=0, missing=0, solved=0)


def test_a_row_without_an_axis_is_refused():
    with pytest.raises(InvalidValue, match=r"member 7 .*a row with lr"):
        settings([row(7, 1.0, seed=0)], ("lr", "seed"), "loss")


# Files


def read_csv(folder):
    with (folder / "grid.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_lines(folder):
    return [json.loads(line) for line in (folder / "grid.jsonl").read_text(encoding="utf-8").splitlines()]


def test_both_files_have_every_number_exactly(tmp_path):
    rows = [
        {**row(0, 0.1 + 0.2), "model": 'a, "b"\n', "lr": 1e-3, "seconds": math.inf},
        {**row(1, None), "model": "ÿ", "lr": 5e-324, "solved_step": 300, "freeze_encoder": True},
        {**row(2, math.nan), "model": None, "lr": 1e300, "best_step": 7},
    ]
    write_rows(tmp_path, rows[::-1])
    lines, cells = read_lines(tmp_path), read_csv(tmp_path)
    union = ["member", "status", "loss", "model", "lr", "seconds", "solved_step", "freeze_encoder", "best_step"]
    assert list(cells[0]) == union
    for source, line, cell in zip(rows, lines, cells, strict=True):
        finite = {key: value for key, value in source.items() if value not in (None, math.inf) and value == value}
        assert line == {key: finite.get(key) for key in source}
        assert cell == {key: str(finite.get(key, "")) for key in union}
        assert float(cell["lr"]) == source["lr"]


@given(grids())
def test_files_do_not_depend_on_the_order_of_rows(tmp_path_factory, rows):
    folders = [tmp_path_factory.mktemp("grid") for _ in range(2)]
    write_rows(folders[0], rows)
    write_rows(folders[1], random.Random(0).sample(rows, len(rows)))
    for name in ("grid.csv", "grid.jsonl"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert [line["member"] for line in read_lines(folders[0])] == list(range(len(rows)))


def test_a_crash_while_writing_leaves_the_old_files(tmp_path, monkeypatch):
    write_rows(tmp_path, [row(0, 1.0)])
    before = {name: (tmp_path / name).read_bytes() for name in ("grid.csv", "grid.jsonl")}

    def crash(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="no space left"):
        write_rows(tmp_path, [row(0, 2.0), row(1, 3.0)])
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    monkeypatch.undo()
    write_rows(tmp_path, [row(0, 2.0)])
    assert read_lines(tmp_path) == [row(0, 2.0)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(before)


# The table


def table_of(rows, greatest=False, **options):
    return ranking_table(settings(rows, AXES, "loss"), "loss", greatest, **options).splitlines()


def rows_of(**losses):
    """Members of settings named by their model; "!" after a loss: diverged."""
    members = [(model, seed, value) for model, values in losses.items() for seed, value in enumerate(values)]
    return [
        row(
            index,
            float(value.rstrip("!")) if value else None,
            "diverged" if value.endswith("!") else "solved" if value.startswith("1e-") else "complete",
            model=model,
            lr=0.001,
            seed=seed,
        )
        for index, (model, seed, value) in enumerate(members)
    ]


def test_the_table_has_the_settings_best_first():
    lines = table_of(rows_of(a=["0.5", "0.7"], b=["1e-5", "3e-5"], c=["1e-9", "1e-9!"], d=["1!", "1!"], e=["", "0.9"]))
    assert lines[0] == "loss, lower is better"
    assert [line.split() for line in lines[1:]] == [
        ["rank", "model", "lr", "mean", "±", "sd", "solved", "diverged", "missing"],
        ["1", "b", "0.001", "2.0e-05", "±", "1.4e-05", "1/2", "0/2", "0/2"],
        ["2", "a", "0.001", "0.6000", "±", "0.1414", "0/2", "0/2", "0/2"],
        ["3", "e", "0.001", "0.9000", "0/2", "0/2", "1/2"],
        ["4", "c", "0.001", "1.0e-09", "1/2", "1/2", "0/2"],
        ["–", "d", "0.001", "–", "0/2", "2/2", "0/2"],
    ]
    assert len({len(line) for line in lines[1:]}) == 1, "columns are flush right"


def test_the_table_of_single_seeds_has_no_sd_and_says_how_many_are_left():
    lines = table_of(rows_of(a=["0.5"], b=["0.7"], c=["0.6"], d=["0.1"]), greatest=True, top=2)
    assert lines[0] == "loss, higher is better"
    assert [line.split() for line in lines[1:]] == [
        ["rank", "model", "lr", "loss", "diverged"],
        ["1", "b", "0.001", "0.7000", "0/1"],
        ["2", "c", "0.001", "0.6000", "0/1"],
        ["and", "2", "settings", "more"],
    ]
    assert table_of(rows_of(a=["0.5"], b=["0.7"]), top=1)[-1] == "and 1 setting more"


@pytest.mark.parametrize("top", [0, -1, 2.5])
def test_the_table_refuses_fewer_than_one_line(top):
    with pytest.raises(InvalidValue, match="top"):
        table_of(rows_of(a=["0.5"]), top=top)
    with pytest.raises(InvalidValue, match="settings"):
        ranking_table([], "loss", False)
