"""Reads a run's folder: its configuration, model and result."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from advprop.config.overrides import read_config
from advprop.config.run import RunConfig
from advprop.data.preprocessing import Preprocessing
from advprop.data.splits import ImageData
from advprop.files.json_files import read_json
from advprop.files.parsing import Count, Number, Part
from advprop.models.standardize import Standardized
from advprop.randomness import kept_streams
from advprop.results.rows import Result
from advprop.training.checkpoint import Checkpoints, load_weights, read_checkpoint

Weights = Literal["last", "best", "ema"]
CONFIG, RESULT, METRICS = "config.json", "result.json", "metrics.jsonl"
DATA, CHECKPOINTS = "data.json", "checkpoints"
KEPT = "kept"
"""The folder in which a method stores its state between steps, beside the checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, finished or not: its configuration, and its model in eval mode.

    `model` has auxiliary branches if its method uses any; `weights` says which of the saved weights
    it has. If `multi_label`, an image has several labels, which `class_names` names. `result` is
    the contents of `result.json`, empty for an unfinished run.
    """

    folder: Path
    config: RunConfig
    model: Standardized
    class_names: tuple[str, ...]
    multi_label: bool
    preprocessing: Preprocessing
    weights: Weights
    result: dict[str, Any]

    def load_data(self) -> ImageData:
        """Return the run's data; raises FileNotFoundError, with the remedy, if they have moved."""
        try:
            return self.config.data.load(self.config.seed)
        except FileNotFoundError as error:
            go_on = shlex.join(["advprop", "train", str(self.folder / CONFIG), "--resume"])
            raise FileNotFoundError(
                f"{error}; where the images have moved: {go_on} "
                f"{self.config.data.places_to_set()} (the run stays as it is)"
            ) from None


def load_run(folder: str | Path, *, weights: Weights | None = None) -> Run:
    """Return the run in `folder` with its model on the CPU; its data need not exist any more.

    `weights` are those of the "last" step, the "best" on clean validation images, or the average
    ("ema"); by default the average if one was kept, else the last. Raises ValueError or OSError if
    the folder holds no run or lacks these weights.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder}: no run here ({CONFIG} is missing)")
    config = read_config(folder / CONFIG)
    chosen: Weights = weights or ("last" if config.training.ema_decay is None else "ema")
    class_names, multi_label, preprocessing = _read_data_facts(folder)
    try:
        model = _build_model(config, len(class_names), preprocessing.image_shape, pretrained=False)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    saved, source = _saved_weights(folder, chosen)
    load_weights(model, saved, source=source)
    return Run(
        folder=folder,
        config=config,
        model=model.eval(),
        class_names=class_names,
        multi_label=multi_label,
        preprocessing=preprocessing,
        weights=chosen,
        result=read_result(folder),
    )


def check_weights(weights: str | None) -> Weights | None:
    """Return `weights`; raises ValueError unless it is None or names weights of a run."""
    if weights is not None and weights not in get_args(Weights):
        raise ValueError(f'weights "{weights}" unknown: choose from {", ".join(get_args(Weights))}')
    return cast("Weights | None", weights)


def is_finished(folder: Path) -> bool:
    """Return whether the run in `folder` is finished."""
    return (folder / RESULT).is_file()


def build_run_model(config: RunConfig, data: ImageData) -> Standardized:
    """Return the run's model with branches, before training; random weights depend on the seed."""
    return _build_model(config, data.num_classes, data.image_shape)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    names = ("advprop", "torch", "torchvision", "timm", "accelerate", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


def read_result(folder: Path) -> dict[str, Any]:
    """Return the contents of `result.json`, empty for an unfinished run.

    Raises ValueError if it is damaged; once deleted, training with `resume` writes it again.
    """
    if not is_finished(folder):
        return {}
    remedy = "delete it, and advprop train ... --resume writes it again"
    return read_json(folder / RESULT, Result, remedy=remedy)


class DataFacts(Part):
    """The facts about a run's images in `data.json` that its model needs."""

    class_names: tuple[str, ...]
    image_shape: tuple[Count, Count, Count]
    interpolation: str
    crop_pct: Number
    found: dict[str, Any] | None = None


_TRAIN_AGAIN = "put back a whole one, or train again"


def _saved_weights(folder: Path, weights: Weights) -> tuple[Any, str]:
    """Return the saved tensors by name, unchecked, and the path of their file."""
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    if weights == "best":
        if not checkpoints.best.is_file():
            raise ValueError(f"{folder}: no best weights yet, they come with the first epoch")
        state: dict[str, Any] | None = read_checkpoint(checkpoints.best)
    else:
        state = checkpoints.load_newest()
    if state is None:
        raise ValueError(f"{folder}: no checkpoint yet; advprop train ... --resume goes on")
    chosen = state["model"] if weights != "ema" else state.get("ema")
    if weights == "ema" and chosen is None:
        raise ValueError(
            f"{folder}: no average of weights was kept (training.ema_decay is none); "
            "take --weights last or best"
        )
    return chosen, state["source"]


@kept_streams()
def _build_model(
    config: RunConfig,
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    pretrained: bool = True,
) -> Standardized:
    """Return the model with branches; `pretrained=False` loads neither timm's nor local weights."""
    torch.manual_seed(config.seed)
    settings = config.model if pretrained else config.model.without_weights()
    model = settings.build(num_classes=num_classes, image_shape=image_shape)
    if auxiliary := config.method.build().auxiliary:
        config.model.add_branches(model, auxiliary)
    return model


def _read_data_facts(folder: Path) -> tuple[tuple[str, ...], bool, Preprocessing]:
    if not (folder / DATA).is_file():
        raise ValueError(f"{folder}: {DATA} is missing; advprop train ... --resume writes it")
    facts = read_json(folder / DATA, DataFacts, remedy=_TRAIN_AGAIN)
    settings = {name: facts[name] for name in ("image_shape", "interpolation", "crop_pct")}
    several = bool((facts.get("found") or {}).get("multi_label"))  # older runs have none
    try:
        return facts["class_names"], several, Preprocessing(**settings)
    except ValueError as error:
        raise ValueError(f"{folder / DATA}: damaged, {error}; {_TRAIN_AGAIN}") from None
