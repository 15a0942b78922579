"""Figures of one sequence with the network's answer, and of results beside published ones."""

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.text import Text

from helpers import by_gid, draw
from wrnn_jax.analysis.plots import (
    Point,
    Suite,
    adding_example,
    image_example,
    parameters_figure,
    tokens_example,
)

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


def tokens(inputs=(0, 3, 0, 1, 0, 4, 4), origins=(1, 3), asked=(5, 6), due=(3, 1), answers=((3, 0.9), (2, 0.8)), V=5):
    """The arguments of tokens_example: an answer is the token that is thought likeliest, and how likely."""
    probabilities = np.full((len(answers), V), 0.02)
    for row, (token, probability) in zip(probabilities, answers, strict=True):
        row[token] = probability
    return inputs, origins, asked, due, probabilities


def test_tokens_show_how_long_they_are_remembered_and_what_is_recalled():
    names = {"noise": (0, 0), "tokens": (1, 3), "recall now": (4, 4)}
    figure = tokens_example(*tokens(), names=names, title="Copy")
    draw(figure)
    over_time, answers = figure.axes[:2]
    (dots,) = by_gid(over_time, "tokens")
    np.testing.assert_array_equal(dots.get_xydata(), [(1, 3), (3, 1), (5, 4), (6, 4)])
    lines = [line.get_xydata().tolist() for line in by_gid(over_time, "remembered")]
    assert lines == [[[1, 3], [5, 3]], [[3, 1], [6, 1]]]
    assert [label.get_text() for label in over_time.get_yticklabels()] == list(names)
    np.testing.assert_array_equal(answers.images[0].get_array().T, tokens()[-1])
    np.testing.assert_array_equal(by_gid(answers, "due")[0].get_xydata(), [(0, 3), (1, 1)])
    np.testing.assert_array_equal(by_gid(answers, "mistakes")[0].get_xydata(), [(1, 2)])
    assert figure.get_suptitle() == "Copy: 1 of 2 recalled"


def test_of_many_answers_the_first_are_drawn_and_all_are_counted():
    steps = np.arange(60)
    given = tokens(np.ones(60, int), steps, steps, np.ones(60, int), [(1, 0.5)] * 60, V=2)
    figure = tokens_example(*given, names={"nothing": (0, 0), "one": (1, 1)})
    draw(figure)
    assert figure.axes[1].images[0].get_array().shape == (2, 40)
    assert figure.get_suptitle() == "Tokens: 60 of 60 recalled"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"inputs": ((0, 1),)}, r"inputs\.shape"),
        ({"due": (3,)}, r"origins\.shape"),
        ({"asked": (5, 7)}, "asked = .*steps, 0 to 6"),
        ({"answers": ((3, 0.9),)}, r"probabilities\.shape"),
        ({"inputs": (5,) * 7}, "inputs = .*tokens, 0 to 4"),
        ({"due": (3, -1)}, "due = .*tokens, 0 to 4"),
    ],
)
def test_tokens_that_do_not_fit_together_are_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        tokens_example(*tokens(**changed), names={})


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


SIZES = {
    "psmnist": {
        "wRNN (16c)": Suite([Point("n = 256", 49_946, 91.3), Point("n = 36", 8_122, 80.5)], [Point("", 47_000, 96.7)]),
        "iRNN": Suite([Point("n = 81", 7_543, 30.0), Point("n = 256", 68_874, 22.4)], [Point("", 68_000, 92.5)]),
    },
    "smnist": {"iRNN": Suite([Point("n = 36", 1_774, 60.0)])},
}


def test_each_kind_is_a_line_through_its_sizes_and_what_is_printed_stands_alone():
    figure = parameters_figure(SIZES)
    permuted, sequential = figure.axes
    for axis, task in ((permuted, "psmnist"), (sequential, "smnist")):
        assert axis.get_xscale() == "log"
        assert axis.get_ylabel() == f"{task} test accuracy (%)"
        drawn = {line.get_gid(): line.get_xydata().tolist() for line in axis.lines}
        expected = {kind: sorted([x, y] for _, x, y in suite.points) for kind, suite in SIZES[task].items()}
        printed = {f"{kind}, printed": [[x, y] for _, x, y in suite.printed] for kind, suite in SIZES[task].items()}
        assert drawn == expected | {gid: points for gid, points in printed.items() if points}
        names = sorted(point.name for suite in SIZES[task].values() for point in suite.points)
        assert sorted(text.get_text() for text in axis.texts) == names
    (one,), (other,) = by_gid(permuted, "iRNN"), by_gid(sequential, "iRNN")
    assert one.get_color() == other.get_color()


def test_names_cover_neither_each_other_nor_points():
    crowd = [Point(f"n = {n}, 1 epoch", 47_000 + 400 * n, 96.2 + 0.01 * n) for n in range(7)]
    figure = parameters_figure({"psmnist": {"wRNN": Suite(crowd, [Point("", 47_000, 96.7)])}})
    figure.draw_without_rendering()
    (axis,) = figure.axes
    for text in axis.texts:
        text.get_window_extent()
    boxes = [Text.get_window_extent(text) for text in axis.texts]  # Without the lines to the points.
    assert len(boxes) == 7  # one name a point, those tried and left out are gone
    for index, box in enumerate(boxes):
        assert axis.bbox.count_contains(box.corners()) == 4
        assert box.count_overlaps(boxes[:index]) == 0
        for point in axis.transData.transform([text.xy for text in axis.texts]):
            assert not box.contains(*point)


def test_parameters_refuse_nothing_and_no_parameters():
    for nothing in ({}, {"smnist": {}}, {"smnist": {"iRNN": Suite([])}}):
        with pytest.raises(ValueError, match="tasks"):
            parameters_figure(nothing)
    with pytest.raises(ValueError, match="n = 36: parameters"):
        parameters_figure({"smnist": {"iRNN": Suite([Point("n = 36", 0, 90.0)])}})
