"""The pictures: arrays in, a ``matplotlib.figure.Figure`` out; without pyplot, so that none stays open.

====================================  ======================================  =====================
:func:`bump_figure`                   waves keep order, a static bump not     Fig. 1
:func:`hidden_waves`                  states over time, all channels          Fig. 2, top
:func:`waves_by_layer`                the same of each layer of a deep one
:func:`spectrum_figure`               states and their space–time spectra     Fig. 2
:func:`training_curves`               any task's curves, one seed or several  Figs. 3, 5, 6, 8
:func:`copy_example`                  a copy sequence and the answer          Fig. 4
:func:`parameters_figure`             accuracy against size                   Fig. 7
:func:`speeds_figure`                 several wave speeds in one network      Fig. 10
:func:`speeds_by_layer`               the same of each layer of a deep one
:func:`impulse_figure`                what linear waves listen to
:func:`learned_figure`                how they travel, before and after
:func:`waves_through_training`        waves as they are learned               Fig. 18
:func:`adding_example`                an adding sequence and the answer
:func:`image_example`                 an image, as a sequence, and its class
:func:`text_example`                  a text, and what was expected in it
:func:`series_example`                a series, and how a network goes on
:func:`tokens_example`                tokens, and those that are recalled
:func:`ring_animation`                the rings in motion, a GIF
:func:`grid_heatmap`                  what the settings of a grid reach
:func:`spectra_overlay`               eigenvalues, trained and in theory
:func:`matrix_beside_phi`             a recurrence in its variables' basis
:func:`variables_wave`                the variables of memory over time
:func:`evolution`                     they, between input and output
:func:`variables_animation`           the substrate in motion, a GIF
:func:`gradient_figure`               gradients against the lag
:func:`accuracy_by_step`              how long a network goes on rightly
====================================  ======================================  =====================

Figures are those of Keller et al. 2024; the last seven are for traveling-wave working memory, Karuvally et al. 2024.
"""

from wrnn_jax.analysis.plots.bump import bump_figure
from wrnn_jax.analysis.plots.copy import copy_example
from wrnn_jax.analysis.plots.curves import PANELS, Panel, training_curves
from wrnn_jax.analysis.plots.evolution import evolution
from wrnn_jax.analysis.plots.examples import DIGITS, adding_example, image_example
from wrnn_jax.analysis.plots.filters import impulse_figure, learned_figure
from wrnn_jax.analysis.plots.gradients import gradient_figure
from wrnn_jax.analysis.plots.heatmap import grid_heatmap
from wrnn_jax.analysis.plots.horizon import accuracy_by_step
from wrnn_jax.analysis.plots.layers import speeds_by_layer, waves_by_layer
from wrnn_jax.analysis.plots.memories import variables_animation, variables_wave
from wrnn_jax.analysis.plots.parameters import Point, Suite, parameters_figure
from wrnn_jax.analysis.plots.ring import ring_animation
from wrnn_jax.analysis.plots.series import series_example
from wrnn_jax.analysis.plots.spectra import spectrum_figure, speeds_figure
from wrnn_jax.analysis.plots.text import text_example
from wrnn_jax.analysis.plots.tokens import tokens_example
from wrnn_jax.analysis.plots.variables import matrix_beside_phi, spectra_overlay
from wrnn_jax.analysis.plots.waves import guide_line, hidden_waves, waves_through_training

__all__ = [
    "DIGITS",
    "PANELS",
    "Panel",
    "Point",
    "Suite",
    "accuracy_by_step",
    "adding_example",
    "bump_figure",
    "copy_example",
    "evolution",
    "gradient_figure",
    "grid_heatmap",
    "guide_line",
    "hidden_waves",
    "image_example",
    "impulse_figure",
    "learned_figure",
    "matrix_beside_phi",
    "parameters_figure",
    "ring_animation",
    "series_example",
    "spectra_overlay",
    "spectrum_figure",
    "speeds_by_layer",
    "speeds_figure",
    "text_example",
    "tokens_example",
    "training_curves",
    "variables_animation",
    "variables_wave",
    "waves_by_layer",
    "waves_through_training",
]
