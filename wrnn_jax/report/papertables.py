"""The papers' tables as this report rebuilds them: which lines they have, and which runs a line wants."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from wrnn_jax.report import published
from wrnn_jax.report.metrics import ACCURACY, ANGLE, LOSS, MSE, NONE, PARAMS, RECALL, RIGHT_SIGNS, SOLVED, Metric
from wrnn_jax.report.published import MEMORY_PAPER, PAPER


class Line(NamedTuple):
    """A line of a table."""

    name: str
    """Its first cell."""
    wants: Mapping[str, Any] | None
    """As in :func:`wrnn_jax.report.groups.misfits`; None: the paper quotes it from others."""
    published: Mapping[str, Any]
    """Metric's key -> what the paper says."""
    facts: tuple[str, ...] = ()
    """Further cells."""
    figure: str = ""
    """Which of the table's figures its curve is in, such as "T = 30"; if all say nothing, there is one figure."""
    label: str = ""
    """Its curve's name there; if there is none, its own."""
    full: int = published.STEPS
    """Steps or epochs of the paper's run."""


class PaperTable(NamedTuple):
    """A table, or the part of one that is about one task."""

    slug: str
    title: str
    caption: str
    experiment: str
    facts: tuple[str, ...]
    """Headers of the lines' further cells."""
    metrics: tuple[Metric, ...]
    """The first is the one that a run must have."""
    lines: tuple[Line, ...]
    names: str = "model"
    """Header of the lines' first cells."""
    scope: Mapping[str, Sequence[Any]] = MappingProxyType({})
    """Key of the summary or config -> its values among the experiment's runs that the table is about."""
    length: str = "steps"
    """The summary's key for how long a run was: ``steps`` or ``epochs_done``; or, where runs end as soon as they
    succeed, for how long it might have been: ``max_steps``."""
    notes: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    """Settings that stand with the learning rate and the clip."""
    over: tuple[str, ...] = ()
    """Settings of which the paper shows the better, seed by seed; so do we."""
    more: tuple[str, ...] = ()
    """Keys of the summary, besides the metrics', that the list of its runs tells."""

    @property
    def is_published(self) -> bool:
        """Whether the paper says anything of it."""
        return any(line.published for line in self.lines)

    def holds(self, known: Mapping[str, Any]) -> bool:
        """Whether a run with these settings is of this table, in a line of it or not."""
        in_scope = all(known.get(key) in values for key, values in self.scope.items())
        return known["experiment"] == self.experiment and in_scope


WRNN = {"model": "wrnn", "ksize": 3, "act": "relu", "init": "shift", "encoder_init": "sparse"}
IRNN = {"model": "irnn", "n_ch": 1, "act": "relu", "init": "identity", "encoder_init": "dense"}
WAVE = {**WRNN, "n_hid": 100, "n_ch": 6}
ELMAN = {**IRNN, "n_hid": 100, "model": ("irnn", "irnn-shift", "irnn-shift-sparse", "srnn")}
"""Any of the family, by whatever name: what it starts from decides which line it is."""


def _adding() -> PaperTable:
    sizes = {"wRNN": {**WRNN, "n_hid": 100, "n_ch": 27}, "iRNN": {**IRNN, "n_hid": 100}}
    lines = [
        Line(
            model,
            {**sizes[model], "experiment": "adding", "T": T, "solved_step": ...},
            {"test_mse": row.mse[at], "solved_step": row.solved[at]},
            (str(T),),
            figure=f"T = {T}",
        )
        for model, row in published.TABLE_1.items()
        for at, T in enumerate(published.ADDING_T)
    ]
    return PaperTable(
        "adding",
        "Wave-RNN, Table 1: adding",
        f"The sum of two marked numbers among T. wRNN: n = 100, c = 27; iRNN: n = 100. Source: {PAPER}, Table 1.",
        "adding",
        ("T",),
        (MSE, SOLVED),
        tuple(lines),
        scope={"T": published.ADDING_T},
        notes=("Solved: the first evaluation with a test MSE of 0.05 or less. Always answering 1 scores 1/6 ≈ 0.167.",),
    )


def _images(
    task: str, title: str, source: str, rows: Sequence[published.Classifier], wants: Mapping, note: str
) -> PaperTable:
    lines = [
        Line(
            row.name,
            {**wants[row.name], "experiment": task} if row.name in wants else None,
            {"test_acc": row.accuracy[task], "params": row.params},
            (f"{row.units:,}" if row.units else NONE,),
            full=published.EPOCHS_IRNN.get(task, published.EPOCHS) if row.name == "iRNN" else published.EPOCHS,
        )
        for row in rows
    ]
    caption = f"Test accuracy at the epoch of the best validation accuracy. Source: {PAPER}, {source}."
    return PaperTable(
        task, title, caption, task, ("units",), (ACCURACY, PARAMS), tuple(lines), length="epochs_done", notes=(note,)
    )


def _sizes(task: str) -> PaperTable:
    names = {"wrnn": "wRNN (16c)", "irnn": "iRNN"}
    printed = {row.name: row for row in published.TABLE_2}
    lines = [
        Line(
            names[model],
            {**_MNIST[names[model]], "experiment": task, "n_hid": neurons},
            {"test_acc": row.accuracy[task], "params": row.params} if neurons == row.units else {},
            (str(neurons),),
            figure=names[model],
            label=f"n = {neurons}",
            full=published.EPOCHS_IRNN.get(task, published.EPOCHS) if model == "irnn" else published.EPOCHS,
        )
        for model, sizes in published.SIZES.items()
        for row in [printed[names[model]]]
        for neurons in sizes
    ]
    return PaperTable(
        f"{task}-sizes",
        f"Wave-RNN, Fig. 7: accuracy against size, {published.written(task)}",
        f"Test accuracy at the epoch of the best validation accuracy. Source: {PAPER}, Fig. 7; numbers from Table 2.",
        task,
        ("n",),
        (ACCURACY, PARAMS),
        tuple(lines),
        scope={"dataset": ("mnist",), "model": tuple(published.SIZES)},
        length="epochs_done",
        notes=(published.SIZES_NOTE,),
    )


def _ablation() -> PaperTable:
    starts = {
        "wRNN": {**WAVE},
        "wRNN − V-init": {**WAVE, "encoder_init": "dense"},
        "wRNN − u-shift": {**WAVE, "init": "random"},
        "wRNN − V-init − u-shift": {**WAVE, "init": "random", "encoder_init": "dense"},
        "iRNN": {**ELMAN},
        "iRNN + Σ-init": {**ELMAN, "init": "shift"},
        "iRNN + Σ-init + V-init": {**ELMAN, "init": "shift", "encoder_init": "sparse"},
    }
    best = {"wRNN": ("wrnn", 100), "iRNN": ("irnn", 100)}
    lines = [
        Line(
            model,
            {**starts[model], "experiment": "copy", "T": T},
            {"authors_loss": losses[at]},
            (str(T), _best_setting(best.get(model), T)),
            figure=f"T = {T}",
        )
        for model, losses in published.TABLE_4.items()
        for at, T in enumerate(published.ABLATION_T)
    ]
    return PaperTable(
        "copy-ablation",
        "Wave-RNN, Table 4: ablation on copy",
        f"Copy task after T steps of nothing; n = 100, c = 6 for the wRNN. Source: {PAPER}, Table 4.",
        "copy",
        ("T", "paper's setting"),
        (LOSS,),
        tuple(lines),
        scope={"T": published.ABLATION_T},
        notes=(published.TABLE_4_NOTE,),
    )


def _copy_480() -> PaperTable:
    T = published.COPY_T[-1]
    rows = {
        "wRNN, n = 100, c = 6": (WAVE, ("wrnn", 100), {"recall": published.COPY_480_RECALL}),
        "iRNN, n = 100": ({**IRNN, "n_hid": 100}, ("irnn", 100), {}),
        "iRNN, n = 625": ({**IRNN, "n_hid": 625}, ("irnn", 625), {}),
    }
    lines = [
        Line(model, {**wants, "experiment": "copy", "T": T}, paper, (_best_setting(best, T),))
        for model, (wants, best, paper) in rows.items()
    ]
    return PaperTable(
        "copy-480",
        "Wave-RNN, copy at T = 480 (Figs. 3 and 4)",
        f"The longest copy task: 500 steps. Source: {PAPER}, Figs. 3 and 4; settings from the appendix.",
        "copy",
        ("paper's setting",),
        (LOSS, RECALL),
        tuple(lines),
        scope={"T": (T,)},
        notes=("The paper shows losses at this length as curves alone (Fig. 3), and a perfect recall (Fig. 4).",),
    )


def _binding() -> PaperTable:
    horizon = published.BINDING_HORIZON
    elman = {"model": "srnn", "act": "tanh", "use_bias": False, "d": 8, "s": 8, "horizon": horizon}
    lines = [
        Line(
            task,
            {**elman, "experiment": "hds", "task": task, "n_hid": hidden, "weight_decay": penalty},
            {"test_acc": cell.accuracy, "angle_error": cell.angle_error},
            (str(hidden), f"{penalty:g}"),
            figure=task,
            label=f"{hidden} hidden, L2 {penalty:g}",
            full=published.BINDING_STEPS,
        )
        for task, row in published.BINDING_TABLE_1.items()
        for (hidden, penalty), cell in zip(published.BINDING_SIZES, row, strict=True)
    ]
    return PaperTable(
        "hds",
        "Traveling-wave working memory, Table 1",
        "Linear variable binding: 8 vectors of 8 signs are shown; T1 repeats them, T2 to T4 select, permute and negate "
        f"8 of the 64. Elman RNN, tanh, no biases. Source: {MEMORY_PAPER}, Table 1.",
        "hds",
        ("hidden", "L2"),
        (RIGHT_SIGNS._replace(label=f"accuracy at horizon {horizon} (%)"), ANGLE),
        tuple(lines),
        names="task",
        scope={"task": tuple(published.BINDING_TABLE_1), "model": ("srnn",)},
        length="max_steps",
        notes=published.BINDING_NOTES,
        told=("schedule", "init", "encoder_init"),
        over=("mastery",),
        more=("eigenvalues_kept", "eigenvalues_theory", "spectral_radius"),
    )


def _best_setting(row: tuple[str, int] | None, T: int) -> str:
    if row is None:
        return NONE
    at = published.COPY_T.index(T)
    best = published.COPY_BEST[row]
    return setting(best["lr"][at], best["grad_clip"][at], published.COPY_BATCH)


def setting(lr: float | None, clip: float | None, loss_divisor: float | None = None) -> str:
    """Learning rate, clip, and what the loss is divided by, in words."""
    words = ["lr unknown" if lr is None else f"lr {lr:g}"]
    if clip is not None:
        words.append(f"clip {clip:g}" if clip else "no clip")
    if loss_divisor is not None:
        words.append(f"loss / {loss_divisor:g}")
    return ", ".join(words)


_ENCODER = {"encoder_init": ("uniform", "dense")}
"""The authors' start for images, or ours."""
_MNIST = {
    "wRNN (16c)": {**WRNN, "n_hid": 256, "n_ch": 16, "dataset": "mnist"},
    "wRNN + MLP": {**WRNN, "model": "wrnn-mlp", "n_hid": 256, "n_ch": 16, "dataset": "mnist"},
    "iRNN": {**IRNN, **_ENCODER, "n_hid": 256, "dataset": "mnist"},
}
_CIFAR10 = {
    "wRNN (16c)": {**WRNN, "n_hid": 256, "n_ch": 16, "dataset": "cifar10", "T": 1000},
    "iRNN": {**IRNN, **_ENCODER, "n_hid": 529, "dataset": "cifar10", "T": 1000},
}
_PIXELS = "784 pixels one at a time; wRNN: n = 256, c = 16; iRNN: n = 256."
_ROWS = "32 rows, then 968 steps of noise; wRNN: n = 256, c = 16; iRNN: n = 529."

PAPER_TABLES = (
    _adding(),
    _images("smnist", "Wave-RNN, Table 2, left: sequential MNIST", "Table 2", published.TABLE_2, _MNIST, _PIXELS),
    _images(
        "psmnist", "Wave-RNN, Table 2, right: permuted sequential MNIST", "Table 2", published.TABLE_2, _MNIST, _PIXELS
    ),
    _sizes("smnist"),
    _sizes("psmnist"),
    _images("nscifar10", "Wave-RNN, Table 3: noisy sequential CIFAR-10", "Table 3", published.TABLE_3, _CIFAR10, _ROWS),
    _ablation(),
    _copy_480(),
    _binding(),
)
