"""From a run's folder back to its model."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from advprop import __version__
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.config.overrides import read_config
from advprop.config.run import RunConfig
from advprop.data.sources import ImageData
from advprop.exporting import write_export
from advprop.models.standardize import Standardized
from advprop.training.checkpoint import Checkpoints, load_weights, read_checkpoint

Weights = Literal["last", "best", "ema"]
CONFIG, RESULT, METRICS = "config.json", "result.json", "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished (or at least begun) run: its configuration, and its model in eval mode.

    `model` has its auxiliary branches, if its method uses any; `weights` says which of the saved
    ones it carries. `result` is what `result.json` holds, empty for an unfinished run.
    """

    folder: Path
    config: RunConfig
    model: Standardized
    weights: Weights
    result: dict[str, Any]

    def load_data(self) -> ImageData:
        """The data the run was trained on."""
        return self.config.data.load(self.config.seed)


def load_run(folder: str | Path, *, weights: Weights | None = None) -> Run:
    """The run in `folder` with its model on the CPU.

    `weights` are those of the "last" step, the "best" on clean validation images, or the average
    ("ema"); by default the average where one is kept, else the last. Raises ValueError or OSError
    where the folder holds no run, or not these weights.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder}: no run here ({CONFIG} is missing)")
    config = read_config(folder / CONFIG)
    chosen: Weights = weights or ("last" if config.training.ema_decay is None else "ema")
    data = config.data.load(config.seed)
    model = build_run_model(config, data, pretrained=False)
    load_weights(model, _saved_weights(folder, chosen), source=str(folder))
    return Run(
        folder=folder, config=config, model=model.eval(), weights=chosen, result=read_result(folder)
    )


def export(run: str | Path, out: str | Path, *, weights: Weights | None = None) -> Path:
    """Write the run's plain model (`advprop.exporting.write_export`) into the folder `out`."""
    loaded = load_run(run, weights=weights)
    data = loaded.load_data()
    return write_export(
        loaded.model,
        out,
        class_names=data.class_names,
        preprocessing=data.preprocessing,
        provenance={
            "config": loaded.config.model_dump(mode="json"),
            "weights": loaded.weights,
            "result": loaded.result,
            "versions": versions(),
        },
    )


def check_weights(weights: str | None) -> Weights | None:
    """The same word, if it is one of those there are; else ValueError."""
    if weights is not None and weights not in get_args(Weights):
        raise ValueError(f'weights "{weights}" unknown: choose from {", ".join(get_args(Weights))}')
    return cast("Weights | None", weights)


def is_finished(folder: Path) -> bool:
    """Whether a run in `folder` has come to its end."""
    return (folder / RESULT).is_file()


def build_run_model(
    config: RunConfig, data: ImageData, *, pretrained: bool | None = None
) -> Standardized:
    """The run's model before training: its weights depend on the seed, branches are in.

    `pretrained=False` leaves out pretrained weights that would be overwritten anyway.
    """
    torch.manual_seed(config.seed)
    settings = config.model
    if pretrained is not None:
        settings = settings.model_copy(update={"pretrained": pretrained})
    model = settings.build(num_classes=data.num_classes, image_shape=data.image_shape)
    auxiliary = config.method.build().auxiliary
    if auxiliary:
        add_auxiliary_norms(model, auxiliary)
    return model


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    names = ("torch", "torchvision", "timm", "accelerate", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"advprop": __version__, "python": platform.python_version(), **found}


def read_result(folder: Path) -> dict[str, Any]:
    """What `result.json` holds; empty for a run that is not finished."""
    return dict(json.loads((folder / RESULT).read_text())) if is_finished(folder) else {}


def _saved_weights(folder: Path, weights: Weights) -> dict[str, Any]:
    checkpoints = Checkpoints(folder / "checkpoints")
    if weights == "best":
        if not checkpoints.best.is_file():
            raise ValueError(f"{folder}: no best weights yet, they come with the first epoch")
        return dict(read_checkpoint(checkpoints.best)["model"])
    state = checkpoints.load_newest()
    if state is None:
        raise ValueError(f"{folder}: no checkpoint yet; advprop train ... --resume goes on")
    chosen = state["ema" if weights == "ema" else "model"]
    if chosen is None:
        raise ValueError(
            f"{folder}: no average of weights was kept (training.ema_decay is none); "
            "take --weights last or best"
        )
    return dict(chosen)
