"""The pictures: arrays in, a ``matplotlib.figure.Figure`` out; without pyplot, so that none stays open.

====================================  ======================================  =====================
:func:`bump_figure`                   waves keep order, a static bump not     Fig. 1
:func:`hidden_waves`                  states over time, all channels          Fig. 2, top
:func:`spectrum_figure`               states and their space–time spectra     Fig. 2
:func:`training_curves`               any task's curves, one seed or several  Figs. 3, 5, 6, 8
:func:`copy_example`                  a copy sequence and the answer          Fig. 4
:func:`parameters_figure`             accuracy against size                   Fig. 7
:func:`speeds_figure`                 several wave speeds in one network      Fig. 10
:func:`waves_through_training`        waves as they are learned               Fig. 18
:func:`adding_example`                an adding sequence and the answer
:func:`image_example`                 an image, as a sequence, and its class
:func:`ring_animation`                the rings in motion, a GIF
:func:`grid_heatmap`                  what the settings of a grid reach
====================================  ======================================  =====================

Figures are those of Keller et al. 2024.
"""

from wrnn_jax.analysis.plots.bump import bump_figure
from wrnn_jax.analysis.plots.copy import copy_example
from wrnn_jax.analysis.plots.curves import PANELS, Panel, training_curves
from wrnn_jax.analysis.plots.examples import DIGITS, adding_example, image_example
from wrnn_jax.analysis.plots.heatmap import grid_heatmap
from wrnn_jax.analysis.plots.parameters import Point, parameters_figure
from wrnn_jax.analysis.plots.ring import ring_animation
from wrnn_jax.analysis.plots.spectra import spectrum_figure, speeds_figure
from wrnn_jax.analysis.plots.waves import guide_line, hidden_waves, waves_through_training

__all__ = [
    "DIGITS",
    "PANELS",
    "Panel",
    "Point",
    "adding_example",
    "bump_figure",
    "copy_example",
    "grid_heatmap",
    "guide_line",
    "hidden_waves",
    "image_example",
    "parameters_figure",
    "ring_animation",
    "spectrum_figure",
    "speeds_figure",
    "training_curves",
    "waves_through_training",
]
