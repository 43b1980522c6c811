"""Exports: weights and configuration of one plain model, as timm's hub format has them.

`timm.create_model("local-dir:FOLDER", pretrained=True)` loads such a folder where the architecture
is timm's; mean, std, size, interpolation and class names are those of the training.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from advprop.auxiliary.branches import has_auxiliary_norms
from advprop.auxiliary.norm import CLEAN
from advprop.auxiliary.surgery import remove_auxiliary_norms
from advprop.data.preprocessing import Preprocessing
from advprop.models.build import build_model, construction, is_timm
from advprop.models.standardize import Standardized
from advprop.randomness import generator_for, random_streams

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """What an export says about its model.

    `class_names` in the order of the logits; `preprocessing` is the evaluation's view of a file;
    `provenance` is plain data (recipe, method, which weights, versions, ...). `model_args` replaces
    options of the architecture that JSON cannot hold.
    """

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    provenance: Mapping[str, Any] = field(default_factory=dict)
    model_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LoadedExport:
    """A model in eval mode on the CPU, without branches, and what its export says about it."""

    model: Standardized
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    provenance: dict[str, Any]


def write_export(
    model: Standardized, folder: str | Path, *, info: ExportInfo, branch: str = CLEAN
) -> Path:
    """Write `model` without its auxiliary branches to `folder`, and return that path.

    `branch` is the one to keep. The caller's model stays as it is; the weights are written as
    float32. What was written is loaded again, by `load_export` and by timm, and must give
    bit-equal outputs before `folder` appears, all at once.
    ValueError: `folder` is not empty, or the model could not be made again from its name.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder}: not empty, and nothing is overwritten; name another folder")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file, not a folder; name another")
    plain = _plain_copy(model, branch)
    config = _config(plain, info)
    with _appearing(folder) as unfinished:
        _write_weights(plain.model, unfinished / WEIGHTS)
        digest = _digest(unfinished / WEIGHTS)
        config["advprop"] = {"format": FORMAT, "weights_sha256": digest, **info.provenance}
        (unfinished / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _prove_equal(plain, unfinished, info)
    return folder


def is_export(folder: str | Path) -> bool:
    """Whether `folder` looks like an export, be it a damaged one."""
    try:
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return (Path(folder) / WEIGHTS).is_file()
    return isinstance(config, dict) and "architecture" in config


def load_export(folder: str | Path) -> LoadedExport:
    """The model that `write_export` wrote to `folder`.

    FileNotFoundError: no such folder, or a file of it is missing. ValueError: not an export of this
    package, damaged, or weights that do not belong to the architecture.
    """
    folder = Path(folder)
    config = _read_config(folder)
    try:
        settings, about = config["pretrained_cfg"], dict(config["advprop"])
        options = {**config["model_args"], "num_classes": config["num_classes"]}
        preprocessing = Preprocessing(
            image_shape=cast("tuple[int, int, int]", tuple(settings["input_size"])),
            interpolation=settings["interpolation"],
            crop_pct=settings["crop_pct"],
        )
        mean, std, class_names = settings["mean"], settings["std"], tuple(config["label_names"])
        digest = about.pop("weights_sha256")
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG}: damaged ({error!r}); export the run again") from error
    del about["format"]
    state = _read_weights(folder / WEIGHTS, digest)
    with random_streams("export"):
        model = build_model(config["architecture"], mean=mean, std=std, **options)
    _load_state(model.model, state, folder / WEIGHTS)
    return LoadedExport(
        model=model.eval(),
        class_names=class_names,
        preprocessing=preprocessing,
        provenance=about,
    )
