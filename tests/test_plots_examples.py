"""Figures of one sequence with the network's answer, and of results beside published ones."""

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.text import Text

from helpers import by_gid, draw
from wrnn_jax.analysis.plots import Point, adding_example, image_example, parameters_figure

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_open_figures")]


def adding_inputs(T=20, marked=(3, 19)):
    inputs = np.stack([np.random.default_rng(0).uniform(size=T), np.zeros(T)], axis=1)
    inputs[list(marked), 1] = 1
    return inputs


@pytest.mark.parametrize("output", [1.0, -0.3, 3.7])
def test_adding_shows_values_marked_ones_and_sums(output):
    inputs = adding_inputs()
    addends = inputs[[3, 19], 0]
    figure = adding_example(inputs, addends.sum(), output)
    draw(figure)
    over_time, sums = figure.axes
    np.testing.assert_array_equal(by_gid(over_time, "values")[0].get_ydata(), inputs[:, 0])
    marked = [tuple(line.get_xydata()[0]) for line in by_gid(over_time, "marked")]
    assert marked == [(3, addends[0]), (19, addends[1])]
    first, second, answer = sums.patches
    assert (first.get_height(), second.get_y(), second.get_height()) == (addends[0], addends[0], addends[1])
    assert [bar.get_facecolor() for bar in (first, second)] == [
        matplotlib.colors.to_rgba(line.get_color()) for line in by_gid(over_time, "marked")
    ]
    assert answer.get_y() + answer.get_height() == pytest.approx(output)
    low, high = sums.get_ylim()
    assert low <= min(0, output) < max(addends.sum(), output) < high


def test_adding_refuses_other_inputs():
    with pytest.raises(ValueError, match=r"inputs\.shape"):
        adding_example(np.zeros((5, 3)), 1, 1)
    with pytest.raises(ValueError, match="3 marked steps"):
        adding_example(adding_inputs(marked=(1, 2, 3)), 1, 1)


PROBABILITIES = np.array([0.1, 0.05, 0.6, 0.25] + [0.0] * 6)


def test_sequence_of_single_values_is_a_line():
    rng = np.random.default_rng(0)
    image, sequence = rng.uniform(size=(5, 7)), rng.uniform(size=(35, 1))
    figure = image_example(image, sequence, PROBABILITIES, 2, seen="pixel by pixel, permuted")
    draw(figure)
    picture, middle, answer = figure.axes
    np.testing.assert_array_equal(picture.images[0].get_array(), image)
    np.testing.assert_array_equal(by_gid(middle, "sequence")[0].get_ydata(), sequence[:, 0])
    assert middle.get_title().endswith("pixel by pixel, permuted")
    np.testing.assert_array_equal([bar.get_width() for bar in answer.patches], PROBABILITIES)
    assert answer.get_title() == "answer: 2 (right)"


def test_sequence_of_rows_is_an_image():
    rng = np.random.default_rng(0)
    image, sequence = rng.uniform(size=(4, 6, 3)), rng.uniform(size=(9, 18))
    names = [f"class {index}" for index in range(10)]
    figure = image_example(image, sequence, PROBABILITIES, 3, seen="row by row", classes=names)
    draw(figure)
    picture, middle, answer = figure.axes
    np.testing.assert_array_equal(picture.images[0].get_array(), image)
    np.testing.assert_array_equal(middle.images[0].get_array(), sequence.T)
    assert "18 values" in middle.get_ylabel()
    assert picture.get_title() == "image: class 3"
    assert answer.get_title() == "answer: class 2 (wrong)"
    colors = [bar.get_facecolor() for bar in answer.patches]
    assert colors[2] != colors[3]
    assert len(set(colors)) == 3


def test_image_refuses_what_does_not_fit():
    good = {"image": np.zeros((4, 4)), "sequence": np.zeros((16, 1)), "probabilities": PROBABILITIES, "target": 0}
    for field, bad in (
        ("image", {"image": np.zeros((4, 4, 2))}),
        ("sequence", {"sequence": np.zeros(16)}),
        ("probabilities", {"probabilities": np.zeros(9)}),
        ("target", {"target": 10}),
    ):
        with pytest.raises(ValueError, match=field):
            image_example(**good | bad)


PUBLISHED = [
    Point("iRNN", 68_000, 92.5),
    Point("coRNN", 34_000, 96.6),
    Point("Lipschitz RNN", 34_000, 96.3),
    Point("LEM", 68_000, 96.6),
    Point("wRNN (16c)", 47_000, 96.7),
    Point("URLSTM", 4_500_000, 97.6),
]


def test_points_are_where_they_belong_and_ours_look_different():
    ours = [Point("wRNN (16c)", 47_000, 95.0, "short run")]
    figure = parameters_figure(PUBLISHED, ours)
    draw(figure)
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    groups = {collection.get_label(): collection for collection in axis.collections}
    assert set(groups) == {"published", "published, wRNN", "this library"}
    assert [tuple(p) for p in groups["this library"].get_offsets()] == [(47_000, 95.0)]
    assert [tuple(p) for p in groups["published, wRNN"].get_offsets()] == [(47_000, 96.7)]
    assert len(groups["published"].get_offsets()) == 5
    stars, circles = groups["this library"].get_paths()[0], groups["published"].get_paths()[0]
    assert len(stars.vertices) != len(circles.vertices)
    assert "wRNN (16c), short run" in [text.get_text() for text in axis.texts]


@pytest.mark.parametrize("crowd", [1, 6])
def test_names_cover_neither_each_other_nor_points(crowd):
    figure = parameters_figure(
        PUBLISHED, [Point("wRNN (16c)", 47_000 + 400 * n, 96.2, "3 seeds") for n in range(crowd)]
    )
    figure.draw_without_rendering()
    (axis,) = figure.axes
    for text in axis.texts:
        text.get_window_extent()
    boxes = [Text.get_window_extent(text) for text in axis.texts]  # Without the lines to the points.
    assert len(boxes) == 6 + crowd  # one name a point, those tried and left out are gone
    for index, box in enumerate(boxes):
        assert axis.bbox.count_contains(box.corners()) == 4
        assert box.count_overlaps(boxes[:index]) == 0
        for point in axis.transData.transform([text.xy for text in axis.texts]):
            assert not box.contains(*point)


def test_parameters_refuse_nothing_and_no_parameters():
    with pytest.raises(ValueError, match="published"):
        parameters_figure([])
    with pytest.raises(ValueError, match="iRNN: parameters"):
        parameters_figure([Point("iRNN", 0, 90.0)])
