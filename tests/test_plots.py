import io

import matplotlib.figure
import numpy as np
import pytest

from helpers import by_gid
from wrnn_jax.analysis.plots import copy_example, guide_line, hidden_waves

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_open_figures")]


def draw(figure):
    """Rasterise the figure, so that whatever only fails or warns when drawn does so here."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=60)
    return buffer.getvalue()


def copy_arrays(T, seed=0):
    rng = np.random.default_rng(seed)
    symbols = rng.integers(1, 9, 10)
    categories = np.zeros((2, T + 20), int)
    categories[0, :10], categories[0, T + 10], categories[1, T + 10 :] = symbols, 9, symbols
    inputs, targets = np.eye(10)[categories]
    return inputs, 0.9 * targets + 0.01, targets


def images(figure):
    return [(axis, axis.images[0]) for axis in figure.axes if axis.images]


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


@pytest.mark.parametrize("T", [0, 80])
def test_copy_images_are_the_arrays(T):
    arrays = copy_arrays(T)
    figure = copy_example(*arrays, T=T)
    draw(figure)
    panels = images(figure)
    assert len(panels) == 3
    for (axis, image), array in zip(panels, arrays, strict=True):
        np.testing.assert_array_equal(image.get_array(), array.T)
        assert image.get_extent() == [-0.5, T + 19.5, -0.5, 9.5]
        assert image.origin == "lower"
        assert axis.get_xlim() == (-0.5, T + 19.5)
        assert image.get_clim() == (0, 1)
    assert "10 of 10 recalled" in texts(figure)


def test_long_copy_is_cropped_to_both_ends():
    arrays = copy_arrays(480)
    figure = copy_example(*arrays, T=480)
    draw(figure)
    panels = images(figure)
    assert len(panels) == 6
    for index, (_, image) in enumerate(panels):
        start, stop = ((0, 25), (475, 500))[index % 2]
        np.testing.assert_array_equal(image.get_array(), arrays[index // 2][start:stop].T)
        assert image.get_extent()[:2] == [start - 0.5, stop - 0.5]
    assert "25 to 474" in figure.get_supxlabel()


@pytest.mark.parametrize("T", [0, 30, 480])
def test_copy_frames_symbols_and_recall_and_points_at_the_delimiter(T):
    figure = copy_example(*copy_arrays(T), T=T)
    frames = [(axis, patch) for axis, _ in images(figure) for patch in axis.patches if patch.get_linewidth() > 1]
    starts = [patch.get_x() for _, patch in frames]
    assert sorted(starts) == [-0.5, *[T + 9.5] * 3]
    assert all(patch.get_width() == 10 for _, patch in frames)
    arrows = [text for axis in figure.axes for text in axis.texts if "delimiter" in text.get_text()]
    assert [round(arrow.xy[0]) for arrow in arrows] in ([T + 9], [T + 11])  # the edges of step T + 10
    assert arrows[0].xy[1] == 9


def test_copy_crosses_mistakes():
    inputs, outputs, targets = copy_arrays(480)
    outputs = outputs.copy()
    outputs[[491, 498]] = np.eye(10)[0]
    figure = copy_example(inputs, outputs, targets, T=480)
    (crosses,) = [line for axis in figure.axes for line in by_gid(axis, "mistakes")]
    np.testing.assert_array_equal(crosses.get_xydata(), [[491, 0], [498, 0]])
    assert "8 of 10 recalled (× wrong)" in texts(figure)


def test_copy_refuses_other_shapes():
    inputs, outputs, targets = copy_arrays(10)
    with pytest.raises(ValueError, match=r"outputs\.shape"):
        copy_example(inputs, outputs[:-1], targets, T=10)
    with pytest.raises(ValueError, match=r"inputs\.shape"):
        copy_example(inputs, outputs, targets, T=11)


@pytest.mark.parametrize(
    ("channels", "with_inputs"), [(1, False), (1, True), (2, False), (3, True), (5, True), (32, True)]
)
def test_hidden_panels_are_the_channels(channels, with_inputs):
    rng = np.random.default_rng(channels)
    hidden, inputs = rng.uniform(size=(13, channels, 7)), rng.uniform(size=(13, 4))
    figure = hidden_waves(hidden, inputs=inputs if with_inputs else None, title="a title")
    if channels <= 3:  # the others take seconds
        draw(figure)
    assert figure.get_suptitle() == "a title"
    panels = [(axis, image) for axis, image in images(figure) if by_gid(axis, "guide")]
    strips = [(axis, image) for axis, image in images(figure) if not by_gid(axis, "guide")]
    assert len(panels) == channels
    assert bool(strips) == with_inputs
    for channel, (axis, image) in enumerate(panels):
        np.testing.assert_array_equal(image.get_array(), hidden[:, channel].T)
        assert image.get_extent() == [-0.5, 12.5, 6.5, -0.5]
        assert image.origin == "upper"
        assert image.get_clim() == pytest.approx((0, np.percentile(hidden[:, channel], 99)))
        assert axis.get_ylim() == (6.5, -0.5)
        assert axis.get_title(loc="left") == (f"channel {channel + 1}" if channels > 1 else "")
    for axis, image in strips:
        np.testing.assert_array_equal(image.get_array(), inputs.T)
        assert axis.get_xlim() == panels[0][0].get_xlim()


@pytest.mark.parametrize(("steps", "neurons"), [(1, 1), (5, 1), (9, 2), (50, 100), (100, 100), (500, 7)])
def test_guide_goes_down_one_neuron_a_step(steps, neurons):
    time, position = guide_line(steps, neurons)
    np.testing.assert_array_equal(np.isnan(time), np.isnan(position))
    drawn = ~np.isnan(time)
    np.testing.assert_array_equal(time[drawn], np.arange(steps))
    assert ((position[drawn] >= 0) & (position[drawn] < neurons)).all()
    assert ((np.diff(position[drawn]) + 1) % neurons == 0).all()
    joined = drawn[1:] & drawn[:-1]
    assert (np.diff(position)[joined] == -1).all()
    assert (np.diff(time)[joined] == 1).all()


def test_guide_is_parallel_to_a_pulse():
    """h_{t+1}[i] = h_t[i+1]: the pulse and the guide stay the same distance apart on the ring."""
    steps, neurons = 45, 12
    pulse = np.zeros(neurons)
    pulse[0] = 1
    hidden = np.stack([np.roll(pulse, -t) for t in range(steps)])[:, None]
    axis, image = images(hidden_waves(hidden))[0]
    (guide,) = by_gid(axis, "guide")
    time, position = guide.get_data()
    drawn = ~np.isnan(time)
    np.testing.assert_array_equal((position[drawn] - image.get_array().argmax(0)) % neurons, neurons // 2)


def test_signed_states_get_a_symmetric_scale():
    hidden = np.tanh(np.random.default_rng(0).normal(size=(20, 2, 9)))
    figure = hidden_waves(hidden)
    draw(figure)
    for _, image in images(figure):
        low, high = image.get_clim()
        assert low == -high
        assert image.norm(0.0) == pytest.approx(0.5)


def test_silent_and_diverged_states_are_drawn():
    hidden = np.zeros((8, 4, 5), np.float32)
    hidden[:, 1] = np.nan
    hidden[3, 2, 1] = 4
    hidden[4:, 3] = 1e30
    hidden[6:, 3] = np.inf
    figure = hidden_waves(hidden)
    draw(figure)
    assert [image.get_clim()[1] for _, image in images(figure)] == [1, 1, 4, np.float32(1e30)]


def test_hidden_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"hidden\.shape"):
        hidden_waves(np.zeros((5, 4)))
    with pytest.raises(ValueError, match=r"hidden\.shape"):
        hidden_waves(np.zeros((0, 1, 4)))
    with pytest.raises(ValueError, match=r"inputs\.shape"):
        hidden_waves(np.zeros((5, 1, 4)), inputs=np.zeros((6, 2)))


def test_a_notebook_shows_a_figure_once():
    """IPython takes a formatter registered for a class of the object's, as %matplotlib inline does, else _repr_png_."""
    figure = hidden_waves(np.random.default_rng(0).random((20, 2, 10)))
    assert isinstance(figure, matplotlib.figure.Figure)  # So that such a formatter draws it, and then alone.
    assert figure._repr_png_().startswith(b"\x89PNG")
    others = [name for name in dir(figure) if name.startswith("_repr_") or name == "_ipython_display_"]
    assert [name for name in others if getattr(figure, name)() is not None] == ["_repr_png_"]
