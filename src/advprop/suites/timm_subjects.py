"""Loads timm's models by name as test subjects, with the preprocessing of their weights."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from timm.models import split_model_name_tag

from advprop.config.attacks import AttackConfig, ThreatModelConfig
from advprop.config.evaluation import EvaluationConfig
from advprop.data.preprocessing import Preprocessing
from advprop.models.build import build_model, is_timm, timm_settings
from advprop.models.standardize import Standardized
from advprop.models.weights import load_local_weights
from advprop.runs.folder import Weights
from advprop.suites.subjects import Subject, load_subject

# as in the ImageNet recipes: ten untargeted steps of 1/255 with epsilon 4/255
_EVALUATION = EvaluationConfig(
    batch_size=64,
    attack=AttackConfig(
        threat_model=ThreatModelConfig(epsilon=4 / 255),
        num_steps=10,
        step_size=1 / 255,
        targets="untargeted",
    ),
)


def names_timm_model(name: str | Path) -> bool:
    """Return whether `name` is a timm model; an existing path of that name takes precedence."""
    return not Path(name).exists() and is_timm(split_model_name_tag(str(name))[0])


def find_subject(
    name: str | Path, *, weights: Weights | None = None, checkpoint: str | Path | None = None
) -> Subject:
    """Return the run or export in the folder `name`, or else timm's model of that name.

    `weights` chooses among those of a run; `checkpoint` replaces timm's weights. Raises ValueError
    or OSError if nothing has that name, or the weights do not exist or belong to the other kind.
    """
    if names_timm_model(name):
        if weights is not None:
            raise ValueError(
                f"{name}: --weights {weights} chooses among those of a run; timm's model has one "
                "set, leave it out, or give --checkpoint FILE"
            )
        return load_timm_subject(str(name), checkpoint=checkpoint)
    if checkpoint is not None:
        raise ValueError(
            f"{name}: --checkpoint {checkpoint} is for a model that timm knows by name; a run or "
            "an export has its own weights"
        )
    if not Path(name).exists():
        raise ValueError(_not_found(str(name)))
    return load_subject(Path(name), weights=weights)


def load_timm_subject(name: str, *, checkpoint: str | Path | None = None) -> Subject:
    """Return timm's model `name` in eval mode, with timm's weights or those in `checkpoint`.

    Size, interpolation, crop, mean and std are the test values of its `pretrained_cfg`, as in
    timm's `validate.py`. Raises ValueError or OSError for an unknown model, weights that do not
    exist or cannot be downloaded, a checkpoint that does not fit, and unknown classes.
    """
    settings = timm_settings(name)
    class_names = _class_names(name, settings)
    preprocessing = _preprocessing(name, settings)
    if checkpoint is None and not settings.has_weights:
        raise ValueError(f"{name}: timm has no weights for it; give some with --checkpoint FILE")
    return Subject(
        name=name,
        model=_model(name, checkpoint, len(class_names), preprocessing).eval(),
        evaluation=_EVALUATION,
        weights=f"timm's {settings.tag}" if checkpoint is None else str(checkpoint),
        class_names=class_names,
        preprocessing=preprocessing,
    )


def _model(
    name: str, checkpoint: str | Path | None, num_classes: int, preprocessing: Preprocessing
) -> Standardized:
    try:
        model = build_model(
            name,
            num_classes=num_classes,
            in_chans=preprocessing.image_shape[0],
            image_size=preprocessing.image_shape[1:],
            pretrained=checkpoint is None,
        )
    except ValueError as error:
        if checkpoint is not None:
            raise
        raise ValueError(f"{error}; --checkpoint FILE takes local weights") from error
    if checkpoint is not None:
        load_local_weights(model, checkpoint, new_classifier=False)
    return model


def _preprocessing(name: str, settings: Any) -> Preprocessing:
    found = resolve_data_config({}, pretrained_cfg=settings.to_dict(), use_test_size=True)
    try:
        return Preprocessing(
            image_shape=tuple(found["input_size"]),
            interpolation=found["interpolation"],
            crop_pct=found["crop_pct"],
            crop_mode=found["crop_mode"],
        )
    except ValueError as error:
        raise ValueError(
            f"{name}: is tested in a way that is not supported ({error}); take another model"
        ) from error


def _class_names(name: str, settings: Any) -> tuple[str, ...]:
    """Return the classes (WordNet ids) in the order of the model's outputs."""
    if settings.label_names:
        return tuple(settings.label_names)
    subset = infer_imagenet_subset({"num_classes": settings.num_classes})
    if subset is None:
        raise ValueError(
            f"{name}: timm does not tell what its {settings.num_classes} outputs mean; take a "
            "model with a classifier for ImageNet, which has 1000"
        )
    return tuple(ImageNetInfo(subset).label_names())


def _not_found(name: str) -> str:
    near = [] if os.sep in name else difflib.get_close_matches(name, timm.list_models())
    hint = f" (timm has {', '.join(near)})" if near else ""
    return (
        f"{name}: no such folder, and no model of timm's{hint}; give a run's or an export's "
        "folder, or a name that timm.list_models() has"
    )
