"""Settings for the published rows of the Wave-RNN (Keller et al. 2024) and of traveling-wave working memory (Karuvally
et al. 2024), and for tasks as they were published of other networks: what ``--preset`` names.

Where the paper does not print the values that its grid came to, they are ours, from its grid; each summary says so. The
grid itself is the preset ``paper-sweep``.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

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
from wrnn_jax.validation import require, require_choice

Settings = Mapping[str, Any]
"""Field of a config -> its value."""
Axes = Mapping[str, tuple]
"""Field of a config -> the values of a grid."""


class Preset(NamedTuple):
    """Settings by name.

    ====================  ==================================================================
    ``summary``           one line on what it is
    ``settings(before)``  -> settings, of those that hold before: defaults, its own ones, and what was given
    ``rows``              the flags that choose among published rows
    ``grid(settled)``     -> a sweep's fields and their values, of all settings; None: a single run
    ``defaults``          settings in place of the experiment's; a ``model`` among them is the only one it is for
    ====================  ==================================================================

    ``settings`` raises ``InvalidValue`` for what is not published.
    """

    summary: str
    settings: Callable[[Settings], Settings]
    rows: tuple[str, ...]
    grid: Callable[[Settings], Axes] | None = None
    defaults: Settings = MappingProxyType({})


ABLATION = {
    "wrnn": {"model": "wrnn"},
    "wrnn-no-v": {"model": "wrnn", "encoder_init": "dense"},
    "wrnn-no-shift": {"model": "wrnn", "init": "random"},
    "wrnn-no-v-no-shift": {"model": "wrnn", "encoder_init": "dense", "init": "random"},
    "irnn": {"model": "irnn"},
    "irnn-shift": {"model": "irnn-shift"},
    "irnn-shift-v": {"model": "irnn-shift-sparse"},
}
"""The rows of Table 4, as settings of the model."""
ABLATION_N_HID = 100
STEP_SCHEDULE = {"schedule": "step", "lr_factor": 10.0, "lr_period": 100.0}


def _trained_on_copy(model: str, n_hid: int, place: int) -> Settings:
    """The best settings of the appendix for the T at that place of its list, and the paper's training, on whose scale
    its clips are: it divides the loss by the batch."""
    best = {field: values[place] for field, values in COPY_BEST[model, n_hid].items()}
    return {"batch": 128, "loss_divisor": float(COPY_BATCH), "max_steps": STEPS, "stop_below": 0.0, **best}


def paper_copy(before: Settings) -> Settings:
    """The paper's best settings for a T and model: all 60,000 steps."""
    _require_published_size(before)
    T = before["T"]
    require(T in COPY_T, "T", T, f"one of {COPY_T}, as in the paper")
    return _trained_on_copy(before["model"], before["n_hid"], COPY_T.index(T))


def authors_copy(before: Settings) -> Settings:
    """The same as the authors' program has it: its batch, and the lengths of its sweep."""
    _require_published_size(before)
    T = before["T"]
    require(T in AUTHORS_COPY_T, "T", T, f"one of {AUTHORS_COPY_T}: the authors' sweep, which the paper calls {COPY_T}")
    return _trained_on_copy(before["model"], before["n_hid"], AUTHORS_COPY_T.index(T))


def _require_published_size(before: Settings) -> None:
    require_choice("model", before["model"], sorted({model for model, _ in COPY_BEST}))
    sizes = [neurons for model, neurons in COPY_BEST if model == before["model"]]
    require(before["n_hid"] in sizes, "n_hid", before["n_hid"], f"one of {sizes}, as in the paper")


def ablation(before: Settings) -> Settings:
    """A row of Table 4: the best settings of its family for a T, all 60,000 steps."""
    T = before["T"]
    require(T in ABLATION_T, "T", T, f"one of {ABLATION_T} for an ablation")
    return _trained_on_copy(before["model"].split("-")[0], ABLATION_N_HID, COPY_T.index(T))


def paper_adding(before: Settings) -> Settings:
    """A row of Table 1."""
    require_choice("model", before["model"], ("wrnn", "irnn"))
    require(before["T"] in ADDING_T, "T", before["T"], f"one of {ADDING_T}, as in the paper")
    return {"batch": 128, "lr": 1e-4, "grad_clip": 1.0, "max_steps": STEPS, "stop_below": 0.0}


def paper_mnist(epochs: Mapping[str, int], before: Settings) -> Settings:
    """A row of Table 2, with epochs by model."""
    model = before["model"]
    require_choice("model", model, epochs)
    require(before["dataset"] == "mnist", "dataset", before["dataset"], "mnist, as in the paper")
    lr = 1e-4 if model == "irnn" else 1e-3
    return {**_start(before), **STEP_SCHEDULE, "batch": 128, "lr": lr, "grad_clip": 1.0, "epochs": epochs[model]}


def paper_nscifar10(before: Settings) -> Settings:
    """A row of Table 3: batch 256."""
    require_choice("model", before["model"], ("wrnn", "irnn"))
    require(before["dataset"] == "cifar10", "dataset", before["dataset"], "cifar10, as in the paper")
    own = {"n_hid": 529, "epochs": EPOCHS_IRNN["nscifar10"]} if before["model"] == "irnn" else {"epochs": EPOCHS}
    return {**_start(before), **STEP_SCHEDULE, "batch": 256, "lr": 1e-4, "grad_clip": 1.0, **own}


def _start(before: Settings) -> Settings:
    """Of the iRNN of the image tasks: the start of its encoder, V and b_V, in the authors' program."""
    if before["model"] != "irnn":
        return {}
    return {"encoder_init": "uniform", "bias_init": "random" if before["use_bias"] else "zeros"}


def _flags(models: tuple[str, ...], lengths: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"--model {model} --T {T}" for model, T in itertools.product(models, lengths))


def _with_sweep(
    presets: dict[str, Preset], grid: Callable[[Settings], Mapping[str, tuple]], axes: str
) -> dict[str, Preset]:
    """The grid as well that the settings of the rows were searched in; what it does not search is as in the rows."""
    sweeps = {}
    for name, preset in presets.items():
        if name in ("paper", "authors"):
            rows = tuple(row for row in preset.rows if "--n-hid" not in row)  # Sizes are searched.
            summary = f"the paper's grid for each row: {axes}"
            sweeps[f"{name}-sweep"] = preset._replace(summary=summary, rows=rows, grid=grid)
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
            defaults={"T": AUTHORS_COPY_T[-1], "variant": "authors"},
        ),
        **{
            f"ablation-{row}": Preset(
                f"Table 4, {row}", ablation, tuple(f"--T {T}" for T in ABLATION_T), defaults=settings
            )
            for row, settings in ABLATION.items()
        },
    },
    lambda settled: COPY_GRID[settled["model"]],
    "3 lr x 3 clip; of the irnn also 2 init x 2 act x 2 n-hid",
)
ADDING = _with_sweep(
    {
        "paper": Preset(
            "Table 1 (lr and clip ours, from the paper's grid)", paper_adding, _flags(("wrnn", "irnn"), ADDING_T)
        )
    },
    lambda settled: ADDING_GRID,
    "3 lr x 5 clip",
)


def gu_and_dao(before: Settings) -> Settings:
    """The selective copy task of Gu and Dao 2023, appendix E.1: the networks there have two layers."""
    training = {"batch": 64, "lr": 1e-4, "max_steps": 400_000, "stop_below": 0.0}
    return {"T": 4096, "tokens": 16, "vocabulary": 16, "n_layers": 2, **training}


SELECTIVE = {"mamba": Preset("Gu and Dao 2023, appendix E.1 (n-hid, norm and clip ours)", gu_and_dao, ("",))}


def fu_et_al(before: Settings) -> Settings:
    """Associative recall of Fu et al. 2023: two layers, 200 epochs of 5,000 sequences in batches of 32.

    The rest as in their program: AdamW, a warm-up over a tenth of the steps. Its rate falls linearly afterwards, ours
    as half a cosine; and it goes through the same 5,000 sequences again and again, where ours are fresh ones.
    """
    steps = 200 * math.ceil(5_000 / 32)
    decay = {"weight_decay": 0.1, "weight_decay_kind": "decoupled", "schedule": "cosine", "warmup": steps // 10}
    training = {"batch": 32, "lr": 5e-4, "max_steps": steps, "stop_below": 0.0, **decay}
    return {"variant": "single", "pairs": 10, "keys": 4, "values": 4, "n_layers": 2, **training}


ZOOLOGY = {64: (4, 512), 128: (8, 512), 256: (16, 256), 512: (64, 128)}
"""Steps -> pairs and batch of Arora et al. 2024, Fig. 2."""


def arora_et_al(before: Settings) -> Settings:
    """Multi-query recall of Arora et al. 2024, Fig. 2: four layers, AdamW, at most 64 epochs of 100,000 sequences,
    where ours are fresh ones. Of the four learning rates that they tried this is the second."""
    T = before["T"]
    require(T in ZOOLOGY, "T", T, f"one of {tuple(ZOOLOGY)}, as in the paper")
    pairs, batch = ZOOLOGY[T]
    training = {"batch": batch, "lr": 4.6e-4, "max_steps": 64 * math.ceil(100_000 / batch), "schedule": "cosine"}
    decay = {"weight_decay": 0.1, "weight_decay_kind": "decoupled"}
    return {"variant": "multi", "pairs": pairs, "keys": 4095, "values": 4096, "n_layers": 4, **training, **decay}


RECALL = {
    "h3": Preset("Fu et al. 2023, section 3.1 (n-hid, norm and clip ours)", fu_et_al, ("",)),
    "zoology": Preset(
        "Arora et al. 2024, Fig. 2, for a length (n-hid, norm and clip ours)",
        arora_et_al,
        tuple(f"--T {T}" for T in ZOOLOGY),
        defaults={"variant": "multi", "T": 64},
    ),
}


def _images(summary: str, settings: Callable[[Settings], Settings], models: tuple[str, ...]) -> dict[str, Preset]:
    summary = f"{summary} (lr, clip and schedule ours, from the paper's grid)"
    rows = tuple(f"--model {model}" for model in models)
    axes = "3 lr x 5 clip x 2 lr-factor x 2 lr-period"
    return _with_sweep({"paper": Preset(summary, settings, rows)}, lambda settled: IMAGES_GRID, axes)


_MNIST_MODELS = ("wrnn", "wrnn-mlp", "irnn")


def _mnist(task: str, epochs: Mapping[str, int]) -> dict[str, Preset]:
    """Table 2, and the networks of several sizes of Fig. 7, each as those of the table."""
    settings = partial(paper_mnist, epochs)

    def sized(before: Settings) -> Settings:
        require_choice("model", before["model"], SIZES)
        return settings(before)

    rows = tuple(f"--model {model}" for model in SIZES)
    summary = f"Fig. 7, {task} against size: a grid of n-hid (most sizes ours; else as in Table 2)"
    sizes = Preset(summary, sized, rows, lambda settled: {"n_hid": SIZES[settled["model"]]})
    return {**_images(f"Table 2, {task}", settings, _MNIST_MODELS), "sizes": sizes}


SMNIST = _mnist("sMNIST", dict.fromkeys(_MNIST_MODELS, EPOCHS))
PSMNIST = _mnist("psMNIST", {**dict.fromkeys(_MNIST_MODELS, EPOCHS), "irnn": EPOCHS_IRNN["psmnist"]})
NSCIFAR10 = _images("Table 3, nsCIFAR10", paper_nscifar10, ("wrnn", "irnn"))

HDS_TASKS = tuple(BINDING_TABLE_1)
HDS_HIDDEN, HDS_L2 = (tuple(dict.fromkeys(values)) for values in zip(*BINDING_SIZES, strict=True))


def paper_hds(before: Settings) -> Settings:
    """A cell of the second paper's Table 1.

    All that is trained is what the experiment has by default. The curriculum, batch, clip and Adam are the paper's;
    ours are an orthogonal start of the recurrence, where nothing decays, and a cosine schedule from a higher learning
    rate, whose end brings the eigenvalues to rest.
    """
    require_choice("task", before["task"], HDS_TASKS)
    require(before["model"] == "srnn", "model", before["model"], "srnn, as in the paper's Table 1")
    for field, published in (("n_hid", HDS_HIDDEN), ("weight_decay", HDS_L2)):
        require(before[field] in published, field, before[field], f"one of {published}, as in the paper")
    return {"stop_below": 0.0, "log_interval": 200}


def authors_hds(before: Settings) -> Settings:
    """A cell of that table as the authors' program trains it: recurrence, encoder and readout start as its framework's
    layers do, the learning rate is constant, steps are 20,000 at most; a sweep has 20 seeds of two curricula each."""
    start = {"init": "random", "encoder_init": "uniform"}
    train = {"lr": 1e-3, "schedule": "constant", "max_steps": BINDING_STEPS, "seeds": BINDING_SEEDS}
    return {**paper_hds(before), **start, **train}


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
        lambda settled: _HDS_GRID,
    ),
    "authors": Preset(
        "Table 1 as the authors' program trains it: start, constant lr, 20,000 steps; 20 seeds (--seeds) of 2 mastery",
        authors_hds,
        _HDS_ROWS,
        lambda settled: {"mastery": BINDING_MASTERY},
    ),
    "authors-sweep": Preset(
        "that whole table in one process: 4 task x 2 n-hid x 3 weight-decay x 2 mastery x 20 seeds",
        authors_hds,
        ("--yes",),
        lambda settled: {**_HDS_GRID, "mastery": BINDING_MASTERY},
    ),
}
