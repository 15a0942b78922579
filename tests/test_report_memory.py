"""The second paper's table: traveling-wave working memory, best and mean over seeds, angles that some seeds lack."""

import json
import statistics

import matplotlib.figure
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrnn_jax.analysis import plots
from wrnn_jax.report import build_report, numbers
from wrnn_jax.report.build import make_document
from wrnn_jax.report.document import Table
from wrnn_jax.report.groups import misfits
from wrnn_jax.report.othermodels import other_models
from wrnn_jax.report.papertables import PAPER_TABLES
from wrnn_jax.report.pictures import curves
from wrnn_jax.report.runs import Found, Run, find_runs
from wrnn_jax.report.tables import comparison, fill

TABLES = {table.slug: table for table in PAPER_TABLES}
TABLE = TABLES["hds"]
HDS = {
    "experiment": "hds", "task": "T1", "d": 8, "s": 8, "horizon": 200, "curriculum": [10, 20, 40, 60, 100],
    "model": "srnn", "n_hid": 64, "n_ch": 1, "act": "tanh", "init": "orthogonal", "use_bias": False,
    "weight_decay": 0.0, "lr": 1e-3, "grad_clip": 1.0, "schedule": "constant", "batch": 64, "seed": 0,
    "params": 5120, "steps": 20_000, "max_steps": 20_000, "status": "complete", "solved_step": None,
    "test_acc": 0.75, "test_mse": 0.5, "angle_error": 0.001, "eigenvalues_kept": 64, "eigenvalues_theory": 64,
    "spectral_radius": 1.0003,
}  # fmt: skip
PRINTED = """
T1: – (0.97), – (0.88), – (0.50) | 0.0005 (1.00), – (0.93), – (0.50)
T2: 0.0075 (1.00), – (0.85), – (0.50) | 0.0055 (0.98), 0.0031 (0.98), – (0.50)
T3: 0.0026 (1.00), 0.0010 (0.97), – (0.50) | 0.0031 (0.98), 0.0005 (1.00), – (0.50)
T4: 0.0112 (0.94), 0.0011 (1.00), – (0.50) | 0.0022 (1.00), 0.0006 (1.00), – (0.50)
"""
"""Table 1 as it is printed: angle error (accuracy); hidden 64 | 128, each with an L2 penalty of 0, 1e-3, 1e-1."""
ACCURACY, ANGLE = "accuracy at horizon 200 (%)", "angle error (rad)"
BEST, MEAN = f"{ACCURACY}, ours, best seed", f"{ACCURACY}, ours, mean"


def run(name="run", **changes):
    return Run(name, {**HDS, **changes}, {})


def seeds(**changes):
    """Runs that differ in what is given as lists, and in their seed."""
    together = zip(*changes.values(), strict=True)
    return [
        run(f"s{seed}", seed=seed, **dict(zip(changes, values, strict=True))) for seed, values in enumerate(together)
    ]


def rows_of(table, runs):
    """Header -> text, of each line."""
    made = comparison(fill(table, runs))
    return [dict(zip(made.header, (cell.text for cell in row), strict=True)) for row in made.rows]


def names_shown(runs):
    """The names in each group that the table shows."""
    return [[entry.name for entry in group.runs] for group in fill(TABLE, runs).shown]


def row_of(runs, task="T1", hidden="64", penalty="0"):
    place = (task, hidden, penalty)
    return next(row for row in rows_of(TABLE, runs) if (row["task"], row["hidden"], row["L2"]) == place)


# The paper's numbers


def test_the_published_cells_are_the_printed_ones():
    printed = {}
    for line in PRINTED.strip().splitlines():
        task, cells = line.split(": ")
        for hidden, of_size in zip(("64", "128"), cells.split(" | "), strict=True):
            for penalty, cell in zip(("0", "0.001", "0.1"), of_size.split(", "), strict=True):
                angle, accuracy = cell.removesuffix(")").split(" (")
                printed[task, hidden, penalty] = angle, f"{100 * float(accuracy):.0f}"
    shown = {
        (row["task"], row["hidden"], row["L2"]): (row[f"{ANGLE}, paper"], row[f"{ACCURACY}, paper"])
        for row in rows_of(TABLE, [])
    }
    assert shown == printed
    assert len(shown) == 24


# Ours


def test_best_of_seeds_and_mean_are_both_given_and_the_mean_is_compared():
    row = row_of(seeds(test_acc=[0.5, 1.0, 0.9], angle_error=[0.001, 0.001, 0.004]))
    assert row[BEST] == "100.00"
    assert row[MEAN] == "80.00 ± 26.46"  # sd of 0.5, 1, 0.9: sqrt((0.09 + 0.04 + 0.01) / 2) = 0.26458
    assert row["ours, mean − paper (points)"] == "−17.00"
    assert row[f"{ANGLE}, ours"] == "0.0020 ± 0.0017"  # sqrt((1 + 1 + 4) / 2) mrad = 1.732 mrad
    assert row["angle: ours ÷ paper"] == "–", "the paper has none there"
    assert (row["seeds"], row["trained"]) == ("3", "20,000 steps")
    assert row["our setting"] == "lr 0.001, clip 1, schedule constant, init orthogonal"
    assert row["notes"] == ""


@pytest.mark.parametrize(
    ("angles", "text", "ratio"),
    [
        ([0.003], "0.0030", "×0.4"),
        ([0.003, 0.012], "0.0075 ± 0.0064", "×1"),
        ([None, 0.015], "0.015 (1 of 2 seeds)", "×2"),
        ([0.003, None, 0.012], "0.0075 ± 0.0064 (2 of 3 seeds)", "×1"),
        ([None, None], "– (0 of 2 seeds)", "–"),
    ],
)
def test_an_angle_is_of_the_seeds_that_have_one_and_they_are_counted(angles, text, ratio):
    row = row_of(seeds(angle_error=angles, task=["T2"] * len(angles)), "T2")
    assert row[f"{ANGLE}, paper"] == "0.0075"
    assert row[f"{ANGLE}, ours"] == text
    assert row["angle: ours ÷ paper"] == ratio


def test_of_each_seed_the_better_curriculum_counts_as_in_the_paper():
    """The mean over seeds of the greater accuracy, and of the lesser angle, which may be another run's."""
    measured = {  # (seed, mastery) -> accuracy, angle
        (0, 0.9): (0.9, 0.004), (0, 0.98): (1.0, 0.006), (1, 0.9): (0.8, None), (1, 0.98): (0.7, 0.002),
    }  # fmt: skip
    runs = [
        run(f"s{seed}-{mastery}", task="T2", seed=seed, mastery=mastery, test_acc=accuracy, angle_error=angle)
        for (seed, mastery), (accuracy, angle) in measured.items()
    ]
    row = row_of(runs, "T2")
    assert (row[MEAN], row[BEST], row["seeds"]) == ("90.00 ± 14.14", "100.00", "2")
    assert row["ours, mean − paper (points)"] == "−10.00"
    assert row[f"{ANGLE}, ours"] == "0.0030 ± 0.0014"
    assert row["notes"] == "each seed's better of mastery 0.9 and 0.98"
    assert row_of(runs[1::2], "T2")["notes"] == "", "one curriculum: nothing to choose from"
    assert len(fill(TABLE, [*runs, run("again", task="T2", mastery=0.9)]).others) == 1


def test_an_angle_that_was_never_looked_for_is_unknown_not_missing():
    summary = {key: value for key, value in HDS.items() if key != "angle_error"}
    row = row_of([Run("run", summary, {})])
    assert (row[f"{ANGLE}, ours"], row["angle: ours ÷ paper"]) == ("unknown", "–")
    assert row[MEAN] == "75.00"


def test_a_number_that_is_no_accuracy_fills_no_cell():
    filling = fill(TABLE, [run(test_acc=None)])
    assert not filling.shown
    assert [other.why for other in filling.others] == ["no finite test_acc"]


@given(st.lists(st.floats(1e-9, 3.0), min_size=1, max_size=5))
def test_radians_keep_two_digits_of_the_mean(angles):
    said = [float(part) for part in numbers.radians(angles).split(" ± ")]
    mean = statistics.mean(angles)
    assert said[0] == pytest.approx(mean, rel=0.051)
    if len(angles) > 1 and mean >= 1e-4:
        assert said[1] == pytest.approx(statistics.stdev(angles), abs=0.051 * mean)


# How long a run was


def test_a_run_that_ends_before_the_most_steps_it_may_take_is_not_short():
    runs = seeds(steps=[4_000, 20_000], status=["solved", "complete"])
    row = row_of(runs)
    assert row["trained"] == "4,000 to 20,000 steps of at most 20,000"
    assert row["notes"] == "1 of 2 stopped early: solved"
    (fewer,) = seeds(max_steps=[6_000], steps=[6_000])
    assert row_of([fewer])["notes"] == "allowed fewer than the paper's 20,000 steps"


def test_the_longest_is_what_was_allowed_most_not_what_failed_longest():
    solved = {"status": "solved", "steps": 3_000}
    assert names_shown([run("a", lr=0.1), run("b", **solved)]) == [["b"]], "last by name, not by steps"
    assert names_shown([run("a", **solved), run("b", max_steps=10_000, steps=10_000)]) == [["a"]]


outcomes = st.lists(
    st.tuples(st.integers(1, 20_000), st.floats(0, 1), st.none() | st.floats(1e-4, 1), st.booleans()),
    min_size=6,
    max_size=6,
)


@given(outcomes, outcomes)
def test_no_choice_depends_on_a_result_nor_on_when_it_came(first, second):
    def shown(results):
        runs = [
            run(f"r{at}", seed=at % 3, lr=[1e-3, 1e-4][at // 3], steps=steps, test_acc=accuracy, angle_error=angle)
            for at, (steps, accuracy, angle, _) in enumerate(results)
        ]
        for entry, (*_, solved) in zip(runs, results, strict=True):
            entry.summary["status"] = "solved" if solved else "complete"
        return names_shown(runs)

    assert shown(first) == shown(second) == [["r3", "r4", "r5"]]


# What fits


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"horizon": 100}, "horizon = 100, not 200"),
        ({"n_hid": 32}, "n_hid = 32, not 64"),
        ({"weight_decay": 0.01}, "weight_decay = 0.01, not 0.0"),
        ({"act": "relu"}, "act = relu, not tanh"),
        ({"use_bias": True}, "use_bias = True, not False"),
        ({"freeze_recurrence": True}, "recurrence frozen"),
        ({"status": "mislaid"}, "status mislaid"),
    ],
)
def test_why_a_run_is_in_no_cell_is_said(change, why):
    filling = fill(TABLE, [run(**change)])
    assert not filling.shown
    assert [other.why for other in filling.others] == [why]


def test_a_setting_may_stand_in_the_config_alone():
    summary = {key: value for key, value in HDS.items() if key != "weight_decay"}
    filling = fill(TABLE, [Run("r", summary, {"weight_decay": 0.1})])
    assert [(filled.line.name, filled.line.facts) for filled in filling.lines if filled.shown] == [
        ("T1", ("64", "0.1"))
    ]


def test_a_line_that_says_nothing_of_biases_wants_them():
    line = TABLES["copy-ablation"].lines[0]
    known = {**line.wants, "status": "complete"}
    assert misfits(Run("r", known, {}), line.wants, ()) == []
    assert misfits(Run("r", {**known, "use_bias": True}, {}), line.wants, ()) == []
    assert misfits(Run("r", {**known, "use_bias": False}, {}), line.wants, ()) == ["without biases"]


# Other models and systems


def test_other_models_have_lines_of_their_own_and_no_papers_columns():
    lstm = {"model": "lstm", "n_ch": None, "params": 20_000, "test_mse": 0.25}
    runs = [
        *(run(f"l{seed}", seed=seed, **lstm, test_acc=acc, solved_step=step, spectral_radius=radius)
          for seed, acc, step, radius in ((0, 0.5, None, 0.999), (1, 1.0, 700, 1.02))),
        run("w", model="wrnn", n_hid=16, n_ch=8, horizon=50),
        run("f", task="fibonacci", weight_decay=0.1),
        run("x", experiment="copy"),
    ]  # fmt: skip
    rows = rows_of(other_models(runs), runs)
    assert not [head for row in rows for head in row if "paper" in head]
    places = [tuple(row[head] for head in ("task", "model", "hidden", "horizon", "L2")) for row in rows]
    assert places == [
        ("T1", "lstm", "64", "200", "0"),
        ("T1", "wrnn", "16 × 8", "50", "0"),
        ("fibonacci", "srnn", "64", "200", "0.1"),
    ]
    ours = [
        "accuracy (%), ours, best seed", "accuracy (%), ours, mean", "test MSE, ours", "spectral radius, ours",
        "solved after step, ours", "parameters, ours", "seeds",
    ]  # fmt: skip
    assert [rows[0][head] for head in ours] == [
        "100.00",
        "75.00 ± 35.36",
        "0.25 ± 0",
        "0.9990 to 1.0200",
        "700 (1 of 2 seeds)",
        "20,000",
        "2",
    ]
    assert [row["notes"] for row in rows] == ["", "", ""], "nothing to be shorter than"


def test_a_curve_is_named_by_what_tells_it_from_others_of_its_task():
    runs = [run("a", model="lstm"), run("b", model="lstm", horizon=50), run("c", task="T2", model="lstm", horizon=9)]
    labels = [(line.figure, line.label) for line in other_models(runs).lines]
    assert labels == [("T1", "lstm, horizon 50"), ("T1", "lstm, horizon 200"), ("T2", "lstm")]


def test_without_other_models_there_is_no_table_of_them():
    assert other_models([]) is None
    assert other_models([run(experiment="copy"), run(weight_decay=None), run(task=["T1"])]) is None


def listed(document):
    """The names in a report's lists of runs."""
    tables = [block for section in document.sections for block in section.blocks if isinstance(block, Table)]
    return sorted(row[0].text for table in tables if table.header[0] == "run" for row in table.rows)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "experiment": st.sampled_from(["hds", "hds", "hds", "copy"]),
                "task": st.sampled_from(["T1", "T4", "fibonacci", 7]),
                "model": st.sampled_from(["srnn", "lstm", "wrnn"]),
                "n_ch": st.sampled_from([None, 1, 4]),
                "n_hid": st.sampled_from([64, 128, None]),
                "weight_decay": st.sampled_from([0.0, 0.1, None]),
                "status": st.sampled_from(["complete", "solved", "diverged", "mislaid"]),
                "test_acc": st.sampled_from([0.5, None]),
                "max_steps": st.sampled_from([20_000, 5_000]),
                "seed": st.integers(0, 1),
            }
        ),
        max_size=12,
    )
)
def test_every_run_is_listed_once(settings):
    runs = tuple(run(f"r{index:02}", **setting) for index, setting in enumerate(settings))
    assert listed(make_document(Found(runs, (), ()))) == [entry.name for entry in runs]


# Pictures and files


def write(folder, rows=(), **summary):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({**HDS, **summary}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_there_is_a_figure_for_each_task_with_a_curve_for_each_cell(tmp_path, monkeypatch):
    rows = [{"step": 10, "test_mse": 0.5, "test_acc": 0.75}]
    write(tmp_path / "a", rows, memoryless_mse=1.0, memoryless_acc=0.5)
    write(tmp_path / "b", rows, n_hid=128, weight_decay=0.1)
    write(tmp_path / "c", rows, task="T3", status="diverged")
    drawn = []

    def training_curves(runs, panels, **options):
        drawn.append((runs, panels, options))
        return matplotlib.figure.Figure()

    monkeypatch.setattr(plots, "training_curves", training_curves)
    images = list(curves(fill(TABLE, find_runs(tmp_path).runs)))
    assert [image.file for image in images] == ["hds-T1-curves.png", "hds-T3-curves.png"]
    assert [runs for runs, *_ in drawn] == [
        {"64 hidden, L2 0": [rows], "128 hidden, L2 0.1": [rows]},
        {"64 hidden, L2 0 (diverged)": [rows]},
    ]
    assert all(panels == plots.PANELS["hds"] for _, panels, _ in drawn)
    assert drawn[0][2]["baselines"] == {"test_mse": 1.0, "test_acc": 0.5}
    assert [options["title"] for *_, options in drawn] == [f"{TABLE.title}, {task}" for task in ("T1", "T3")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    rows = [{"step": 10 * at, "test_mse": 1 / at, "test_acc": 0.5} for at in range(1, 4)]
    write(root / "runs/zero", rows, test_acc=0.5, angle_error=None, eigenvalues_kept=61)
    write(root / "runs/one", rows, test_acc=1.0, seed=1)
    write(root / "runs/lstm", rows, model="lstm", n_ch=None)
    write(root / "runs/copy", experiment="copy", model="wrnn")
    return build_report(root / "runs", root / "out")


def test_the_report_names_both_papers_and_counts_the_tables_lines(report):
    text = report.markdown.read_text(encoding="utf-8")
    assert text.startswith("# Traveling waves in recurrent networks: results beside the papers'\n")
    assert "arXiv 2309.08045" in text
    assert "arXiv 2402.10163" in text
    assert "\n| Traveling-wave working memory, Table 1 | 24 | 1 | 1 | 0 |\n" in text
    assert (
        "| T1 | 64 | 0 | 97 | **100.00** | **75.00 ± 35.36** | −22.00 | – | **0.0010 (1 of 2 seeds)** | – | 2 |" in text
    )
    assert "| T1 | lstm | 64 | 200 | 0 | **75.00** | **75.00** | **0.50** | **1.0003** | **not solved** |" in text
    assert {file.name for file in report.figures} == {"hds-T1-curves.png", "hds-others-T1-curves.png"}


def test_the_list_of_runs_tells_the_eigenvalues_and_what_none_means(report):
    lines = report.markdown.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith(("| one |", "| zero |"))] == [
        "| zero | srnn | 0 | 20,000 | complete | 0.5 | – | 61 | 64 | 1 | – | – |",
        "| one | srnn | 1 | 20,000 | complete | 1 | 0.001 | 64 | 64 | 1 | – | – |",
    ]
    assert "not finite" not in "".join(lines)
