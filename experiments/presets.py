"""Settings for the published rows of the Wave-RNN (Keller et al. 2024): what ``--preset`` names.

Where the paper does not print the values that its grid came to, they are ours, from its grid; each summary says so.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from wrnn_jax.report.published import ABLATION_T, ADDING_T, COPY_BEST, COPY_T, EPOCHS, EPOCHS_IRNN_PSMNIST, STEPS
from wrnn_jax.validation import require, require_choice


class Preset(NamedTuple):
    """Settings by name.

    ====================  ==================================================================
    ``summary``           one line on what it is
    ``apply(config)``     -> the config with the settings for its T and model
    ``rows``              the flags that choose among published rows
    ====================  ==================================================================
    """

    summary: str
    apply: Callable[[Any], Any]
    rows: tuple[str, ...]


ABLATION = {
    "wrnn": {"model": "wrnn"},
    "wrnn-no-v": {"model": "wrnn", "encoder_init": "dense"},
    "wrnn-no-shift": {"model": "wrnn", "init": "random"},
    "wrnn-no-v-no-shift": {"model": "wrnn", "encoder_init": "dense", "init": "random"},
    "irnn": {"model": "irnn"},
    "irnn-shift": {"model": "irnn-shift"},
    "irnn-shift-v": {"model": "irnn-shift-sparse"},
}
"""The rows of Table 4, as flags of the model."""


def _train(config: Any, **settings: Any) -> Any:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch=128, **settings))


def _copy_settings(config: Any) -> dict[str, float]:
    best = COPY_BEST[config.model.model.split("-")[0], config.model.n_hid]
    return {field: values[COPY_T.index(config.task.T)] for field, values in best.items()}


def paper_copy(config: Any) -> Any:
    """The paper's best settings for the config's T and model: all 60,000 steps.

    Raises:
      InvalidValue: for a T or model that the paper does not have.
    """
    require_choice("model", config.model.model, sorted({model for model, _ in COPY_BEST}))
    sizes = [neurons for model, neurons in COPY_BEST if model == config.model.model]
    require(config.model.n_hid in sizes, "n_hid", config.model.n_hid, f"one of {sizes} for --preset paper")
    require(config.task.T in COPY_T, "T", config.task.T, f"one of {COPY_T} for --preset paper")
    return _train(config, **_copy_settings(config), max_steps=STEPS, stop_below=0.0)


def ablation(row: str) -> Callable[[Any], Any]:
    """A row of Table 4: the best settings of its family for the config's T, all 60,000 steps."""

    def apply(config: Any) -> Any:
        require(config.task.T in ABLATION_T, "T", config.task.T, f"one of {ABLATION_T} for an ablation")
        config = dataclasses.replace(config, model=type(config.model)(**ABLATION[row]))
        return _train(config, **_copy_settings(config), max_steps=STEPS, stop_below=0.0)

    return apply


def paper_adding(config: Any) -> Any:
    """A row of Table 1.

    Raises:
      InvalidValue: for a T or model that the paper does not have.
    """
    require_choice("model", config.model.model, ("wrnn", "irnn"))
    require(config.task.T in ADDING_T, "T", config.task.T, f"one of {ADDING_T} for --preset paper")
    return _train(config, lr=1e-4, grad_clip=1.0, max_steps=STEPS, stop_below=0.0)


def paper_mnist(epochs: Mapping[str, int]) -> Callable[[Any], Any]:
    """A row of Table 2, with epochs by model."""

    def apply(config: Any) -> Any:
        require_choice("model", config.model.model, epochs)
        require(config.task.dataset == "mnist", "dataset", config.task.dataset, "mnist for --preset paper")
        lr = 1e-4 if config.model.model == "irnn" else 1e-3
        schedule = {"schedule": "step", "lr_factor": 10.0, "lr_period": 100.0}
        return _train(config, lr=lr, grad_clip=1.0, epochs=epochs[config.model.model], **schedule)

    return apply


def paper_nscifar10(config: Any) -> Any:
    """A row of Table 3: batch 256."""
    require_choice("model", config.model.model, ("wrnn", "irnn"))
    require(config.task.dataset == "cifar10", "dataset", config.task.dataset, "cifar10 for --preset paper")
    if config.model.model == "irnn":
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, n_hid=529))
    config = _train(config, lr=1e-4, grad_clip=1.0, epochs=EPOCHS, schedule="step", lr_factor=10.0, lr_period=100.0)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch=256))


def _flags(models: tuple[str, ...], lengths: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"--model {model} --T {T}" for model, T in itertools.product(models, lengths))


COPY = {
    "paper": Preset(
        "Fig. 3 and Table 4, the best settings of the appendix for a T and model",
        paper_copy,
        _flags(("wrnn", "irnn", "irnn --n-hid 625"), COPY_T),
    ),
    **{
        f"ablation-{row}": Preset(f"Table 4, {row}", ablation(row), tuple(f"--T {T}" for T in ABLATION_T))
        for row in ABLATION
    },
}
ADDING = {
    "paper": Preset(
        "Table 1 (lr and clip ours, from the paper's grid)", paper_adding, _flags(("wrnn", "irnn"), ADDING_T)
    )
}
_OF_GRID = "(lr, clip and schedule ours, from the paper's grid)"
_MNIST_MODELS = tuple(f"--model {model}" for model in ("wrnn", "wrnn-mlp", "irnn"))
SMNIST = {
    "paper": Preset(
        f"Table 2, sMNIST {_OF_GRID}", paper_mnist({"wrnn": EPOCHS, "wrnn-mlp": EPOCHS, "irnn": EPOCHS}), _MNIST_MODELS
    )
}
PSMNIST = {
    "paper": Preset(
        f"Table 2, psMNIST {_OF_GRID}",
        paper_mnist({"wrnn": EPOCHS, "wrnn-mlp": EPOCHS, "irnn": EPOCHS_IRNN_PSMNIST}),
        _MNIST_MODELS,
    )
}
NSCIFAR10 = {"paper": Preset(f"Table 3, nsCIFAR10 {_OF_GRID}", paper_nscifar10, ("--model wrnn", "--model irnn"))}
