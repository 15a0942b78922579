"""Settings of deep linear waves, and of the delay line beside them: ours, tried on two CPU cores."""

from collections.abc import Callable, Mapping
from functools import partial

from experiments.presets import Preset, Settings
from wrnn_jax.validation import require_choice

SIDES = {"mnist": 28, "digits": 8}
"""Pixels of a row, which is the first block's stride."""
SMALL, FULL = (64, 0.3), (128, 0.5)
"""Channels, and dropout."""


def _training(lr: float, warmup: int, decay: float, batch: int = 64) -> Settings:
    """AdamW, whose rate rises, and then falls as half a cosine."""
    rates = {"batch": batch, "lr": lr, "schedule": "cosine", "warmup": warmup}
    return {**rates, "weight_decay": decay, "weight_decay_kind": "decoupled"}


def _images(channels: int, dropout: float, stride: int, epochs: int) -> Settings:
    network = {"n_ch": channels, "n_layers": 3, "stride": stride, "norm_in": True, "dropout": dropout}
    return {**network, **_training(3e-3, 300, 0.05), "epochs": epochs}


def _of_pixels(size: tuple[int, float], before: Settings) -> Settings:
    require_choice("dataset", before["dataset"], SIDES)
    return _images(*size, SIDES[before["dataset"]], epochs=24)


def _of_rows(size: tuple[int, float], before: Settings) -> Settings:
    return _images(*size, stride=20, epochs=20)


def _of_line(before: Settings) -> Settings:
    return {**_training(2e-3, 300, 0.01), "epochs": 10}


def _of_steps(channels: int, steps: int, before: Settings) -> Settings:
    return {"n_ch": channels, "n_layers": 2, **_training(4e-3, 50, 0.0, batch=32), "max_steps": steps}


def _preset(summary: str, settings: Callable[[Settings], Settings], model: str = "wave-ssm") -> Preset:
    return Preset(summary, settings, ("",), defaults={"model": model})


def _of_images(settings: Callable[[tuple[int, float], Settings], Settings]) -> Mapping[str, Preset]:
    sizes = {"small": SMALL, "full": FULL}
    deep = {
        name: _preset(f"deep linear waves, {size[0]} channels in 3 blocks", partial(settings, size))
        for name, size in sizes.items()
    }
    return {**deep, "delay-line": _preset("the baseline of these: a delay line and an MLP", _of_line, "delay-line")}


PIXELS, ROWS = _of_images(_of_pixels), _of_images(_of_rows)
COPY = {"small": _preset("deep linear waves, 32 channels in 2 blocks", partial(_of_steps, 32, 1500))}
ADDING = {"small": _preset("deep linear waves, 24 channels in 2 blocks", partial(_of_steps, 24, 4000))}
