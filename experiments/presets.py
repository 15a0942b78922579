"""Settings for the published rows of the Wave-RNN (Keller et al. 2024) and of traveling-wave working memory (Karuvally
et al. 2024): what ``--preset`` names.

Where the paper does not print the values that its grid came to, they are ours, from its grid; each summary says so. The
grid itself is the preset ``paper-sweep``.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from wrnn_jax.models import configure
from wrnn_jax.report.published import (
    ABLATION_T,
    ADDING_GRID,
    ADDING_T,
    AUTHORS_COPY_T,
    BINDING_MASTERY,
    BINDING_SEEDS,
    BINDING_SIZES,
    BINDING_STEPS,
    BINDING_TABLE_1,
    COPY_BATCH,
    COPY_BEST,
    COPY_GRID,
    COPY_T,
    EPOCHS,
    EPOCHS_IRNN,
    IMAGES_GRID,
    SIZES,
    STEPS,
)
from wrnn_jax.tasks import CopyConfig
from wrnn_jax.validation import require, require_choice


class Preset(NamedTuple):
    """Settings by name.

    ====================  ==================================================================
    ``summary``           one line on what it is
    ``apply(config)``     -> the config with the settings for its T and model
    ``rows``              the flags that choose among published rows
    ``grid(config)``      -> a sweep's fields and their values, for the config's model; None: a single run
    ====================  ==================================================================
    """

    summary: str
    apply: Callable[[Any], Any]
    rows: tuple[str, ...]
    grid: Callable[[Any], Mapping[str, tuple]] | None = None


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


def _copy_settings(config: Any, lengths: tuple[int, ...] = COPY_T) -> dict[str, float]:
    best = COPY_BEST[config.model.model.split("-")[0], config.model.n_hid]
    return {field: values[lengths.index(config.task.T)] for field, values in best.items()}


def _train_copy(config: Any, **settings: Any) -> Any:
    """The paper's training on the copy task, on whose scale its clips are: it divides the loss by the batch."""
    return _train(config, loss_divisor=float(COPY_BATCH), max_steps=STEPS, stop_below=0.0, **settings)


def paper_copy(config: Any) -> Any:
    """The paper's best settings for the config's T and model: all 60,000 steps.

    Raises:
      InvalidValue: for a T or model that the paper does not have.
    """
    _require_published_size(config)
    require(config.task.T in COPY_T, "T", config.task.T, f"one of {COPY_T}, as in the paper")
    return _train_copy(config, **_copy_settings(config))


def authors_copy(config: Any) -> Any:
    """The same as the authors' program has it: its batch, and the lengths of its sweep; T = 490 if none is given.

    Raises:
      InvalidValue: for a T or model that their sweep does not have.
    """
    _require_published_size(config)
    T = AUTHORS_COPY_T[-1] if config.task.T == CopyConfig.T else config.task.T
    require(T in AUTHORS_COPY_T, "T", T, f"one of {AUTHORS_COPY_T}: the authors' sweep, which the paper calls {COPY_T}")
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, T=T, variant="authors"))
    return _train_copy(config, **_copy_settings(config, AUTHORS_COPY_T))


def _require_published_size(config: Any) -> None:
    require_choice("model", config.model.model, sorted({model for model, _ in COPY_BEST}))
    sizes = [neurons for model, neurons in COPY_BEST if model == config.model.model]
    require(config.model.n_hid in sizes, "n_hid", config.model.n_hid, f"one of {sizes}, as in the paper")


def ablation(row: str) -> Callable[[Any], Any]:
    """A row of Table 4: the best settings of its family for the config's T, all 60,000 steps."""

    def apply(config: Any) -> Any:
        require(config.task.T in ABLATION_T, "T", config.task.T, f"one of {ABLATION_T} for an ablation")
        config = dataclasses.replace(config, model=configure(**ABLATION[row]))
        return _train_copy(config, **_copy_settings(config))

    return apply


def paper_adding(config: Any) -> Any:
    """A row of Table 1.

    Raises:
      InvalidValue: for a T or model that the paper does not have.
    """
    require_choice("model", config.model.model, ("wrnn", "irnn"))
    require(config.task.T in ADDING_T, "T", config.task.T, f"one of {ADDING_T}, as in the paper")
    return _train(config, lr=1e-4, grad_clip=1.0, max_steps=STEPS, stop_below=0.0)


def paper_mnist(epochs: Mapping[str, int]) -> Callable[[Any], Any]:
    """A row of Table 2, with epochs by model."""

    def apply(config: Any) -> Any:
        require_choice("model", config.model.model, epochs)
        require(config.task.dataset == "mnist", "dataset", config.task.dataset, "mnist, as in the paper")
        lr = 1e-4 if config.model.model == "irnn" else 1e-3
        schedule = {"schedule": "step", "lr_factor": 10.0, "lr_period": 100.0}
        return _train(_started(config), lr=lr, grad_clip=1.0, epochs=epochs[config.model.model], **schedule)

    return apply


def paper_nscifar10(config: Any) -> Any:
    """A row of Table 3: batch 256."""
    require_choice("model", config.model.model, ("wrnn", "irnn"))
    require(config.task.dataset == "cifar10", "dataset", config.task.dataset, "cifar10, as in the paper")
    config, epochs = _started(config), EPOCHS
    if config.model.model == "irnn":
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, n_hid=529))
        epochs = EPOCHS_IRNN["nscifar10"]
    config = _train(config, lr=1e-4, grad_clip=1.0, epochs=epochs, schedule="step", lr_factor=10.0, lr_period=100.0)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch=256))


def _started(config: Any) -> Any:
    """The iRNN of the image tasks with the start of its encoder, V and b_V, in the authors' program."""
    if config.model.model != "irnn":
        return config
    bias_init = "random" if config.model.use_bias else "zeros"
    start = dataclasses.replace(config.model, encoder_init="uniform", bias_init=bias_init)
    return dataclasses.replace(config, model=start)


def _flags(models: tuple[str, ...], lengths: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"--model {model} --T {T}" for model, T in itertools.product(models, lengths))


def _with_sweep(presets: dict[str, Preset], grid: Callable[[Any], Mapping[str, tuple]], axes: str) -> dict[str, Preset]:
    """The grid as well that the settings of the rows were searched in; what it does not search is as in the rows."""
    sweeps = {}
    for name, preset in presets.items():
        if name in ("paper", "authors"):
            rows = tuple(row for row in preset.rows if "--n-hid" not in row)  # Sizes are searched.
            sweeps[f"{name}-sweep"] = Preset(f"the paper's grid for each row: {axes}", preset.apply, rows, grid)
    return {**presets, **sweeps}


_COPY_MODELS = ("wrnn", "irnn", "irnn --n-hid 625")
COPY = _with_sweep(
    {
        "paper": Preset(
            "Fig. 3 and Table 4, the best settings of the appendix for a T and model",
            paper_copy,
            _flags(_COPY_MODELS, COPY_T),
        ),
        "authors": Preset(
            "these as the authors' program has them: its batch, and ten idle steps more for the last three T",
            authors_copy,
            _flags(_COPY_MODELS, AUTHORS_COPY_T),
        ),
        **{
            f"ablation-{row}": Preset(f"Table 4, {row}", ablation(row), tuple(f"--T {T}" for T in ABLATION_T))
            for row in ABLATION
        },
    },
    lambda config: COPY_GRID[config.model.model],
    "3 lr x 3 clip; of the irnn also 2 init x 2 act x 2 n-hid",
)
ADDING = _with_sweep(
    {
        "paper": Preset(
            "Table 1 (lr and clip ours, from the paper's grid)", paper_adding, _flags(("wrnn", "irnn"), ADDING_T)
        )
    },
    lambda config: ADDING_GRID,
    "3 lr x 5 clip",
)


def _images(summary: str, apply: Callable[[Any], Any], models: tuple[str, ...]) -> dict[str, Preset]:
    summary = f"{summary} (lr, clip and schedule ours, from the paper's grid)"
    rows = tuple(f"--model {model}" for model in models)
    axes = "3 lr x 5 clip x 2 lr-factor x 2 lr-period"
    return _with_sweep({"paper": Preset(summary, apply, rows)}, lambda config: IMAGES_GRID, axes)


_MNIST_MODELS = ("wrnn", "wrnn-mlp", "irnn")


def _mnist(task: str, epochs: Mapping[str, int]) -> dict[str, Preset]:
    """Table 2, and the networks of several sizes of Fig. 7, each as those of the table."""
    apply = paper_mnist(epochs)

    def sized(config: Any) -> Any:
        require_choice("model", config.model.model, SIZES)
        return apply(config)

    rows = tuple(f"--model {model}" for model in SIZES)
    summary = f"Fig. 7, {task} against size: a grid of n-hid (most sizes ours; else as in Table 2)"
    sizes = Preset(summary, sized, rows, lambda config: {"n_hid": SIZES[config.model.model]})
    return {**_images(f"Table 2, {task}", apply, _MNIST_MODELS), "sizes": sizes}


SMNIST = _mnist("sMNIST", dict.fromkeys(_MNIST_MODELS, EPOCHS))
PSMNIST = _mnist("psMNIST", {**dict.fromkeys(_MNIST_MODELS, EPOCHS), "irnn": EPOCHS_IRNN["psmnist"]})
NSCIFAR10 = _images("Table 3, nsCIFAR10", paper_nscifar10, ("wrnn", "irnn"))

HDS_TASKS = tuple(BINDING_TABLE_1)
HDS_HIDDEN, HDS_L2 = (tuple(dict.fromkeys(values)) for values in zip(*BINDING_SIZES, strict=True))


def paper_hds(config: Any) -> Any:
    """A cell of the second paper's Table 1.

    All that is trained is what the experiment has by default. The curriculum, batch, clip and Adam are the paper's;
    ours are an orthogonal start of the recurrence, where nothing decays, and a cosine schedule from a higher learning
    rate, whose end brings the eigenvalues to rest.

    Raises:
      InvalidValue: for a task or model that the paper's table does not have.
    """
    require_choice("task", config.task.task, HDS_TASKS)
    require(config.model.model == "srnn", "model", config.model.model, "srnn, as in the paper's Table 1")
    require(config.model.n_hid in HDS_HIDDEN, "n_hid", config.model.n_hid, f"one of {HDS_HIDDEN}, as in the paper")
    decay = config.train.weight_decay
    require(decay in HDS_L2, "weight_decay", decay, f"one of {HDS_L2}, as in the paper")
    return dataclasses.replace(config, train=dataclasses.replace(config.train, stop_below=0.0, log_interval=200))


def authors_hds(config: Any) -> Any:
    """A cell of that table as the authors' program trains it: recurrence, encoder and readout start as its framework's
    layers do, the learning rate is constant, steps are 20,000 at most; a sweep has 20 seeds of each of two curricula.

    Raises:
      InvalidValue: for a task or model that the paper's table does not have.
    """
    config = paper_hds(config)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, init="random", encoder_init="uniform"),
        train=dataclasses.replace(config.train, lr=1e-3, schedule="constant", max_steps=BINDING_STEPS),
        run=dataclasses.replace(config.run, seeds=BINDING_SEEDS),
    )


_HDS_ROWS = tuple(
    f"--task {task} --n-hid {neurons} --weight-decay {decay:g}"
    for task, neurons, decay in itertools.product(HDS_TASKS, HDS_HIDDEN, HDS_L2)
)
_HDS_GRID = {"task": HDS_TASKS, "n_hid": HDS_HIDDEN, "weight_decay": HDS_L2}
HDS = {
    "paper": Preset("Table 1 of Karuvally et al. 2024 (start and schedule ours)", paper_hds, _HDS_ROWS),
    "paper-sweep": Preset(
        "that whole table in one process: 4 task x 2 n-hid x 3 weight-decay; beside it --seeds 3",
        paper_hds,
        ("",),
        lambda config: _HDS_GRID,
    ),
    "authors": Preset(
        "Table 1 as the authors' program trains it: start, constant lr, 20,000 steps; 20 seeds (--seeds) of 2 mastery",
        authors_hds,
        _HDS_ROWS,
        lambda config: {"mastery": BINDING_MASTERY},
    ),
    "authors-sweep": Preset(
        "that whole table in one process: 4 task x 2 n-hid x 3 weight-decay x 2 mastery x 20 seeds",
        authors_hds,
        ("--yes",),
        lambda config: {**_HDS_GRID, "mastery": BINDING_MASTERY},
    ),
}
