"""The heat map of a grid: which numbers, texts and colours stand in which cell."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from helpers import draw
from wrnn_jax.analysis.plots import grid_heatmap
from wrnn_jax.analysis.plots.tiles import colors_of, ink_on
from wrnn_jax.grids.results import Setting

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_open_figures")]
LR, CLIP = (1e-2, 1e-3, 1e-4), (10, 0, 1)
LOSS = {"label": "test loss (nats, log scale)", "greatest": False, "log": True}
ACCURACY = {"label": "accuracy (%)", "greatest": True, "scale": 100}


def cell(mean, diverged=0, missing=0, seeds=3, **fields):
    return Setting(fields, mean, None, seeds - diverged - missing, diverged, missing, 0)


def grid_of(mean, **axes):
    """The settings of a product of axes, with the mean that a function of the fields gives."""
    fields = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return [cell(mean(**values), **values) for values in fields]


def panels(figure):
    """The axes with cells: all but the colour bar's."""
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def bars(figure):
    return [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]


def place(patch):
    """Column and row of a cell that a rectangle fills."""
    assert (patch.get_width(), patch.get_height()) == (1, 1)
    return patch.get_x() + 0.5, patch.get_y() + 0.5


def by_gid(axis, gid):
    return {place(patch): patch for patch in axis.patches if patch.get_gid() == gid}


def hatched(axis):
    return {place(patch) for patch in axis.patches if patch.get_hatch()}


def texts(axis):
    """Place -> the texts there."""
    found = {}
    for text in axis.texts:
        found.setdefault(getattr(text, "xy", text.get_position()), []).append(text.get_text())
    return found


def labels(axis):
    """Of the ticks: x, y."""
    return [[label.get_text() for label in ticks] for ticks in (axis.get_xticklabels(), axis.get_yticklabels())]


def luminance(color):
    """Relative luminance as WCAG 2.1 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


# What stands where


def test_each_number_stands_at_its_values_which_are_sorted_on_the_axes():
    figure = grid_heatmap(
        grid_of(lambda lr, grad_clip: lr * (1 + grad_clip), lr=LR, grad_clip=CLIP), x="lr", y="grad_clip", **LOSS
    )
    draw(figure)
    (axis,) = panels(figure)
    assert labels(axis) == [["1e-4", "1e-3", "1e-2"], ["off", "1", "10"]]
    assert texts(axis) == {
        (column, row): [text]
        for row, line in enumerate(
            [["1.0e-04", "1.0e-03", "0.010"], ["2.0e-04", "2.0e-03", "0.020"], ["1.1e-03", "0.011", "0.11"]]
        )
        for column, text in enumerate(line)
    }
    assert axis.get_xlim() == axis.get_ylim() == (-0.5, 2.5)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("learning rate", "gradient-norm clip")


def test_words_keep_their_order_and_go_downward():
    words = ("wrnn", "irnn", "lstm")
    figure = grid_heatmap(grid_of(lambda **fields: 1.0, T=(30, 0), model=words), x="T", y="model", **LOSS)
    (axis,) = panels(figure)
    assert labels(axis) == [["0", "30"], list(words)]
    assert axis.get_ylim() == (2.5, -0.5)
    figure = grid_heatmap(grid_of(lambda **fields: 1.0, on=(True, False), lr_period=(40, None)), x="on", **LOSS)
    assert [labels(axis)[0] for axis in panels(figure)] == [["True", "False"]] * 2
    assert [axis.get_title() for axis in panels(figure)] == ["lr_period = 40", "lr_period = None"]


@pytest.mark.parametrize(
    ("mean", "scale", "text"),
    [
        (1.234e-5, 1, "1.2e-05"),
        (0.971, 100, "97.1"),
        (1.0, 100, "100.0"),
        (0.163, 1, "0.16"),
        (0.1, 1, "0.10"),
        (2.302, 1, "2.3"),
        (9.96, 1, "10.0"),
        (0.0, 1, "0.0"),
    ],
)
def test_numbers_have_two_digits_or_one_decimal(mean, scale, text):
    (axis,) = panels(grid_heatmap([cell(mean, lr=1e-3)], x="lr", label="m", greatest=False, scale=scale))
    assert texts(axis) == {(0, 0): [text]}


@pytest.mark.parametrize(
    ("value", "text"), [(1e-5, "1e-5"), (3.33e-3, "3.33e-3"), (3.33, "3.33"), (10.0, "10"), (0, "0"), (1000, "1000")]
)
def test_values_of_hyper_parameters_have_all_their_digits(value, text):
    (axis,) = panels(grid_heatmap([cell(1.0, lr_factor=value)], x="lr_factor", **LOSS))
    assert labels(axis)[0] == [text]
    assert float(text) == value


# Members that are not in the mean


def test_cells_say_who_diverged_or_is_missing_and_invent_no_number():
    cells = [
        cell(0.5, lr=1),
        cell(0.25, diverged=2, lr=2),
        cell(None, diverged=3, lr=3),
        cell(None, missing=3, lr=4),
        cell(None, diverged=1, missing=2, lr=5),
        cell(0.125, diverged=1, missing=1, lr=6),
    ]
    figure = grid_heatmap(cells, x="lr", **LOSS)
    draw(figure)
    (axis,) = panels(figure)
    assert texts(axis) == {
        (0, 0): ["0.50"],
        (1, 0): ["0.25", "2/3 diverged"],
        (2, 0): ["3/3 diverged"],
        (3, 0): ["3/3 missing"],
        (4, 0): ["1/3 diverged\n2/3 missing"],
        (5, 0): ["0.12", "1/3 diverged\n1/3 missing"],
    }
    assert hatched(axis) == {(2, 0)}
    assert set(by_gid(axis, "cell")) == {(0, 0), (1, 0), (5, 0)}
    assert set(by_gid(axis, "best")) == {(0, 0)}, "the best is one of which no member diverged"
    assert "mean of 3 seeds, without those diverged or missing" in bars(figure)[0].get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["best", "all diverged"]


def test_a_single_seed_is_no_share():
    (axis,) = panels(grid_heatmap([cell(None, 1, seeds=1, lr=1), cell(None, 0, 1, seeds=1, lr=2)], x="lr", **LOSS))
    assert texts(axis) == {(0, 0): ["diverged"], (1, 0): ["missing"]}


def test_without_any_number_there_is_no_colour_bar():
    figure = grid_heatmap([cell(None, 3, lr=1), cell(None, 0, 3, lr=2)], x="lr", **LOSS)
    draw(figure)
    assert not bars(figure)
    assert not by_gid(panels(figure)[0], "best")


def test_what_the_grid_leaves_out_is_blank():
    cells = grid_of(lambda lr, grad_clip: 1.0, lr=LR, grad_clip=CLIP)
    left_out = {"lr": 1e-3, "grad_clip": 1}
    figure = grid_heatmap([c for c in cells if c.fields != left_out], x="lr", y="grad_clip", **LOSS)
    (axis,) = panels(figure)
    everywhere = set(product(range(3), range(3)))
    assert (
        set(by_gid(axis, "cell"))
        == set(texts(axis))
        == {place(patch) for patch in axis.patches}
        == everywhere - {(1, 1)}
    )


# The best


@pytest.mark.parametrize("greatest", [True, False])
def test_the_best_of_each_panel_is_outlined_and_dashed_unless_it_is_the_best_of_all(greatest):
    rng = np.random.default_rng(0)
    cells = grid_of(lambda **fields: rng.uniform(), T=(0, 30, 80), lr=LR, grad_clip=CLIP)
    figure = grid_heatmap(cells, x="lr", y="grad_clip", label="m", greatest=greatest)
    draw(figure)
    pick = max if greatest else min
    best_of_all = pick(c.mean for c in cells)
    for T, axis in zip((0, 30, 80), panels(figure), strict=True):
        best = pick((c for c in cells if c.fields["T"] == T), key=lambda c: c.mean)
        ((where, patch),) = by_gid(axis, "best").items()
        assert where == (sorted(LR).index(best.fields["lr"]), sorted(CLIP).index(best.fields["grad_clip"]))
        assert patch.get_linestyle() == ("-" if best.mean == best_of_all else "--")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["best of all", "best of its panel"]


def test_equals_are_outlined_together():
    (axis,) = panels(grid_heatmap([cell(1.0, lr=1), cell(0.5, lr=2), cell(1.0, lr=3)], x="lr", **ACCURACY))
    assert set(by_gid(axis, "best")) == {(0, 0), (2, 0)}


# Panels


def test_each_combination_of_the_other_fields_has_its_panel():
    T, models = (80, 0, 10, 30), ("wrnn", "irnn", "lstm")
    cells = grid_of(lambda T, model, lr, grad_clip: T + lr, T=T, model=models, lr=LR, grad_clip=CLIP)
    figure = grid_heatmap(cells, x="lr", y="grad_clip", **LOSS)
    titles = [axis.get_title() for axis in panels(figure)]
    assert titles == [f"T = {t}, model = {model}" for t, model in product(sorted(T), models)]
    places = [axis.get_subplotspec() for axis in panels(figure)]
    assert [(spec.rowspan.start, spec.colspan.start) for spec in places] == list(product(range(4), range(3)))
    for axis, (t, _) in zip(panels(figure), product(sorted(T), models), strict=True):
        assert texts(axis)[(2, 1)] == [f"{t + 1e-2:.1f}" if t else "0.010"]


def test_only_outermost_panels_name_their_values():
    cells = grid_of(lambda **fields: 1.0, T=(0, 10, 30, 80, 480), lr=LR, grad_clip=CLIP)
    axes = panels(grid_heatmap(cells, x="lr", y="grad_clip", **LOSS))
    shown = [axis.xaxis.get_tick_params()["labelbottom"] for axis in axes]
    assert shown == [False, False, True, True, True], "three above two: the third has none below"
    assert [axis.yaxis.get_tick_params()["labelleft"] for axis in axes] == [True, False, False, True, False]
    assert [bool(axis.get_xlabel()) for axis in axes] == shown


def test_panels_without_a_setting_are_not_there():
    cells = grid_of(lambda **fields: 1.0, model=("wrnn", "irnn"), ksize=(3, None), lr=LR)
    cells = [c for c in cells if (c.fields["model"] == "wrnn") == (c.fields["ksize"] == 3)]
    titles = [axis.get_title() for axis in panels(grid_heatmap(cells, x="lr", **LOSS))]
    assert titles == ["model = wrnn, ksize = 3", "model = irnn, ksize = None"]


def test_long_titles_are_broken_between_fields():
    fields = {"init": ("identity",), "act": ("relu", "tanh"), "n_hid": (100, 625), "lr": LR}
    axes = panels(grid_heatmap(grid_of(lambda **fields: 1.0, **fields), x="lr", **LOSS, title="word " * 60))
    for axis, (act, n_hid) in zip(axes, product(("relu", "tanh"), (100, 625)), strict=True):
        assert ",\n" in axis.get_title()
        assert axis.get_title().replace(",\n", ", ") == f"init = identity, act = {act}, n_hid = {n_hid}"
    assert max(map(len, axes[0].figure.get_suptitle().splitlines())) < 120


# Colours


@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_brighter_is_better(means, greatest, log):
    colors_at = colors_of([cell(mean) for mean in means], greatest, log, 1.0)
    brightness = [luminance(colors_at(mean)) for mean in sorted(means, reverse=not greatest)]
    assert brightness == sorted(brightness)
    low, high = colors_at.norm.vmin, colors_at.norm.vmax
    assert low <= min(means) * (1 + 1e-9)
    assert max(means) <= high * (1 + 1e-9)
    assert high / low >= 10 * (1 - 1e-9) if log else high - low >= 0.01 * max(means) * (1 - 1e-9)


def test_all_panels_have_one_scale_that_of_the_colour_bar():
    means = {0: (1e-7, 1e-3), 30: (1e-3, 1e-1)}
    cells = [cell(mean, T=T, lr=lr) for T, pair in means.items() for lr, mean in zip((1, 2), pair, strict=True)]
    figure = grid_heatmap(cells, x="lr", **LOSS)
    (first, middle), (same, last) = (by_gid(axis, "cell").values() for axis in panels(figure))
    assert middle.get_facecolor() == same.get_facecolor()
    (bar,) = bars(figure)
    assert bar.get_xlim() == pytest.approx((1e-7, 1e-1))
    ends = bar.collections[-1].cmap([0.0, 1.0])
    assert [first.get_facecolor(), last.get_facecolor()] == [pytest.approx(tuple(end)) for end in ends]


@pytest.mark.parametrize(("options", "words"), [(LOSS, "(nats, log scale); lower"), (ACCURACY, "(%); higher")])
def test_the_colour_bar_says_what_is_better(options, words):
    figure = grid_heatmap(grid_of(lambda lr: lr, lr=LR), x="lr", **options)
    (bar,) = bars(figure)
    assert words + " is better (brighter)" in bar.get_xlabel().replace("\n", " ")
    assert bar.get_xscale() == ("log" if options is LOSS else "linear")


@pytest.mark.parametrize(("options", "worse"), [({**LOSS, "greatest": True}, 0.99), (ACCURACY, 0.9999)])
def test_nearly_equal_means_look_nearly_equal(options, worse):
    figure = grid_heatmap([cell(1.0, lr=1), cell(worse, lr=2)], x="lr", **options)
    first, second = (patch.get_facecolor() for patch in by_gid(panels(figure)[0], "cell").values())
    assert np.abs(np.subtract(first, second)).max() < 0.03


@pytest.mark.parametrize("means", [[0.0, 1e-7, 1e-3], [0.0, 0.0, 0.0], [0.3, 0.3, 0.3], [1e-30, 1e30, 0.0]])
@pytest.mark.parametrize("options", [LOSS, ACCURACY])
def test_zeros_and_equals_have_colours(means, options):
    figure = grid_heatmap([cell(mean, lr=at) for at, mean in enumerate(means)], x="lr", **options)
    draw(figure)
    colors = [patch.get_facecolor() for patch in by_gid(panels(figure)[0], "cell").values()]
    assert np.isfinite(colors).all()
    if options is LOSS and means[0] == 0 < means[1]:
        assert luminance(colors[0]) == max(map(luminance, colors)), "no loss is less than 0"


def test_numbers_can_be_read_on_every_colour():
    for color in colormaps["viridis"](np.linspace(0, 1, 256))[:, :3]:
        ink, ground = luminance(to_rgb(ink_on(color))), luminance(color)
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5


@pytest.mark.parametrize(
    "axes",
    [
        {"lr": (1e-3,)},
        {"lr": LR},
        {"lr": (*LR, 1e-5), "grad_clip": (0, 1, 10, 100, 1000)},
        {"T": (0, 10, 30, 80), "model": ("wrnn", "irnn", "lstm"), "lr": LR, "grad_clip": CLIP},
        {"lr_factor": (3.33, 10), "lr_period": (40, 100), "lr": LR, "grad_clip": (0, 1, 10, 100, 1000)},
        {"lr": LR, "model": ("wrnn", "wrnn-no-v-no-shift", "irnn-shift-v", "wrnn-no-v", "lstm")},
        {"model": ("wrnn", "wrnn-no-v-no-shift", "irnn-shift-v"), "lr": tuple(0.1**k for k in range(12))},
    ],
)
def test_what_is_written_stays_within_its_cell_and_nothing_overlaps(axes):
    def member(**fields):
        return cell(math.pi * 1e-5, diverged=1, missing=1, **fields)

    cells = [member(**dict(zip(axes, values, strict=True))) for values in product(*axes.values())]
    *_, x = axes
    y = "lr" if x == "grad_clip" else None
    figure = grid_heatmap(cells, x=x, y=y, **LOSS, title="Copy")
    draw(figure)
    for axis in panels(figure):
        boxes = {where: patch.get_window_extent() for where, patch in by_gid(axis, "cell").items()}
        for text in axis.texts:
            box, inside = text.get_window_extent(), boxes[text.xy]
            assert inside.x0 <= box.x0 < box.x1 <= inside.x1
            assert inside.y0 <= box.y0 < box.y1 <= inside.y1
        number, notes = (text.get_window_extent() for text in axis.texts[:2])
        assert not number.overlaps(notes)
    titles = [axis.title.get_window_extent() for axis in panels(figure)]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in titles)
    cells_of = [axis.get_window_extent() for axis in panels(figure)]
    assert all(box.count_overlaps([*titles[:at], *titles[at + 1 :], *cells_of]) == 0 for at, box in enumerate(titles))
    values = [label.get_window_extent() for label in panels(figure)[-1].get_xticklabels()]
    assert all(one.x1 <= other.x0 for one, other in pairwise(values))


# What is refused


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"x": "seed"}, "x"),
        ({"y": "lr"}, "y"),
        ({"y": "T"}, "y"),
        ({"scale": 0}, "scale"),
        ({"settings": []}, "settings"),
        ({"settings": [cell(1.0, lr=1, grad_clip=0)] * 2}, "settings"),
    ],
)
def test_heat_map_refuses(changes, field):
    options = {"settings": [cell(1.0, lr=1, grad_clip=0)], "x": "lr", "y": "grad_clip", **LOSS, **changes}
    with pytest.raises(ValueError, match=f"^{field} = "):
        grid_heatmap(options.pop("settings"), **options)
