"""Figures that measure waves, demonstrate them, or set them in motion."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers import by_gid, draw, frames_of
from wrnn_jax.analysis.plots import (
    bump_figure,
    guide_line,
    ring_animation,
    spectrum_figure,
    speeds_figure,
    waves_through_training,
)
from wrnn_jax.analysis.plots.animation import frame_steps
from wrnn_jax.analysis.plots.bump import SOURCE, ring_states
from wrnn_jax.analysis.plots.spectra import band_line
from wrnn_jax.analysis.plots.waves import speed_text
from wrnn_jax.analysis.waves import Speed, spacetime_spectrum

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_open_figures")]
velocities = st.floats(-5, 5).filter(lambda v: abs(v) > 1e-3)


def pulse(velocity, steps=32, neurons=24, start=5):
    """A narrow bump that travels round the ring."""
    distance = (np.arange(neurons) - start - velocity * np.arange(steps)[:, None] + neurons / 2) % neurons - neurons / 2
    return np.exp(-0.5 * (distance / 1.2) ** 2)


def slope(line, neurons):
    """Of a guide, from its steps without a wrap."""
    position = np.diff(line.get_ydata())
    position = position[np.isfinite(position)]
    assert np.ptp(position) < 1e-9
    return position[0]


@given(steps=st.integers(2, 60), neurons=st.integers(1, 50), velocity=velocities)
def test_guide_has_the_velocity_and_stays_on_the_ring(steps, neurons, velocity):
    time, position = guide_line(steps, neurons, velocity)
    drawn = ~np.isnan(time)
    np.testing.assert_array_equal(time[drawn], np.arange(steps))
    assert ((position[drawn] >= 0) & (position[drawn] <= neurons)).all()
    turns = (np.diff(position[drawn]) - velocity) / neurons
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-9)
    joined = drawn[1:] & drawn[:-1]
    np.testing.assert_allclose(np.diff(position)[joined], velocity, atol=1e-6)


@given(velocity=velocities)
def test_band_line_is_the_waves_dispersion(velocity):
    spatial, temporal = band_line(velocity)
    drawn = ~np.isnan(spatial)
    assert np.abs(temporal[drawn]).max() <= 0.5
    turns = temporal[drawn] + velocity * spatial[drawn]
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-9)
    joined = drawn[1:] & drawn[:-1]
    np.testing.assert_allclose(np.diff(temporal)[joined], -velocity / 1000, atol=1e-9)


@pytest.mark.parametrize("velocity", [-1, 0.5])
def test_spectrum_lies_on_the_dashed_line(velocity):
    hidden = pulse(velocity, steps=48)
    figure = spectrum_figure({"a model": hidden})
    draw(figure)
    state, spectrum = figure.axes[:2]
    assert state.get_title(loc="left") == "a model"
    np.testing.assert_array_equal(state.images[0].get_array(), hidden.T)
    assert slope(by_gid(state, "guide")[0], 24) == pytest.approx(velocity, abs=0.02)

    power = spectrum.images[0].get_array()
    np.testing.assert_array_equal(power, spacetime_spectrum(hidden).power)
    left, right, bottom, top = spectrum.images[0].get_extent()
    rows, columns = power.shape
    temporal = bottom + (np.arange(rows) + 0.5) * (top - bottom) / rows
    spatial = left + (np.arange(columns) + 0.5) * (right - left) / columns
    assert np.abs(temporal).min() == pytest.approx(0, abs=1e-12)
    assert np.abs(spatial).min() == pytest.approx(0, abs=1e-12)
    line_k, line_w = by_gid(spectrum, "guide")[0].get_data()
    for k in (-6, -3, 3, 6):  # cycles a ring, all within the pulse's band
        column = columns // 2 + k
        on_line = line_w[np.nanargmin(np.abs(line_k - spatial[column]))]
        assert temporal[power[:, column].argmax()] == pytest.approx(on_line, abs=1.5 / rows)
    assert spectrum.get_title().startswith(f"v = {velocity:.2f} ± 0.0".replace("-", "−"))


def test_models_stand_side_by_side_and_noise_has_no_wave():
    noise = np.random.default_rng(0).normal(size=(40, 24))
    figure = spectrum_figure({"wave": pulse(-1), "noise": noise})
    _, of_noise, _, noise_spectrum = figure.axes[:4]
    assert noise_spectrum.get_title() == "no wave"
    assert not by_gid(of_noise, "guide")
    assert not by_gid(noise_spectrum, "guide")
    assert figure.axes[2].images[0].get_clim() == noise_spectrum.images[0].get_clim()


def test_by_the_authors_normalisation_magnitudes_are_of_one_random_order_of_steps_and_of_neurons():
    hidden = pulse(-1, steps=48) + np.random.default_rng(1).uniform(0, 0.1, (48, 24))
    figure = spectrum_figure({"a model": hidden}, normalisation="authors")
    drawn = figure.axes[1].images[0].get_array()
    rng = np.random.default_rng(0)
    shuffled = hidden[rng.permutation(48)][:, rng.permutation(24)]
    magnitude, of_shuffled = (np.fft.fftshift(np.abs(np.fft.fft2(values))) for values in (hidden, shuffled))
    np.testing.assert_allclose(drawn, np.log(magnitude / of_shuffled), atol=1e-6)
    assert drawn[24, 12] == pytest.approx(0, abs=1e-12)  # The mean, which stays what it is.
    for k in (-3, 3):  # The wave's band is where it is by the other one, too.
        assert abs(drawn[:, 12 + k].argmax() - spacetime_spectrum(hidden).power[:, 12 + k].argmax()) <= 1
    assert "ln" in figure.axes[2].get_ylabel()


def test_spectrum_refuses_other_shapes():
    with pytest.raises(ValueError, match="normalisation = 'none': must be one of power, authors"):
        spectrum_figure({"a": pulse(-1)}, normalisation="none")
    with pytest.raises(ValueError, match="hidden"):
        spectrum_figure({})
    with pytest.raises(ValueError, match=r"hidden\['a'\]\.shape"):
        spectrum_figure({"a": np.zeros((5, 2, 4))})


@pytest.mark.parametrize(
    ("velocity", "uncertainty", "text"),
    [
        (-1.0, 0.01, "v = −1.00 ± 0.01"),
        (-1.0004, 0.0, "v = −1.00 ± 0.01"),
        (-0.004, 0.0161, "v = 0.00 ± 0.02"),
        (2.5, 0.4, "v = 2.50 ± 0.40"),
        (math.nan, math.nan, "no wave"),
    ],
)
def test_speeds_are_written_with_rounded_up_uncertainty(velocity, uncertainty, text):
    assert speed_text(velocity, uncertainty) == text


def test_each_channel_has_a_guide_of_its_own_speed():
    given_speeds = Speed(np.array([-1.0, 0.5, math.nan]), np.array([0.01, 0.2, math.nan]))
    hidden = np.stack([pulse(-1), pulse(0.5), np.zeros((32, 24))], axis=1)
    figure = speeds_figure(hidden, given_speeds)
    draw(figure)
    *panels, summary = figure.axes[:4]
    for channel, panel in enumerate(panels):
        np.testing.assert_array_equal(panel.images[0].get_array(), hidden[:, channel].T)
    assert [slope(by_gid(panel, "guide")[0], 24) for panel in panels[:2]] == [-1, 0.5]
    assert not by_gid(panels[2], "guide")
    (points,) = summary.containers
    np.testing.assert_array_equal(points.lines[0].get_xdata(), given_speeds.velocity)
    np.testing.assert_array_equal(points.lines[0].get_ydata(), [1, 2, 3])
    (bars,) = points.lines[2]
    np.testing.assert_allclose([np.ptp(bar[:, 0]) for bar in bars.get_segments()[:2]], [0.02, 0.4])
    names = [label.get_text() for label in summary.get_yticklabels()]
    assert names == ["1: v = −1.00 ± 0.01", "2: v = 0.50 ± 0.20", "3: no wave"]


def test_speeds_are_measured_where_none_are_given_and_before_training_too():
    hidden, before = (np.stack([pulse(v, 48), pulse(w, 48)], axis=1) for v, w in ((-1, 0.5), (-0.5, 0)))
    figure = speeds_figure(hidden, before=before)
    draw(figure)
    then, now = figure.axes[2].containers
    assert [points.get_label() for points in (then, now)] == ["before training", "after training"]
    np.testing.assert_allclose(then.lines[0].get_xdata(), [-0.5, 0], atol=0.02)
    np.testing.assert_allclose(now.lines[0].get_xdata(), [-1, 0.5], atol=0.02)
    assert (then.lines[0].get_ydata() > now.lines[0].get_ydata()).all()
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), hidden[:, 0].T)


def test_speeds_refuse_other_shapes():
    with pytest.raises(ValueError, match=r"hidden\.shape"):
        speeds_figure(np.zeros((5, 4)))
    with pytest.raises(ValueError, match=r"speeds\.velocity\.shape"):
        speeds_figure(np.zeros((5, 2, 4)), Speed(np.zeros(3), np.zeros(3)))
    with pytest.raises(ValueError, match=r"before\.shape"):
        speeds_figure(np.zeros((5, 2, 4)), before=np.zeros((5, 2, 3)))


def test_training_goes_right_and_starts_go_down():
    hidden = {
        "shift": [(0, pulse(-1)), (1000, pulse(-1))],
        "identity": [(0, pulse(0)), (500, pulse(-0.5)), (1000, pulse(-1))],
    }
    figure = waves_through_training(hidden, title="a title")
    draw(figure)
    assert figure.get_suptitle() == "a title"
    panels = [axis for axis in figure.axes if axis.get_title().startswith("step")]
    states = [(step, states) for row in hidden.values() for step, states in row]
    for panel, (step, array) in zip(panels, states, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), array.T)
        assert panel.get_title().splitlines()[0] == f"step {step:,}"
        assert panel.get_ylim() == (23.5, -0.5)
    speeds = [slope(by_gid(panel, "guide")[0], 24) for panel in panels]
    np.testing.assert_allclose(speeds, [-1, -1, 0, -0.5, -1], atol=0.03)
    rows = [panel.get_subplotspec().rowspan.start for panel in panels]
    assert rows == [0, 0, 1, 1, 1]
    assert [panel.get_ylabel() for panel in panels] == ["shift", "", "identity", "", ""]


def test_waves_through_training_refuse_nothing_and_other_shapes():
    for empty in ({}, {"shift": []}):
        with pytest.raises(ValueError, match="hidden"):
            waves_through_training(empty)
    with pytest.raises(ValueError, match=r"hidden\['shift'\]\.shape"):
        waves_through_training({"shift": [(0, np.zeros((5, 2, 4)))]})


def onsets(*steps, T=20, width=1):
    signals = np.zeros((T, len(steps)))
    for column, step in enumerate(steps):
        signals[step : step + width, column] = 1
    return signals


def test_rings_are_sums_over_the_past():
    """Wave field: h_t[c, i] = Σ_s V[i + t − s] x_s[c]. Bump: the same without the shift."""
    signals = np.random.default_rng(0).integers(0, 2, (12, 2, 3)).astype(float)
    neurons = len(signals) + 2 * SOURCE
    profile = np.exp(-0.5 * ((np.arange(neurons) - (neurons - 1 - SOURCE)) / 2) ** 2)
    for kernel_init, shift in (("shift", 1), ("identity", 0)):
        states = ring_states(signals, kernel_init)
        assert states.shape == (12, 2, 3, neurons)
        for t in (0, 5, 11):
            written = [signals[s][..., None] * np.roll(profile, -shift * (t - s)) for s in range(t + 1)]
            np.testing.assert_allclose(states[t], sum(written), atol=1e-5)


def test_the_waves_final_state_tells_the_order_and_the_bumps_does_not():
    figure = bump_figure(onsets(2, 7, 15, width=2))
    draw(figure)
    axes = np.array(figure.axes[:12]).reshape(3, 4)
    for column in (1, 3):
        for row, equal in ((1, [False, True, False]), (2, [True] * 3)):
            own, other = by_gid(axes[row, column], "final"), by_gid(axes[row, column], "other")
            same = [np.array_equal(a.get_xdata(), b.get_xdata()) for a, b in zip(own, other, strict=True)]
            assert same == equal  # the middle input comes at the same time in both orders
    assert axes[1, 0].get_title(loc="left").startswith("the order is kept")
    assert axes[2, 0].get_title(loc="left").startswith("the order is lost")


def test_a_waves_distance_from_its_source_is_the_time_since():
    figure = bump_figure(onsets(2, 7, 19))
    axes = np.array(figure.axes[:12]).reshape(3, 4)
    notes = [[text.get_text() for text in axes[row, column].texts] for row in (1, 2) for column in (1, 3)]
    ago = ["17 steps ago", "12 steps ago", "0 steps ago"]
    assert notes == [ago, ago[::-1], ["when?"] * 3, ["when?"] * 3]
    staircases = [by_gid(axes[0, column], "signal") for column in (0, 2)]
    starts = [[int(np.diff(line.get_ydata()).argmax()) + 1 for line in lines] for lines in staircases]
    assert starts == [[2, 7, 19], [19, 7, 2]]


@pytest.mark.parametrize(
    ("signals", "field"),
    [
        (np.zeros((5, 2)), r"signals\.shape"),
        (0.5 * onsets(1, 2, 3), "signals"),
        (onsets(1, 2, 3) + onsets(5, 5, 6) * [1, 0, 0], "signals"),
        (np.zeros((5, 3)), "signals"),
    ],
)
def test_bump_refuses_other_signals(signals, field):
    with pytest.raises(ValueError, match=field):
        bump_figure(signals)


def test_animation_shows_each_neuron_at_its_angle(tmp_path):
    """Neuron 0 on top, clockwise: of four, the active one's bright dot is above, right of, below, left of the rest."""
    ring_animation(np.eye(4), tmp_path / "ring.gif", fps=10)
    with Image.open(tmp_path / "ring.gif") as picture:
        assert picture.n_frames == 4
        assert picture.info["duration"] == 100
        assert picture.info["loop"] == 0
    red = np.stack([frame[: int(0.94 * len(frame)), :, 0] for frame in frames_of(tmp_path / "ring.gif")])  # no clock
    bright = (red > 200) & (red.min(0) < 100)  # what lights up in this frame
    centers = [(columns.mean(), rows.mean()) for rows, columns in map(np.nonzero, bright)]
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = centers
    assert y0 < y1 < y2
    assert y1 == pytest.approx(y3, abs=2)
    assert x3 < x0 < x1
    assert x0 == pytest.approx(x2, abs=2)


def test_animation_of_many_rings_is_small_enough(tmp_path):
    hidden = np.maximum(np.random.default_rng(0).normal(size=(6, 6, 100)), 0)
    ring_animation(hidden, tmp_path / "rings.gif", every=2)
    assert len(list(frames_of(tmp_path / "rings.gif"))) == 3
    assert (tmp_path / "rings.gif").stat().st_size < 3 * 20_000  # 2 MB for 100 frames


def test_animation_takes_signed_silent_and_diverged_states(tmp_path):
    hidden = np.zeros((3, 3, 5))
    hidden[:, 1] = np.tanh(np.random.default_rng(0).normal(size=(3, 5)))
    hidden[1:, 2] = np.nan
    ring_animation(hidden, tmp_path / "rings.gif")
    assert len(list(frames_of(tmp_path / "rings.gif"))) == 3


@given(steps=st.integers(1, 3000), every=st.integers(1, 50))
def test_frames_are_evenly_spread_and_bounded(steps, every):
    drawn = frame_steps(steps, every)
    available = math.ceil(steps / every)
    assert len(drawn) == min(available, 200)
    assert drawn[0] == 0
    assert drawn[-1] == (available - 1) * every if available > 1 else drawn[-1] == 0
    assert (drawn % every == 0).all()
    if len(drawn) > 1:
        assert np.ptp(np.diff(drawn)) <= every
        assert np.diff(drawn).min() >= every


def test_animation_refuses_bad_arguments(tmp_path):
    good = {"hidden": np.ones((3, 4)), "path": tmp_path / "a.gif"}
    for field, bad in (("path", tmp_path / "a.mp4"), ("fps", 0), ("every", 0), ("hidden", np.ones(3))):
        with pytest.raises(ValueError, match=field):
            ring_animation(**good | {field: bad})
    assert not (tmp_path / "a.gif").exists()
