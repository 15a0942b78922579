"""Figures of trained RNNs beside the theory: what is drawn, against the numbers."""

import numpy as np
import pytest
from PIL import Image

from helpers import by_gid, draw, frames_of
from wrnn_jax.analysis.plots import (
    accuracy_by_step,
    evolution,
    gradient_figure,
    matrix_beside_phi,
    spectra_overlay,
    variables_animation,
    variables_wave,
)
from wrnn_jax.analysis.variables import compare_spectra, reduced
from wrnn_jax.theory import TASKS, binding_operator, phi

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_open_figures")]


def transition(task):
    return phi(binding_operator(TASKS[task]))


def points(axis, gid):
    (line,) = by_gid(axis, gid)
    x, y = line.get_data()
    return np.asarray(x) + 1j * np.asarray(y)


def drawn_texts(axis):
    return [text.get_text() for text in axis.texts]


# Eigenvalues


def test_both_spectra_stand_over_each_other_on_the_unit_circle():
    matrix = np.diag([1.1, -1.0, 0.4, 0.2])
    comparison = compare_spectra(matrix, np.diag([1.0, -1.0]))
    figure = spectra_overlay({"a": comparison}, title="a title")
    draw(figure)
    (axis,) = figure.axes
    assert figure.get_suptitle() == "a title"
    np.testing.assert_array_equal(points(axis, "theory"), comparison.theory)
    np.testing.assert_array_equal(points(axis, "trained"), comparison.trained)
    np.testing.assert_allclose(np.sort(points(axis, "left out").real), [0.2, 0.4])
    np.testing.assert_allclose(np.abs(points(axis, "unit circle")), 1)
    np.testing.assert_allclose(np.abs(points(axis, "threshold")), comparison.threshold)
    assert axis.get_aspect() == 1
    assert axis.get_xlim() == axis.get_ylim() == pytest.approx((-1.1 * 1.15, 1.1 * 1.15))


def test_panels_name_their_error_or_both_counts():
    theory = transition("T1")
    turned = np.exp(0.02j) * theory
    comparisons = {"turned": compare_spectra(turned, theory), "fewer": compare_spectra(np.eye(3), theory)}
    figure = spectra_overlay(comparisons)
    draw(figure)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["turned", "fewer"]
    verdicts = [axis.get_title(loc="right") for axis in figure.axes]
    assert verdicts == ["64 of 64, angle error 0.02", "3 eigenvalues, theory 64: –"]


def test_numbers_beside_the_circles_count_equal_eigenvalues():
    """T1: eighth roots of unity, 8 each. Compose copy: loops of 1 … 8, so 8 times 1, 4 times −1, twice ±i and ∛1."""
    figure = spectra_overlay({task: compare_spectra(transition(task), transition(task)) for task in ("T1", "T2")})
    repeat, compose = figure.axes
    assert drawn_texts(repeat) == ["8"] * 8
    assert sorted(drawn_texts(compose)) == ["2"] * 4 + ["4", "8"]
    for text in compose.texts:
        if text.get_text() == "8":
            np.testing.assert_allclose(text.xy, (1, 0), atol=1e-4)


def test_many_comparisons_fill_rows_and_leave_no_empty_axes():
    comparison = compare_spectra(np.eye(2), np.eye(2))
    figure = spectra_overlay({str(index): comparison for index in range(5)})
    draw(figure)
    assert len(figure.axes) == 5
    assert {axis.get_subplotspec().rowspan.start for axis in figure.axes} == {0, 1}


# The recurrence in the variables' basis


def test_matrices_share_one_scale_around_zero():
    rng = np.random.default_rng(0)
    theory = phi(rng.choice([-1.0, 0, 1], size=(2, 6)))
    matrix = theory + 0.3 * rng.normal(size=theory.shape)
    figure = matrix_beside_phi(matrix, theory, size=2)
    draw(figure)
    trained, expected, difference = figure.axes[:3]
    np.testing.assert_array_equal(trained.images[0].get_array(), matrix)
    np.testing.assert_array_equal(expected.images[0].get_array(), theory)
    np.testing.assert_array_equal(difference.images[0].get_array(), matrix - theory)
    top = max(np.abs(matrix).max(), 1)
    assert {axis.images[0].get_clim() for axis in figure.axes[:3]} == {(-top, top)}
    off = np.abs(matrix[theory == 0]).max()
    on = np.abs((matrix - theory)[theory != 0]).max()
    assert difference.get_xlabel() == f"at most {off:.2g} where Φ is 0, {on:.2g} elsewhere"


def lines_at(axis):
    return sorted(line.get_xdata()[0] for line in by_gid(axis, "column") if np.ptp(line.get_xdata()) == 0)


def test_lines_part_the_columns():
    figure = matrix_beside_phi(transition("T1"), transition("T1"), size=8)
    for axis in figure.axes[:3]:
        assert lines_at(axis) == [7.5, 15.5, 23.5, 31.5, 39.5, 47.5, 55.5]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list("12345678")


def test_where_components_were_dropped_columns_are_narrower():
    """Of compose copy column c keeps its first c elements."""
    kept = reduced(transition("T2"))
    theory = transition("T2")[np.ix_(kept, kept)]
    figure = matrix_beside_phi(theory, theory, size=8, kept=kept)
    draw(figure)
    assert lines_at(figure.axes[0]) == [0.5, 2.5, 5.5, 9.5, 14.5, 20.5, 27.5]
    np.testing.assert_allclose(figure.axes[0].get_xticks()[:3], [0, 1.5, 4])


# Variables over time


def travelling(steps=12, columns=4, size=3, seed=0):
    """Waves of random values that enter at the newest column; the last element is kept there alone."""
    values = np.random.default_rng(seed).normal(size=(steps, size))
    variables = np.zeros((steps, columns, size))
    for t in range(steps):
        for age in range(min(columns, t + 1)):
            variables[t, columns - 1 - age] = values[t - age]
    variables[:, :-1, -1] = np.nan
    return variables, values


def pixels(image, rows):
    """Step and row at the centre of each pixel: ``(T,)``, ``(rows,)``."""
    left, right, low, high = image.get_extent()
    steps = image.get_array().shape[1]
    times = left + (np.arange(steps) + 0.5) * (right - left) / steps
    return times, low + (np.arange(rows) + 0.5) * (high - low) / rows


def test_a_wave_runs_down_one_column_a_step():
    variables, _ = travelling()
    figure = variables_wave(variables)
    draw(figure)
    panels = [axis for axis in figure.axes if axis.get_title(loc="left").startswith("element")]
    assert len(panels) == 3
    for element, axis in enumerate(panels):
        (image,) = axis.images
        drawn = image.get_array()
        np.testing.assert_array_equal(np.ma.filled(drawn, np.nan), variables[:, :, element].T)
        assert image.origin == "lower"
        times, rows = pixels(image, 4)
        np.testing.assert_allclose(times, np.arange(12), atol=1e-9)
        np.testing.assert_allclose(rows, np.arange(4), atol=1e-9)
    assert {axis.images[0].get_clim() for axis in panels} == {panels[0].images[0].get_clim()}
    low, high = panels[0].images[0].get_clim()
    assert low == -high
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["1", "2", "4"]
    np.testing.assert_array_equal(panels[0].get_yticks(), [0, 1, 3])
    dropped = panels[2].images[0].cmap(np.ma.masked)
    assert dropped[0] == dropped[1] == dropped[2]  # grey, which no value is
    assert 0.5 < dropped[0] < 0.9


def test_the_input_stands_above_its_wave_at_its_own_step():
    variables, values = travelling()
    inputs = np.where(np.arange(12)[:, None] < 5, 10 * values, 0)
    shares = np.linspace(0, 0.3, 12)
    figure = variables_wave(variables, inputs=inputs, outside=shares)
    draw(figure)
    (curve,) = by_gid(figure.axes[3], "outside")
    np.testing.assert_allclose(curve.get_xydata(), np.stack([np.arange(12), 100 * shares], axis=1))
    for element, axis in enumerate(figure.axes[:3]):
        wave, strip = axis.images
        np.testing.assert_array_equal(strip.get_array(), inputs[None, :, element])
        np.testing.assert_allclose(pixels(strip, 1)[0], np.arange(12), atol=1e-9)
        assert strip.get_extent()[2] > wave.get_extent()[3]
        low, high = axis.get_ylim()
        assert low <= wave.get_extent()[2]
        assert high >= strip.get_extent()[3]
        (line,) = by_gid(axis, "end of input")
        assert set(line.get_xdata()) == {4.5}
    assert figure.axes[0].get_yticklabels()[-1].get_text() == "input"


def test_the_evolution_has_input_variables_and_output_at_their_own_step():
    """What enters at the top is in the newest column at the same step, and a row lower, by d elements, at each next."""
    variables, values = travelling()
    inputs = np.where(np.arange(12)[:, None] < 5, values, 0)
    due = np.where(np.arange(12)[:, None] < 5, np.nan, values)
    outputs = np.where(np.arange(12)[:, None] == 9, -values, values)
    figure = evolution(variables, inputs, outputs, due, np.full(12, 0.25))
    draw(figure)
    top, middle, bottom, wanted, below = figure.axes[:5]
    assert [axis.get_ylabel().split("\n")[0] for axis in figure.axes[:5]] == [
        "input", "variables", "output", "due", "outside",
    ]  # fmt: skip
    drawn = np.ma.filled(middle.images[0].get_array(), np.nan)
    assert drawn.shape == (4 * 3, 12)
    np.testing.assert_array_equal(drawn[:2, :5], top.images[0].get_array()[:2, :5])
    np.testing.assert_array_equal(drawn[3:5, 1:], drawn[:2, :-1])
    assert np.isnan(drawn[5]).all(), "what was not kept is grey"
    np.testing.assert_array_equal(bottom.images[0].get_array(), outputs.T)
    assert bottom.images[0].get_clim() == wanted.images[0].get_clim()
    (mistakes,) = by_gid(bottom, "mistakes")
    assert set(mistakes.get_xdata()) == {9}
    assert len(mistakes.get_xdata()) == 3
    assert [line.get_ydata()[0] for line in by_gid(middle, "column")] == [2.5, 5.5, 8.5]
    assert [label.get_text() for label in middle.get_yticklabels()] == ["4", "3", "2", "1"]
    assert {by_gid(axis, "end of input")[0].get_xdata()[0] for axis in (top, middle, bottom, wanted, below)} == {4.5}
    np.testing.assert_array_equal(by_gid(below, "outside")[0].get_ydata(), 25)


def test_the_animations_bright_column_travels_to_the_left(tmp_path):
    """One pulse of 1 among zeros: its red cell moves left by the same distance each time; what is NaN stays grey."""
    variables = np.zeros((4, 4, 2))
    variables[:, :, 1] = np.nan
    variables[np.arange(4), 3 - np.arange(4), 0] = 1
    variables_animation(variables, tmp_path / "substrate.gif", fps=5)
    with Image.open(tmp_path / "substrate.gif") as picture:
        assert (picture.n_frames, picture.info["duration"], picture.info["loop"]) == (4, 200, 0)
    frames = np.stack(list(frames_of(tmp_path / "substrate.gif")))
    moving = np.ptp(frames, axis=0).max(-1) > 60
    red = moving & (frames[..., 0] - frames[..., 2] > 40)
    centres = [(columns.mean(), rows.mean()) for rows, columns in map(np.nonzero, red)]
    steps = np.diff(np.array(centres), axis=0)
    assert (steps[:, 0] < -10).all()
    assert np.ptp(steps[:, 0]) < 3
    assert np.abs(steps[:, 1]).max() < 2


def test_the_animation_draws_every_so_many_steps(tmp_path):
    variables_animation(np.random.default_rng(0).normal(size=(7, 3, 2)), tmp_path / "a.gif", every=3)
    assert len(list(frames_of(tmp_path / "a.gif"))) == 3


# Gradients and accuracy


def test_gradients_are_drawn_by_lag_and_zeros_left_out():
    wave, decay = np.array([1.0, 1, 1, 0, 0]), 0.5 ** np.arange(5.0)
    figure = gradient_figure({"TWM": wave, "RNN": decay}, columns=3)
    draw(figure)
    (axis,) = figure.axes
    assert axis.get_yscale() == "log"
    lines = {line.get_label(): line.get_ydata() for line in axis.lines}
    np.testing.assert_array_equal(lines["TWM"], [1, 1, 1, np.nan, np.nan])
    np.testing.assert_array_equal(lines["RNN"], decay)
    (end,) = by_gid(axis, "0 from here")
    assert list(end.get_xdata()) == [3]
    (mark,) = by_gid(axis, "columns")
    assert set(mark.get_xdata()) == {3}
    low, high = axis.get_ylim()
    assert low <= decay[-1]
    assert high > 1


def test_a_gap_of_zeros_is_not_called_the_end():
    figure = gradient_figure({"every third": np.array([1.0, 0, 0, 1.0])})
    assert not by_gid(figure.axes[0], "0 from here")
    assert not by_gid(figure.axes[0], "columns")


def test_accuracy_is_in_percent_at_each_step_from_the_first():
    figure = accuracy_by_step({"long": np.linspace(1, 0.6, 5), "short": np.array([0.9, 0.3])}, horizons=(2, 4))
    draw(figure)
    (axis,) = figure.axes
    curves = {line.get_label(): line.get_xydata() for line in axis.lines}
    np.testing.assert_allclose(curves["long"], [[1, 100], [2, 90], [3, 80], [4, 70], [5, 60]])
    np.testing.assert_allclose(curves["short"], [[1, 90], [2, 30]])
    assert [line.get_xdata()[0] for line in by_gid(axis, "trained")] == [2, 4]
    (baseline,) = by_gid(axis, "baseline")
    assert baseline.get_ydata()[0] == 50
    low, high = axis.get_ylim()
    assert low < 30
    assert high > 100
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["long", "short", "training horizons"]


# Refusals

WAVES = np.zeros((4, 3, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: spectra_overlay({}), "comparisons"),
        (lambda: matrix_beside_phi(np.eye(3), np.eye(4), size=2), r"matrix\.shape"),
        (lambda: matrix_beside_phi(np.eye(3), np.zeros((3, 4)), size=2), r"phi\.shape"),
        (lambda: matrix_beside_phi(np.eye(4), np.eye(4), size=0), "size = 0"),
        (lambda: matrix_beside_phi(np.eye(4), np.eye(4), size=2, kept=[0, 1]), "4 components"),
        (lambda: variables_wave(WAVES[0]), r"variables\.shape"),
        (lambda: variables_wave(np.nan * WAVES), "no finite number"),
        (lambda: variables_wave(WAVES, inputs=np.zeros((4, 3))), r"inputs\.shape"),
        (lambda: variables_wave(WAVES, outside=np.zeros(3)), r"outside\.shape"),
        (lambda: evolution(WAVES, np.zeros((4, 3)), np.zeros((4, 2))), r"inputs\.shape"),
        (lambda: evolution(WAVES, np.zeros((4, 2)), np.zeros((3, 2))), r"outputs\.shape"),
        (lambda: evolution(WAVES, np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 1))), r"due\.shape"),
        (lambda: evolution(WAVES, *[np.zeros((4, 2))] * 2, outside=np.full(4, 1.5)), "shares from 0 to 1"),
        (lambda: variables_animation(WAVES, "a.mp4"), "path"),
        (lambda: variables_animation(WAVES, "a.gif", fps=0), "fps"),
        (lambda: variables_animation(WAVES, "a.gif", every=0), "every"),
        (lambda: variables_animation(WAVES[0], "a.gif"), r"variables\.shape"),
        (lambda: gradient_figure({}), "lags"),
        (lambda: gradient_figure({"a": np.zeros((2, 2))}), r"lags\['a'\]\.shape"),
        (lambda: gradient_figure({"a": np.array([1.0, np.nan])}), "finite norms"),
        (lambda: gradient_figure({"a": np.ones(3)}, columns=0), "columns = 0"),
        (lambda: accuracy_by_step({}), "curves"),
        (lambda: accuracy_by_step({"a": np.zeros((2, 2))}), r"curves\['a'\]\.shape"),
        (lambda: accuracy_by_step({"a": np.array([0.5, 1.2])}), "from 0 to 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        make()
    assert not list(tmp_path.iterdir())
