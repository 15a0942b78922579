"""What the papers report, as data: first T. A. Keller, L. Muller, T. Sejnowski, M. Welling, "Traveling Waves Encode
the Recent Past and Enhance Sequence Learning", ICLR 2024 (arXiv 2309.08045); then A. Karuvally, T. J. Sejnowski,
H. T. Siegelmann, "Hidden Traveling Waves bind Working Memory Variables in Recurrent Neural Networks", ICML 2024 (arXiv
2402.10163)."""

from collections.abc import Mapping
from typing import NamedTuple

PAPER = "Keller et al. 2024"
MEMORY_PAPER = "Karuvally et al. 2024"
PAPERS = (
    "T. A. Keller, L. Muller, T. Sejnowski, M. Welling, “Traveling Waves Encode the Recent Past and Enhance Sequence "
    "Learning”, ICLR 2024 (arXiv 2309.08045): the Wave-RNN.",
    "A. Karuvally, T. J. Sejnowski, H. T. Siegelmann, “Hidden Traveling Waves bind Working Memory Variables in "
    "Recurrent Neural Networks”, ICML 2024 (arXiv 2402.10163): traveling-wave working memory.",
)
"""What is reported beside ours."""

STEPS = 60_000
"""Optimiser steps of the copy and the adding task (batch 128)."""
EPOCHS = 120
"""Epochs of the image tasks."""
EPOCHS_IRNN = {"psmnist": 250, "nscifar10": 250}
"""The exceptions, by experiment."""
SIZES = {"wrnn": (36, 81, 169, 256, 324), "irnn": (36, 81, 169, 256, 529)}
"""Neurons of the networks of Fig. 7, accuracy against size on sMNIST and psMNIST, by model; the wRNN's are those of
each of 16 channels. The paper prints no sizes but Table 2's 256; 169, 324 and 529 are in its authors' sweeps."""
SIZES_NOTE = (
    "The paper shows these as points without numbers, and prints neither sizes nor accuracies but Table 2's, of 256 "
    "neurons: 169, 324 and 529 are in its authors' sweeps, 36 and 81 are ours. wRNN: c = 16."
)


def written(task: str) -> str:
    """The name of an image task as the paper writes it."""
    return task.replace("mnist", "MNIST")


ADDING_T = (100, 200, 400, 700, 1000)


class Adding(NamedTuple):
    """A row of Table 1, a value for each of ``ADDING_T``."""

    mse: tuple[float, ...]
    solved: tuple[int | None, ...]
    """Steps until the MSE is 5e-2 or less; None: never."""


TABLE_1: Mapping[str, Adding] = {
    "iRNN": Adding((1e-5, 4e-5, 1e-4, 0.16, 0.16), (14_000, 22_000, 30_000, None, None)),
    "wRNN": Adding((4e-6, 2e-5, 4e-5, 8e-5, 6e-5), (300, 1_000, 1_000, 3_000, 2_000)),
}


class Classifier(NamedTuple):
    """A row of Table 2 or 3."""

    name: str
    accuracy: Mapping[str, float]
    """Task -> share of the test images that are named rightly, in 0 … 1; the paper prints %."""
    units: int | None
    params: int


def _mnist(name: str, smnist: float, psmnist: float, units: int | None, params: int) -> Classifier:
    return Classifier(name, {"smnist": smnist, "psmnist": psmnist}, units, params)


TABLE_2 = (
    _mnist("uRNN", 0.951, 0.914, 512, 9_000),
    _mnist("iRNN", 0.985, 0.925, 256, 68_000),
    _mnist("LSTM", 0.988, 0.929, 256, 267_000),
    _mnist("GRU", 0.991, 0.941, 256, 201_000),
    _mnist("NWM", 0.986, 0.948, 128, 50_000),
    _mnist("IndRNN (6L)", 0.990, 0.960, 128, 83_000),
    _mnist("Lipschitz RNN", 0.994, 0.963, 128, 34_000),
    _mnist("coRNN", 0.993, 0.966, 128, 34_000),
    _mnist("LEM", 0.995, 0.966, 128, 68_000),
    _mnist("wRNN (16c)", 0.976, 0.967, 256, 47_000),
    _mnist("URLSTM", 0.992, 0.976, 1024, 4_500_000),
    _mnist("wRNN + MLP", 0.975, 0.976, 256, 420_000),
    _mnist("FlexTCN", 0.996, 0.986, None, 375_000),
)

TABLE_3 = (
    Classifier("LSTM", {"nscifar10": 0.116}, 128, 116_000),
    Classifier("GRU", {"nscifar10": 0.438}, 128, 88_000),
    Classifier("anti-symmetric RNN", {"nscifar10": 0.483}, 256, 36_000),
    Classifier("iRNN", {"nscifar10": 0.513}, 529, 336_000),
    Classifier("Incremental RNN", {"nscifar10": 0.545}, 128, 12_000),
    Classifier("gated anti-symmetric RNN", {"nscifar10": 0.547}, 256, 37_000),
    Classifier("wRNN (16c)", {"nscifar10": 0.550}, 256, 435_000),
    Classifier("Lipschitz RNN", {"nscifar10": 0.574}, 128, 46_000),
    Classifier("coRNN", {"nscifar10": 0.590}, 128, 46_000),
    Classifier("LEM", {"nscifar10": 0.605}, 128, 116_000),
)

ABLATION_T = (0, 10, 30, 80)
TABLE_4: Mapping[str, tuple[float, ...]] = {
    "wRNN": (9e-12, 1e-10, 8e-11, 1e-11),
    "wRNN − V-init": (1e-11, 2e-11, 4e-10, 4e-11),
    "wRNN − u-shift": (5e-11, 3e-10, 7e-4, 6e-4),
    "wRNN − V-init − u-shift": (8e-10, 1e-4, 3e-4, 7e-4),
    "iRNN": (1e-4, 3e-3, 2e-3, 1e-3),
    "iRNN + Σ-init": (1e-8, 1e-7, 2e-7, 2e-5),
    "iRNN + Σ-init + V-init": (1e-7, 1e-7, 1e-6, 8e-6),
}
"""Test loss on the copy task, a value for each of ``ABLATION_T``."""
TABLE_4_NOTE = (
    "The paper heads this table MSE; its numbers are the loss that the authors' program reports: the mean "
    "cross-entropy (nats a step) divided once more by the test batch of 50. Ours is divided likewise. In training "
    "their program divides the loss by the batch of 128 before it clips, so that the paper's clip of 1 is one of 128 "
    "without that; “loss / 128” among our settings says that a run was trained alike."
)

COPY_T = (*ABLATION_T, 480)
AUTHORS_COPY_T = (0, 10, 40, 90, 490)
"""What these were in the authors' sweep: three of them have ten idle steps more than the paper's labels say."""
COPY_BATCH = 128
"""By which their program divides the loss as well, before the gradient is taken and clipped."""
COPY_BEST: Mapping[tuple[str, int], Mapping[str, tuple[float, ...]]] = {
    ("wrnn", 100): {"lr": (1e-3, 1e-3, 1e-3, 1e-3, 1e-4), "grad_clip": (1.0, 0.0, 0.0, 1.0, 1.0)},
    ("irnn", 100): {"lr": (1e-3, 1e-3, 1e-4, 1e-4, 1e-4), "grad_clip": (10.0, 1.0, 1.0, 1.0, 10.0)},
    ("irnn", 625): {"lr": (1e-3, 1e-4, 1e-4, 1e-4, 1e-4), "grad_clip": (1.0, 10.0, 1.0, 1.0, 1.0)},
}
"""Best settings on the copy task (appendix) by (model, neurons a channel), a value for each of ``COPY_T``; a clip
of 0 is none, others are of the gradient of the loss divided by ``COPY_BATCH``. The wRNN has 6 channels."""
COPY_480_RECALL = 1.0
"""The wRNN's share of symbols recalled at T = 480, as Fig. 4 shows it: no table has this length."""

_COPY_GRID = {"lr": (1e-2, 1e-3, 1e-4), "grad_clip": (0.0, 1.0, 10.0)}
COPY_GRID: Mapping[str, Mapping[str, tuple]] = {
    "wrnn": _COPY_GRID,
    "irnn": {**_COPY_GRID, "init": ("identity", "random"), "act": ("relu", "tanh"), "n_hid": (100, 625)},
}
"""What was searched on the copy task for each T (appendix), by model; the best of it is ``COPY_BEST``."""
ADDING_GRID: Mapping[str, tuple] = {"lr": (1e-2, 1e-3, 1e-4), "grad_clip": (0.0, 1.0, 10.0, 100.0, 1000.0)}
"""What was searched on the adding task for each T and model (appendix)."""
IMAGES_GRID: Mapping[str, tuple] = {
    "lr": (1e-3, 1e-4, 1e-5),
    "grad_clip": (0.0, 1.0, 10.0, 100.0, 1000.0),
    "lr_factor": (3.33, 10.0),
    "lr_period": (40.0, 100.0),
}
"""What was searched on sMNIST, psMNIST and nsCIFAR10 for each model (appendix): the learning rate is divided by the
factor every so many epochs."""


class Binding(NamedTuple):
    """A cell of the second paper's Table 1."""

    angle_error: float | None
    """Mean absolute difference between the arguments of the theory's eigenvalues and the network's, in radians; None:
    too inaccurate to compare."""
    accuracy: float
    """At horizon 200, in 0 … 1."""


BINDING_STEPS = 20_000
"""Optimiser steps at most: 10 epochs of 2,000 batches (of 64)."""
BINDING_HORIZON = 200
"""Steps without input over which is tested."""
BINDING_SIZES = ((64, 0.0), (64, 1e-3), (64, 1e-1), (128, 0.0), (128, 1e-3), (128, 1e-1))
"""Hidden neurons, and factor of the L2 penalty."""
BINDING_TABLE_1: Mapping[str, tuple[Binding, ...]] = {
    "T1": (
        Binding(None, 0.97),
        Binding(None, 0.88),
        Binding(None, 0.50),
        Binding(0.0005, 1.00),
        Binding(None, 0.93),
        Binding(None, 0.50),
    ),
    "T2": (
        Binding(0.0075, 1.00),
        Binding(None, 0.85),
        Binding(None, 0.50),
        Binding(0.0055, 0.98),
        Binding(0.0031, 0.98),
        Binding(None, 0.50),
    ),
    "T3": (
        Binding(0.0026, 1.00),
        Binding(0.0010, 0.97),
        Binding(None, 0.50),
        Binding(0.0031, 0.98),
        Binding(0.0005, 1.00),
        Binding(None, 0.50),
    ),
    "T4": (
        Binding(0.0112, 0.94),
        Binding(0.0011, 1.00),
        Binding(None, 0.50),
        Binding(0.0022, 1.00),
        Binding(0.0006, 1.00),
        Binding(None, 0.50),
    ),
}
"""Task of linear variable binding -> a cell for each of ``BINDING_SIZES``."""
BINDING_MASTERY = (0.9, 0.98)
"""Shares of right signs at which the curriculum goes on, of which the table shows each seed's better."""
BINDING_SEEDS = 20
BINDING_NOTES = (
    f"Accuracy: the share of right signs over {BINDING_HORIZON} steps without input; guessing has 50 %. By its "
    f"authors' notebook the paper's is a mean over {BINDING_SEEDS} seeds, of each the better of two curricula, which "
    f"go on at {' or '.join(f'{share:.0%}' for share in BINDING_MASTERY)} of right signs. Our mean, which is compared "
    "with it, is made alike where there are runs of both, else of one curriculum, which favours the paper. The best "
    "seed is picked by this very number and therefore flatters: it is compared with nothing.",
    "Angle error: the mean absolute difference between the arguments of the theory's eigenvalues and the network's; of "
    "each seed the least of its curricula, then the mean over seeds, there as here. “–” in the paper: too inaccurate "
    "to compare. In ours: the network's eigenvalues cannot be paired with the theory's; the mean is over the seeds "
    "that have an angle, which are counted where they are not all.",
    f"The paper trains with Adam at 0.001, gradients clipped to a norm of 1, batches of 64, for at most "
    f"{BINDING_STEPS:,} steps, over horizons that grow as they are mastered. As a run may end before its last step, "
    "“the longest” are here the runs that were allowed the most steps.",
)
