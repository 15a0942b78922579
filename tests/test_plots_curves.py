import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import by_gid, draw
from wrnn_jax.analysis.plots import PANELS, Panel, training_curves

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_open_figures")]
COPY_CHANCE = {"test_loss": 10 * math.log(8) / 50, "recall": 1 / 8}
LOSS = Panel("test_loss", "loss", log=True)


def band(axis):
    """Each band of the axes as {x: (least, greatest)}."""
    return [
        {x: (min(ys), max(ys)) for x in set(xs) for ys in [[y for other, y in vertices if other == x]]}
        for collection in axis.collections
        for vertices in [collection.get_paths()[0].vertices]
        for xs in [[x for x, _ in vertices]]
    ]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def texts(axis):
    return [text.get_text() for text in axis.texts]


def rows_of(rng, count):
    return [
        {"step": 10 * i, "train_loss": rng.uniform(), "test_loss": rng.uniform(), "recall": rng.uniform()}
        for i in range(count)
    ]


def test_a_single_run_is_its_rows():
    rng = np.random.default_rng(0)
    runs = {"wRNN": [rows_of(rng, 7)], "iRNN": [rows_of(rng, 5)]}
    figure = training_curves(runs, PANELS["copy"], baselines=COPY_CHANCE, title="a title")
    draw(figure)
    assert figure.get_suptitle() == "a title"
    losses, recall = figure.axes
    assert losses.get_yscale() == "log"
    assert recall.get_yscale() == "linear"
    assert recall.get_xlabel() == "training step"
    for axis, key, scale in ((losses, "train_loss", 1), (losses, "test_loss", 1), (recall, "recall", 100)):
        for line, (rows,) in zip(by_gid(axis, key), runs.values(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [row["step"] for row in rows])
            np.testing.assert_array_equal(line.get_ydata(), [scale * row[key] for row in rows])
    for train, test in zip(by_gid(losses, "train_loss"), by_gid(losses, "test_loss"), strict=True):
        assert train.get_linewidth() < test.get_linewidth()
        assert train.get_color() == test.get_color()
    assert len({line.get_color() for line in by_gid(losses, "test_loss")}) == 2
    assert not losses.collections
    assert legend(figure) == ["wRNN", "iRNN", "test", "training"]


def test_baselines_are_dashed_and_in_view():
    runs = {"a": [[{"step": 1, "test_loss": 1e-9, "recall": 1.0}, {"step": 2, "test_loss": 1e-8, "recall": 1.0}]]}
    figure = training_curves(runs, PANELS["copy"], baselines=COPY_CHANCE)
    draw(figure)
    for axis, value, text in zip(figure.axes, (COPY_CHANCE["test_loss"], 12.5), ("0.416", "12.5 %"), strict=True):
        (baseline,) = by_gid(axis, "baseline")
        np.testing.assert_array_equal(baseline.get_ydata(), [value, value])
        assert baseline.get_linestyle() == "--"
        assert axis.get_ylim()[0] < value < axis.get_ylim()[1]
        assert texts(axis) == [f"remembering nothing: {text}"]


def test_images_have_the_accuracy_in_training_beside_that_in_validation():
    rows = [{"step": step, "val_acc": 0.5 + 0.1 * step, "train_acc": 0.6 + 0.1 * step} for step in (1, 2, 3)]
    axis = training_curves({"wRNN": [rows]}, PANELS["psmnist"]).axes[1]
    for key in ("val_acc", "train_acc"):
        (line,) = by_gid(axis, key)
        np.testing.assert_allclose(line.get_xydata(), [[row["step"], 100 * row[key]] for row in rows])
    assert by_gid(axis, "train_acc")[0].get_linewidth() < by_gid(axis, "val_acc")[0].get_linewidth()


def test_adding_shows_where_it_is_solved():
    rows = [{"step": 1, "test_mse": 0.2, "train_loss": 0.1}, {"step": 2, "test_mse": 1e-4, "train_loss": 1e-3}]
    figure = training_curves({"wRNN": [rows]}, PANELS["adding"], baselines={"test_mse": 0.167})
    draw(figure)
    (axis,) = figure.axes
    assert [line.get_ydata()[0] for line in by_gid(axis, "baseline")] == [0.167, 0.05]
    assert texts(axis) == ["always answering 1: 0.167", "solved: 0.05"]


@pytest.mark.parametrize("task", PANELS)
def test_every_tasks_panels_show_their_metrics(task):
    keys = {panel.metric for panel in PANELS[task]} | {panel.thin for panel in PANELS[task] if panel.thin}
    rows = [{"step": step, **dict.fromkeys(keys, 0.5 / step)} for step in (1, 2, 3)]
    figure = training_curves({"a": [rows]}, PANELS[task])
    drawn = {line.get_gid() for axis in figure.axes for line in axis.lines} - {"baseline"}
    assert drawn == keys
    assert len(figure.axes) == len(PANELS[task])


def test_epochs():
    rows = [{"step": step, "test_loss": 1.0} for step in (445, 890)]
    figure = training_curves({"a": [rows]}, [LOSS], steps_per_epoch=445)
    np.testing.assert_array_equal(by_gid(figure.axes[0], "test_loss")[0].get_xdata(), [1, 2])
    assert figure.axes[0].get_xlabel() == "epoch"


seeds = st.lists(
    st.dictionaries(st.integers(0, 8), st.floats(1e-3, 1e3), min_size=1, max_size=9), min_size=2, max_size=4
)


@settings(max_examples=10)
@given(curves=seeds)
def test_seeds_are_mean_and_range_where_all_have_a_value(curves):
    runs = [[{"step": step, "test_loss": value} for step, value in curve.items()] for curve in curves]
    (axis,) = training_curves({"a": runs}, [LOSS._replace(thin="train_loss")]).axes
    shared = [step for step in range(9) if all(step in curve for curve in curves)]
    (line,) = by_gid(axis, "test_loss")
    assert list(line.get_xdata()) == shared
    expected = [sum(curve[step] for curve in curves) / len(curves) for step in shared]
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)
    assert not by_gid(axis, "train_loss")
    if shared:
        (least_and_greatest,) = band(axis)
        for step in shared:
            values = [curve[step] for curve in curves]
            assert least_and_greatest[step] == pytest.approx((min(values), max(values)))


def test_legend_explains_seeds_and_single_runs():
    rng = np.random.default_rng(0)
    figure = training_curves({"a": [rows_of(rng, 4)] * 3, "b": [rows_of(rng, 4)]}, PANELS["copy"])
    draw(figure)
    assert legend(figure) == ["a (3 seeds)", "b", "test", "training", "line: mean of seeds, band: their range"]


def test_order_of_seeds_and_of_rows_does_not_matter():
    rng = np.random.default_rng(0)
    one, two = rows_of(rng, 5), rows_of(rng, 6)
    lines = [
        by_gid(training_curves({"a": runs}, [LOSS]).axes[0], "test_loss")[0].get_xydata()
        for runs in ([one, two], [two[::-1], one])
    ]
    np.testing.assert_array_equal(*lines)


def test_rows_may_lack_keys_and_hold_nan():
    rows = [
        {"step": 0, "train_loss": 2.0},
        {"step": 1, "train_loss": math.nan, "test_loss": 1.0, "recall": 0.5},
        {"step": 2, "train_loss": math.inf, "test_loss": None},
        {"step": 3, "train_loss": 0.5, "test_loss": 0.25},
        {"note": "no step"},
    ]
    figure = training_curves({"run": [rows]}, PANELS["copy"], baselines={})
    draw(figure)
    losses, recall = figure.axes
    np.testing.assert_array_equal(by_gid(losses, "train_loss")[0].get_ydata(), [2, math.nan, math.inf, 0.5])
    np.testing.assert_array_equal(by_gid(losses, "test_loss")[0].get_xydata(), [[1, 1], [3, 0.25]])
    (point,) = by_gid(recall, "recall")
    np.testing.assert_array_equal(point.get_xydata(), [[1, 50]])
    assert point.get_marker() == "o"
    assert not by_gid(losses, "baseline")


def test_a_diverged_seed_is_a_gap_in_the_mean():
    good = [{"step": step, "test_loss": 1.0} for step in (1, 2, 3)]
    bad = [{"step": step, "test_loss": value} for step, value in ((1, 3.0), (2, math.nan), (3, math.inf))]
    figure = training_curves({"a": [good, bad]}, [LOSS])
    draw(figure)
    (line,) = by_gid(figure.axes[0], "test_loss")
    np.testing.assert_array_equal(line.get_ydata(), [2, math.nan, math.inf])


@pytest.mark.parametrize(
    ("runs", "baselines"),
    [
        ({}, None),
        ({"a": [[]]}, COPY_CHANCE),
        ({"a": [[], []]}, COPY_CHANCE),
        ({"a": [[{"step": 5}]]}, None),
        ({"a": [[{"step": 5, "test_loss": math.nan}]]}, COPY_CHANCE),
    ],
)
def test_curves_without_measurements(runs, baselines):
    figure = training_curves(runs, PANELS["copy"], baselines=baselines)
    draw(figure)
    assert figure.axes[0].get_yscale() == "log"
    has_points = any("test_loss" in row for seeds in runs.values() for rows in seeds for row in rows)
    assert ("no measurement yet" in texts(figure.axes[0])) != has_points


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="panels"):
        training_curves({"a": [[]]}, [])
    with pytest.raises(ValueError, match=r"runs\['a'\]"):
        training_curves({"a": []}, [LOSS])
    with pytest.raises(ValueError, match="steps_per_epoch"):
        training_curves({"a": [[]]}, [LOSS], steps_per_epoch=0)
