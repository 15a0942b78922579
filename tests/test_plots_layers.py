"""Figures of deep networks and of linear waves: what is drawn of each layer, and how it is called."""

import numpy as np
import pytest

from experiments.learned import _waves
from helpers import by_gid, draw
from wrnn_jax.analysis.filters import Travel, mean_lag, memory
from wrnn_jax.analysis.plots import impulse_figure, learned_figure, speeds_by_layer, waves_by_layer
from wrnn_jax.analysis.plots.layers import layer_names, spread
from wrnn_jax.analysis.waves import wave_speed

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_open_figures")]


def rings(steps, *velocities, neurons=16):
    """A narrow bump that travels round each ring, ``(T, C, N)``."""
    place = np.arange(neurons) - 5 - np.array(velocities)[:, None] * np.arange(steps)[:, None, None]
    distance = (place + neurons / 2) % neurons - neurons / 2
    return np.exp(-0.5 * (distance / 1.2) ** 2)


@pytest.mark.parametrize(
    ("places", "names"),
    [
        ([""], [""]),
        (["0.layer"], [""]),
        (["0.layer", "1.layer", "2.layer"], ["layer 1", "layer 2", "layer 3"]),
        (["1", "3"], ["layer 1", "layer 2"]),
        (["forward", "backward"], ["forward", "backward"]),
        (
            [f"{index}.wave.{way}" for index in (0, 1) for way in ("forward", "backward")],
            ["layer 1, forward", "layer 1, backward", "layer 2, forward", "layer 2, backward"],
        ),
        (["0", "1.memory"], ["layer 1", "layer 2"]),
        (["layer 2", "layer 5"], ["layer 2", "layer 5"]),
    ],
)
def test_layers_are_called_by_number_and_part(places, names):
    assert layer_names(places) == names


def test_a_spread_has_both_ends_and_no_index_twice():
    for count in (1, 2, 5, 64):
        for most in (1, 2, 4, 64):
            chosen = spread(count, most)
            assert len(set(chosen)) == len(chosen) == min(count, most)
            assert chosen[0] == 0
            assert chosen[-1] == count - 1 or most == 1


def test_a_row_of_waves_is_a_layer_of_its_own_size():
    """Images are the states, with a measured speed each; of many channels some are drawn, which the figure says."""
    hidden = {"0.wave": rings(24, *np.linspace(-1, -0.1, 9)), "1.wave": rings(12, -0.5, neurons=10)}
    inputs = np.random.default_rng(0).uniform(size=(24, 3))
    figure = waves_by_layer(hidden, inputs=inputs, title="a title")
    draw(figure)
    assert figure.get_suptitle() == "a title"
    panels = [axis for axis in figure.axes if axis.images and axis.get_title(loc="left")]
    shown = [("0.wave", 0), ("0.wave", 3), ("0.wave", 5), ("0.wave", 8), ("1.wave", 0)]
    for panel, (place, channel) in zip(panels, shown, strict=True):
        ring = hidden[place][:, channel]
        np.testing.assert_array_equal(panel.images[0].get_array(), ring.T)
        first, second = panel.get_title(loc="left").splitlines()
        assert first == (f"layer 1, channel {channel + 1}" if place == "0.wave" else "layer 2")
        assert second.startswith(f"v = {wave_speed(ring).velocity:.2f}".replace("-", "−"))
        assert by_gid(panel, "guide")
    assert [panel.get_ylabel() for panel in panels] == ["4 of 9 channels", "", "", "", ""]
    strips = [axis for axis in figure.axes if axis.images and axis not in panels]
    np.testing.assert_array_equal(strips[0].images[0].get_array(), inputs.T)


def test_of_very_many_layers_some_are_drawn_and_states_without_waves_too():
    hidden = {f"{index}.layer": np.full((3, 1, 2), np.nan if index == 11 else 0.0) for index in range(12)}
    figure = waves_by_layer(hidden)
    draw(figure)
    assert figure.get_suptitle().endswith("8 of 12 layers")
    titles = [axis.get_title(loc="left").splitlines() for axis in figure.axes if axis.images]
    assert [title[0] for title in titles if title] == [f"layer {number + 1}" for number in spread(12, 8)]
    assert {title[1] for title in titles if title} == {"no wave"}


def test_speeds_are_measured_layer_by_layer_before_training_and_after():
    hidden, before = {"0": rings(32, -1, -0.5), "1": rings(32, -0.25)}, {"0": rings(32, 0, -1), "1": rings(32, -0.5)}
    figure = speeds_by_layer(hidden, before=before)
    for axis, place in zip(figure.axes, hidden, strict=True):
        drawn = [container.lines[0].get_ydata() for container in axis.containers]
        for values, states in zip(drawn, (before[place], hidden[place]), strict=True):
            np.testing.assert_array_equal(values, wave_speed(states).velocity)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["layer 1", "layer 2"]
    with pytest.raises(ValueError, match="before = "):
        speeds_by_layer(hidden, before={"0": hidden["0"]})


def test_what_are_no_layers_is_refused():
    for function in (waves_by_layer, speeds_by_layer):
        with pytest.raises(ValueError, match="hidden"):
            function({})
        with pytest.raises(ValueError, match=r"hidden\['0'\]\.shape = \(4, 3\)"):
            function({"0": np.zeros((4, 3))})
    with pytest.raises(ValueError, match=r"inputs\.shape"):
        waves_by_layer({"0": np.zeros((4, 3, 5))}, inputs=np.zeros(4))
    with pytest.raises(ValueError, match=r"responses\['0'\]\.shape"):
        impulse_figure({"0": np.zeros(4)})
    with pytest.raises(ValueError, match="before"):
        learned_figure({"0": Travel(np.ones(2), np.ones(2))}, {"1": Travel(np.ones(2), np.ones(2))})
    with pytest.raises(ValueError, match=r"before\['0'\]"):
        learned_figure({"0": Travel(np.ones(2), np.ones(2))}, {"0": Travel(np.ones(3), np.ones(3))})


def test_the_mean_lag_of_a_delay_is_the_delay_and_of_a_decay_its_memory():
    """K_t = ρ^t: Σ t ρ^{2t} / Σ ρ^{2t} = ρ² / (1 − ρ²)."""
    delays = np.eye(9)[[7, 2, 0]] * [[3.0], [-1.0], [0.5]]
    np.testing.assert_array_equal(mean_lag(delays), [7, 2, 0])
    assert mean_lag(np.zeros((1, 4))) == 0
    rho = np.array([0.5, 0.9])
    np.testing.assert_allclose(mean_lag(rho[:, None] ** np.arange(500)), rho**2 / (1 - rho**2))
    np.testing.assert_allclose(rho ** memory(rho), np.exp(-1))
    assert memory(1.0) == np.inf


def test_impulse_responses_stand_by_their_memory_and_some_as_curves():
    rng = np.random.default_rng(0)
    responses = {"0.wave": np.eye(8)[rng.permutation(8)][:6], "1.wave": rng.normal(size=(2, 5))}
    figure = impulse_figure(responses)
    draw(figure)
    for (image, curves), array in zip(np.reshape(figure.axes[:4], (2, 2)), responses.values(), strict=True):
        order = np.argsort(mean_lag(array))
        np.testing.assert_array_equal(image.images[0].get_array(), array[order])
        low, high = image.images[0].get_clim()
        assert low == -high
        picked = order[spread(len(array), 4)]
        for line, channel in zip(curves.get_lines(), picked, strict=True):
            np.testing.assert_allclose(line.get_ydata(), array[channel] / np.abs(array[channel]).max())
            assert line.get_label() == f"channel {channel + 1}"
    assert figure.axes[1].get_title() == "4 of 6 channels"


def test_speeds_and_memories_are_drawn_before_and_after_by_the_speed_before():
    before = {"0.wave": Travel(np.array([0.25, 1.0, 0.5]), np.array([0.9, 0.8, 0.7]))}
    after = {"0.wave": Travel(np.array([0.3, 0.9, 0.6]), np.array([0.99, 0.8, 0.5]))}
    figure = learned_figure(after, before)
    draw(figure)
    order = [1, 2, 0]
    for axis, of in zip(figure.axes, (lambda travel: travel.speeds, lambda travel: memory(travel.leaks)), strict=True):
        then, now = axis.get_lines()
        np.testing.assert_array_equal(then.get_ydata(), of(before["0.wave"])[order])
        np.testing.assert_array_equal(now.get_ydata(), of(after["0.wave"])[order])
    assert [axis.get_yscale() for axis in figure.axes] == ["linear", "log"]  # A factor of 4; one of 70.
    still = {"0": Travel(np.array([-0.5, 0.0]), np.ones(2))}
    assert [axis.get_yscale() for axis in learned_figure(still, still).axes] == ["linear"] * 2


def test_linear_waves_are_found_among_other_parameters_in_the_order_of_their_layers():
    wave, other = {"kernel": np.ones((2, 3)), "bias": np.ones(2)}, {"kernel": np.ones((2, 2))}
    both = {"backward": wave, "forward": wave}
    params = {
        "0": {"encoder": other, "wave": wave, "drop": ()},
        "10": {"wave": both},
        "2": {"wave": wave, "glu": other},
    }
    assert [place for place, _ in _waves("", params)] == ["0.wave", "2.wave", "10.wave.forward", "10.wave.backward"]
