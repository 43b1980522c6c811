"""Loads the subject of a test: the model of a run or an export, with its test settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from advprop.auxiliary.branches import branch_names, use_branch
from advprop.auxiliary.route import CLEAN, has_auxiliary_norms
from advprop.config.evaluation import EvaluationConfig
from advprop.config.overrides import validated
from advprop.config.run import RunConfig
from advprop.data.preprocessing import Preprocessing
from advprop.data.splits import ImageData
from advprop.exports.export import is_export, load_export
from advprop.files.parsing import first_line
from advprop.models.standardize import Standardized
from advprop.runs.folder import Weights, load_run
from advprop.shapes import Images, Logits, LogitsFn


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model in eval mode, with its evaluation settings, classes and preprocessing.

    `load_data` loads the data set that it was trained on, or is None if that is unknown.
    `multi_label` tells whether an image has several labels; `class_names` then names the labels.
    `finished` is False for a run whose training has not ended.
    """

    name: str
    model: Standardized
    evaluation: EvaluationConfig
    weights: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    load_data: Callable[[], ImageData] | None = None
    multi_label: bool = False
    finished: bool = True


def load_subject(path: Path, *, weights: Weights | None = None) -> Subject:
    """Return the model of a run or an export; raises ValueError or OSError if it is unusable."""
    if not path.exists():
        raise ValueError(f"{path}: no such folder; give a run's or an export's")
    return _of_export(path, weights) if is_export(path) else _of_run(path, weights)


def known_branch(model: nn.Module, branch: str) -> str:
    """Return `branch`; raises ValueError if `model` does not have it."""
    known = branch_names(model) if has_auxiliary_norms(model) else (CLEAN,)
    if branch not in known:
        raise ValueError(f'branch "{branch}" unknown, this model has {", ".join(known)}')
    return branch


def through_branch(model: nn.Module, branch: str) -> LogitsFn:
    """Return a logits function through `branch`, whichever branch of `model` is active."""
    if not has_auxiliary_norms(model):
        return model

    def logits_fn(images: Images) -> Logits:
        with use_branch(model, branch):
            logits: Logits = model(images)
            return logits

    return logits_fn


@torch.no_grad()
def check_takes(subject: Subject, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError if the model cannot run on images (C, H, W) that are not resized."""
    images = torch.zeros(1, *image_shape, device=subject.model.mean.device)
    try:
        subject.model(images)
    except (AssertionError, RuntimeError, ValueError) as error:
        size = f"{image_shape[2]} x {image_shape[1]} pixels"
        raise ValueError(
            f"{subject.name} does not take images of {size}, as this set is stored and tested "
            f"({first_line(error)}): test a model of that size"
        ) from error


def _of_run(path: Path, weights: Weights | None) -> Subject:
    run = load_run(path, weights=weights)
    return Subject(
        name=str(path),
        model=run.model,
        evaluation=run.config.evaluation,
        weights=run.weights,
        class_names=run.class_names,
        preprocessing=run.preprocessing,
        load_data=run.load_data,
        multi_label=run.multi_label,
        finished=bool(run.result),
    )


def _load_data(config: RunConfig) -> Callable[[], ImageData] | None:
    """Return a function that loads the data of an export's run, or None if it names no place."""
    data = config.data
    told = not data.places or any(getattr(data, place) is not None for place in data.places)
    return (lambda: data.load(config.seed)) if told else None


def _of_export(path: Path, weights: Weights | None) -> Subject:
    if weights is not None:
        raise ValueError(f"{path}: an export holds one set of weights; leave --weights out")
    export = load_export(path)
    try:
        config: RunConfig = validated(export.provenance["config"])
        saved = str(export.provenance["weights"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: has no record of its run ({error}); test an export of a run's folder"
        ) from None
    return Subject(
        name=str(path),
        model=export.model,
        evaluation=config.evaluation,
        weights=saved,
        class_names=export.class_names,
        preprocessing=export.preprocessing,
        load_data=_load_data(config),
        multi_label=export.multi_label,
    )
