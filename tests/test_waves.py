"""Spectra, speeds and onsets of states whose waves are known, and of cells whose kernels say how fast they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrnn_jax import unroll
from wrnn_jax.analysis.waves import onset_order, spacetime_spectrum, wave_speed
from wrnn_jax.cells import elman, wave
from wrnn_jax.validation import InvalidValue


def pulse(velocity, steps=100, neurons=48, width=2.0, start=10.0):
    """``(T, N)``: a Gaussian that travels round the ring."""
    time, position = np.arange(steps)[:, None], np.arange(neurons)
    distance = (position - start - velocity * time + neurons / 2) % neurons - neurons / 2
    return np.exp(-(distance**2) / (2 * width**2))


def noise(steps=100, neurons=48, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, neurons))


def hidden_of(cell, steps=60, kernel=None, onset=0):
    """``(T, C, N)``: the states after one input of 1 at ``onset``, with the recurrent kernel replaced if given."""
    params = cell.init(jax.random.key(0), 1)
    if kernel is not None:
        params["recurrence"]["kernel"] = jnp.asarray(kernel, jnp.float32)
    inputs = jnp.zeros((1, steps, 1)).at[:, onset].set(1.0)
    return np.asarray(unroll(cell, params, inputs, return_hidden=True).hidden[0])


def assert_no_wave(hidden):
    assert np.isnan(wave_speed(hidden)).all()


# Spectrum


def test_spectrum_is_the_fourier_transform_over_the_flat_one_that_shuffling_has():
    """Random orders of values of zero mean have E|F|² = T N / (T N − 1) · Σ h² at every frequency but 0."""
    hidden = pulse(0.5, steps=12, neurons=10) + 0.3 * noise(12, 10)
    temporal, spatial, power = spacetime_spectrum(hidden, shuffles=2000)
    deviation = hidden - hidden.mean()
    flat = 120 / 119 * (deviation**2).sum()
    time, position = np.mgrid[:12, :10]
    expected = np.empty((12, 10))
    for i, omega in enumerate(temporal):
        for j, k in enumerate(spatial):
            transform = (deviation * np.exp(-2j * np.pi * (omega * time + k * position))).sum()
            expected[i, j] = abs(transform) ** 2 / flat
    expected[6, 5] = 1
    np.testing.assert_allclose(10**power, expected, rtol=0.15)


@pytest.mark.parametrize("size", [7, 8])
def test_spectrum_axes_ascend_from_minus_half_in_cycles_a_step_and_a_neuron(size):
    temporal, spatial, power = spacetime_spectrum(noise(size, 3 * size))
    assert power.shape == (size, 3 * size)
    for axis, length in ((temporal, size), (spatial, 3 * size)):
        assert axis[length // 2] == 0
        assert -0.5 <= axis[0] < -0.5 + 1 / length
        np.testing.assert_allclose(np.diff(axis), 1 / length)


@pytest.mark.parametrize("velocity", [-2, -1, 0, 1, 3])
def test_power_of_a_wave_lies_on_the_line_of_its_speed(velocity):
    """``ω = −v k``, and the floor, six decades down, elsewhere; T = 2 N, so that each line goes through bins."""
    temporal, spatial, power = spacetime_spectrum(pulse(velocity, steps=96, width=0.5))
    cycles = temporal[:, None] + velocity * spatial
    on_band = np.abs(cycles - np.round(cycles)) < 1e-9
    on_band[48, 24] = False
    assert power[on_band].min() > 1
    on_band[48, 24] = True
    np.testing.assert_array_equal(power[~on_band], -6)


def test_power_of_the_shift_kernel_lies_on_the_diagonal():
    temporal, spatial, power = spacetime_spectrum(hidden_of(wave(2, 20), steps=40))
    on_band = np.isclose((temporal[:, None] - spatial) % 1, 0) & (spatial != 0)
    assert power.shape == (2, 40, 20)
    assert power[:, on_band].min() > 1
    assert power[:, ~on_band].max() <= 0


def test_white_noise_is_flat_in_the_spectrum():
    """|F|² and its shuffled mean are exponential and nearly constant: log10 has mean −γ/ln 10, deviation π/√6/ln 10."""
    power = spacetime_spectrum(noise(128, 64), shuffles=50).power
    for half in (power[:, 40:], power[80:], power[48:80, 24:40]):
        assert np.mean(half) == pytest.approx(-np.euler_gamma / np.log(10), abs=0.05)
        assert np.std(half) == pytest.approx(np.pi / np.sqrt(6) / np.log(10), abs=0.05)


@given(scale=st.floats(1e-30, 1e30), level=st.floats(-3, 3), seed=st.integers(0, 9))
def test_spectrum_knows_neither_units_nor_the_mean(scale, level, seed):
    hidden = noise(9, 8)
    expected = spacetime_spectrum(hidden, seed=seed).power
    np.testing.assert_allclose(spacetime_spectrum(scale * (hidden + level), seed=seed).power, expected, atol=1e-6)
    assert np.ptp(spacetime_spectrum(hidden, seed=seed + 1).power - expected) > 0


def test_spectrum_of_channels_is_that_of_each():
    hidden = np.stack([noise(seed=1), pulse(1.0), np.zeros((100, 48))], axis=1)
    power = spacetime_spectrum(hidden).power
    for channel in range(3):
        np.testing.assert_array_equal(power[channel], spacetime_spectrum(hidden[:, channel]).power)


@pytest.mark.parametrize("level", [0.0, 0.1, -1e30])
def test_a_constant_state_has_a_spectrum_of_zeros(level):
    np.testing.assert_array_equal(spacetime_spectrum(np.full((9, 7), level)).power, 0)


def test_dead_neurons_leave_the_spectrum_finite():
    hidden = pulse(-1.0)
    hidden[:, 5:30] = 0
    power = spacetime_spectrum(hidden).power
    assert np.isfinite(power).all()
    assert power.max() > 1


# Speed


@pytest.mark.parametrize("velocity", [-7, -2, -1, -0.5, -1 / 3, 0, 0.05, 0.3, 1, 2.4, 11.7])
@pytest.mark.parametrize("neurons", [47, 48])
def test_speed_of_a_wave_without_noise_is_exact(velocity, neurons):
    hidden = pulse(velocity, neurons=neurons)
    speed = wave_speed(hidden)
    assert speed.velocity == pytest.approx(velocity, abs=1e-4)
    assert speed.uncertainty < 1e-4


@pytest.mark.parametrize("velocity", [-1, -0.5, 0.3, 2])
def test_truth_lies_within_the_uncertainty_of_noisy_waves_upon_a_background(velocity):
    """A normal error is within 2 standard deviations in 95 % of cases; 20 of 25 leaves room for chance."""
    state = pulse(velocity, 60, 32) + 2 * noise(1, 32)
    speeds = [wave_speed(state + 0.2 * noise(60, 32, seed)) for seed in range(25)]
    errors, uncertainties = np.array([(speed.velocity - velocity, speed.uncertainty) for speed in speeds]).T
    assert np.sum(np.abs(errors) < 2 * uncertainties) >= 20
    assert np.all(np.abs(errors) < 6 * uncertainties)
    assert np.sqrt(np.mean(errors**2)) > np.median(uncertainties) / 3, "not larger than need be either"


def test_uncertainty_shrinks_with_less_noise_and_with_more_data():
    def median_uncertainty(level, steps):
        states = (pulse(-1.0, steps) + level * noise(steps, seed=seed) for seed in range(5))
        return np.median([wave_speed(state).uncertainty for state in states])

    assert median_uncertainty(0.05, 100) < 0.5 * median_uncertainty(0.2, 100)
    assert median_uncertainty(0.2, 400) < 0.7 * median_uncertainty(0.2, 100)


def test_each_channel_has_its_own_speed():
    velocities = np.array([-1, 0.5, 3, 0])
    hidden = np.stack([pulse(velocity) for velocity in velocities], axis=1) + 0.1 * noise()[:, None]
    speed = wave_speed(np.concatenate([hidden, noise(seed=3)[:, None], np.zeros((100, 1, 48))], axis=1))
    assert np.all(np.abs(speed.velocity[:4] - velocities) < 0.05)
    assert np.all(speed.uncertainty[:4] < 0.05)
    assert np.isnan(speed.velocity[4:]).all()
    assert np.isnan(speed.uncertainty[4:]).all()


def test_many_decaying_pulses_launched_at_random_times():
    rng = np.random.default_rng(0)
    hidden = 0.05 * noise(200)
    for launch in rng.choice(190, 25, replace=False):
        rest = 200 - launch
        hidden[launch:] += rng.random() * 0.9 ** np.arange(rest)[:, None] * pulse(-1.0, rest, width=0.6)
    velocity, uncertainty = wave_speed(hidden)
    assert abs(velocity + 1) < 4 * uncertainty
    assert uncertainty < 0.05


def test_a_pulse_that_moves_by_whole_neurons_has_the_speed_of_its_average():
    """3 neurons in 10 steps, from neuron to neuron: over one step alone it seems to stand."""
    hidden = np.eye(40)[np.arange(100) * 3 // 10 % 40]
    assert wave_speed(hidden).velocity == pytest.approx(0.3, abs=0.02)


def test_a_periodic_wave_has_the_slowest_of_its_possible_speeds():
    """A sine of wavelength 12 at v looks the same at v ± 12."""
    time, position = np.arange(100)[:, None], np.arange(48)
    for velocity in (0.7, -2.5):
        speed = wave_speed(np.sin(2 * np.pi * (position - velocity * time) / 12) + 0.2 * noise())
        assert abs(speed.velocity - velocity) < 4 * speed.uncertainty < 0.1


def test_the_stronger_of_two_waves_counts():
    hidden = pulse(1.0) + 0.5 * pulse(-2.0, start=30.0)
    assert wave_speed(hidden).velocity == pytest.approx(1, abs=0.05)


def test_equal_waves_in_both_directions_have_an_uncertainty_as_large_as_their_speed():
    """Unless noise happens to make one of them the stronger by much."""
    time, position = np.arange(200)[:, None], np.arange(48)
    standing = np.sin(2 * np.pi * position / 12) * np.cos(0.3 * time)
    speeds = [wave_speed(standing + 0.1 * noise(200, seed=seed)) for seed in range(8)]
    assert {np.sign(speed.velocity) for speed in speeds} == {-1, 1}
    assert sum(speed.uncertainty > 0.9 * abs(speed.velocity) > 0.3 for speed in speeds) >= 6


def test_noise_is_no_wave():
    """In one case of fifty it may pass."""
    states = [noise(60, 32, seed) for seed in range(50)] + [np.random.default_rng(0).random((50, 30))]
    assert sum(np.isfinite(wave_speed(state).velocity) for state in states) <= 3


def test_what_has_no_pattern_in_space_or_too_few_steps_is_no_wave():
    assert_no_wave(np.zeros((50, 12)))
    assert_no_wave(np.full((50, 12), 0.1))
    assert_no_wave(np.repeat(noise(50, 1), 12, axis=1))
    assert_no_wave((np.arange(12) % 2) * np.cos(np.arange(50))[:, None])  # the alternation moves neither way
    for steps in (2, 3, 6):
        assert_no_wave(pulse(-1.0, steps))


def test_what_only_stands_has_speed_zero():
    standing = pulse(0.0)
    assert wave_speed(standing) == pytest.approx((0, 0), abs=1e-9)
    for state in (standing + 0.1 * noise(), standing * 0.97 ** np.arange(100)[:, None] + 0.01 * noise()):
        velocity, uncertainty = wave_speed(state)
        assert abs(velocity) < 4 * uncertainty < 0.1


def test_a_standing_background_does_not_hide_a_wave():
    assert wave_speed(pulse(-0.5) + 10 * noise(1)).velocity == pytest.approx(-0.5, abs=1e-4)


@given(
    velocity=st.floats(0.5, 5) | st.floats(-5, -0.5),
    rotation=st.integers(0, 23),
    scale=st.floats(1e-20, 1e20),
    level=st.floats(-2, 2),
)
def test_speed_is_invariant_under_rotation_and_units_and_turns_with_time_and_space(velocity, rotation, scale, level):
    """Of what moves by more than its own width; what moves less may count as standing, as chance has it."""
    hidden = pulse(velocity, 30, 24) + 0.05 * noise(30, 24)
    expected = wave_speed(hidden)
    same = wave_speed(scale * (np.roll(hidden, rotation, axis=1) + level))
    np.testing.assert_allclose(same, expected, rtol=1e-6, atol=1e-6)
    for turned in (hidden[::-1], hidden[:, ::-1]):
        assert wave_speed(turned).velocity == pytest.approx(-expected.velocity, abs=1e-6)


def test_speed_goes_with_its_channel():
    hidden = np.stack([pulse(-1.0), pulse(0.4), noise()], axis=1) + 0.1 * noise(seed=5)[:, None]
    order = [2, 0, 1]
    np.testing.assert_array_equal(wave_speed(hidden[:, order]), np.array(wave_speed(hidden))[:, order])
    np.testing.assert_array_equal(wave_speed(hidden[:, 1]), np.array(wave_speed(hidden))[:, 1])


@pytest.mark.parametrize("onset", [0, 7])
@pytest.mark.parametrize(("kernel_init", "velocity"), [("shift", -1), ("identity", 0)])
def test_speed_of_an_untrained_cell(kernel_init, velocity, onset):
    hidden = hidden_of(wave(3, 20, kernel_init=kernel_init), onset=onset)
    np.testing.assert_allclose(wave_speed(hidden).velocity, [velocity] * 3, atol=1e-4)
    np.testing.assert_allclose(wave_speed(hidden).uncertainty, 0, atol=1e-4)


@pytest.mark.parametrize("taps", [(0, 0.5, 0.5), (0.5, 0.5, 0), (0, 0.7, 0.3), (0.2, 0.6, 0.2)])
def test_speed_of_a_linear_cell_follows_from_its_kernel(taps):
    """A kernel moves the centre of a broad pattern by −Σ_k k u_k neurons a step."""
    kernel = np.zeros((2, 2, 3))
    kernel[[0, 1], [0, 1]] = taps
    hidden = hidden_of(wave(2, 64, activation="identity"), kernel=kernel, steps=80)[20:]
    np.testing.assert_allclose(wave_speed(hidden).velocity, taps[0] - taps[2], atol=0.03)


# Onset


def test_onset_order_sorts_by_the_first_step_at_a_share_of_the_maximum():
    hidden = np.zeros((6, 5))
    hidden[:, 0] = [0, 0, 0, 0.4, 1, 0.9]
    hidden[:, 1] = [0, -2, -4, 0, 0, 0]
    hidden[:, 3] = [0, 0, 1, 0, 0, 2.1]
    hidden[:, 4] = [0, 9, 0, 0, 0, 0]
    assert onset_order(hidden).tolist() == [1, 4, 0, 3, 2]
    assert onset_order(hidden, share=0.4).tolist() == [1, 4, 3, 0, 2]
    assert onset_order(hidden, share=1.0).tolist() == [4, 1, 0, 3, 2]


@given(seed=st.integers(0, 99), scale=st.floats(1e-20, 1e20), share=st.floats(0.05, 1))
def test_onset_order_is_a_permutation_into_ascending_onsets(seed, scale, share):
    hidden = np.maximum(noise(7, 12, seed), 0) ** 2
    hidden[:, seed % 12] = 0
    order = onset_order(scale * hidden.reshape(7, 3, 4), share=share)
    assert sorted(order) == list(range(12))
    assert order[-1] == seed % 12

    def onset(neuron):
        return next((t for t in range(7) if 0 < share * hidden[:, neuron].max() <= hidden[t, neuron]), 7)

    keys = [(onset(neuron), neuron) for neuron in order]
    assert keys == sorted(keys)


def test_sorting_by_onset_brings_a_shuffled_wave_back():
    """Launched at 0, it comes to N − 1 next: sorted by onset it travels up, one neuron a step."""
    hidden = hidden_of(wave(1, 30), steps=30)[:, 0]
    shuffled = hidden[:, np.random.default_rng(0).permutation(30)]
    np.testing.assert_array_equal(shuffled[:, onset_order(shuffled)], np.eye(30))


def test_an_integrator_sorted_by_onset_is_no_wave():
    """The iRNN of the paper's Fig. 2: every neuron keeps what it got, so that only the background remains."""
    cell = elman(16, kernel_init="identity", encoder_init="sparse")
    hidden = hidden_of(cell, steps=30)[:, 0]
    assert wave_speed(hidden[:, onset_order(hidden)]) == pytest.approx((0, 0), abs=1e-9)


# What is refused


@pytest.mark.parametrize("function", [spacetime_spectrum, wave_speed, onset_order])
def test_states_of_another_shape_or_not_finite_are_refused(function):
    for shape in [(5,), (0, 5), (5, 0), (5, 2, 0), (2, 5, 2, 4)]:
        with pytest.raises(InvalidValue, match=r"hidden\.shape = "):
            function(np.zeros(shape))
    for bad in (np.nan, np.inf):
        with pytest.raises(InvalidValue, match="1 values NaN or infinite"):
            function(np.where(np.arange(40).reshape(10, 4) == 7, bad, 1.0))


def test_speed_needs_two_steps_and_a_ring_of_three():
    for shape in [(1, 5), (5, 2), (1, 2, 5), (5, 3, 2)]:
        with pytest.raises(InvalidValue, match="T at least 2, N at least 3"):
            wave_speed(np.ones(shape))


def test_options_out_of_range_are_refused():
    for field, value in (("shuffles", 0), ("shuffles", 1.5), ("seed", -1)):
        with pytest.raises(InvalidValue, match=f"{field} = {value}"):
            spacetime_spectrum(noise(4, 4), **{field: value})
    with pytest.raises(InvalidValue, match="seed = -1"):
        wave_speed(noise(4, 4), seed=-1)
    for share in (0, -0.5, 1.5, np.nan):
        with pytest.raises(InvalidValue, match="share = "):
            onset_order(noise(4, 4), share=share)
