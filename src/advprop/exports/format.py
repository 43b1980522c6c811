"""Reads and writes an export's files `config.json` (as on timm's hub) and `model.safetensors`.

Both hold only data: reading them runs no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor

from advprop.data.preprocessing import Preprocessing
from advprop.files.json_files import read_json
from advprop.files.parsing import Count, Number, Part
from advprop.models.build import build_model, check_options, construction
from advprop.models.loading import load_exactly
from advprop.models.standardize import Standardized
from advprop.models.trial import check_forward

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 2
_FORMATS = (1, FORMAT)
"""Format 1 had `num_classes` in `model_args` too, which transformers rejects."""
MULTI_LABEL = "multi_label_classification"
"""The `problem_type` of transformers for several labels an image, which pipelines obey."""
_OURS = ("format", "weights_sha256", "checks")


class _About(Part):
    weights_sha256: str
    checks: dict[str, dict[str, Any]] = Field(default_factory=dict)


class _Settings(Part):
    input_size: tuple[Count, Count, Count]
    interpolation: str
    crop_pct: Number
    crop_mode: str
    mean: tuple[Number, ...]
    std: tuple[Number, ...]


class _Config(Part):
    """The entries of `config.json` that `read_files` needs."""

    architecture: str
    label_names: tuple[str, ...]
    problem_type: str | None = None
    model_args: dict[str, Any]
    pretrained_cfg: _Settings
    advprop: _About


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """An export's facts about its model; the other fields are arguments of `write_export`.

    `checks` is what `write_portable` returned.
    """

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    provenance: Mapping[str, Any]
    options: Mapping[str, Any]
    multi_label: bool = False
    checks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def write_files(model: Standardized, folder: Path, info: ExportInfo) -> None:
    """Write both files of a plain `model` on the CPU.

    Raises ValueError if JSON cannot hold an option with which it was built.
    """
    # cloned, since safetensors refuses tensors that share memory, and all keys must be written
    state = {key: value.contiguous().clone() for key, value in model.model.state_dict().items()}
    safetensors.torch.save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # newer releases of safetensors permit only the owner
    write_config(model, folder, info)


def write_config(model: Standardized, folder: Path, info: ExportInfo) -> None:
    """Write `config.json`, with checksums of the files as they are now; may be called again."""
    checks = {
        file: {**check, "sha256": _digest(folder / file)} for file, check in info.checks.items()
    }
    ours = {"format": FORMAT, "weights_sha256": _digest(folder / WEIGHTS), "checks": checks}
    config = {**_description(model, info), "advprop": {**info.provenance, **ours}}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")


def read_files(folder: Path) -> tuple[Standardized, ExportInfo]:
    """Return an export's model in train mode, and its facts; raises as `load_export`."""
    config = _read_config(folder)
    try:
        model, info = _from_description(config)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: damaged, {error}; export again") from error
    digest = config["advprop"]["weights_sha256"]
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder}: {WEIGHTS} is missing; export again")
    if _digest(folder / WEIGHTS) != digest:
        raise ValueError(
            f"{folder / WEIGHTS}: cut off or changed since it was written (its checksum differs "
            f"from the one in {CONFIG}); copy or export it again"
        )
    try:
        state = safetensors.torch.load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS}: damaged ({error}); export again") from None
    load_exactly(model.model, state, source=f"{folder / WEIGHTS}", remedy="export again")
    return model, info


def read_checks(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the checks of an export's ONNX and torch.export files; raises as `load_export`."""
    return dict(_read_config(folder)["advprop"].get("checks", {}))


def _description(model: Standardized, info: ExportInfo) -> dict[str, Any]:
    name, options = construction(model.model)
    options = {**options, **info.options, "in_chans": len(model.mean)}
    options.pop("num_classes", None)  # transformers rejects it next to the entry of that name
    preprocessing = info.preprocessing
    known: Mapping[str, Any] = getattr(model.model, "pretrained_cfg", {})
    return {
        "architecture": name,
        "num_classes": len(info.class_names),
        "num_features": getattr(model.model, "num_features", None),
        "label_names": list(info.class_names),
        **({"problem_type": MULTI_LABEL} if info.multi_label else {}),
        "model_args": {key: _plain(key, value) for key, value in options.items()},
        "pretrained_cfg": {
            "num_classes": len(info.class_names),
            "input_size": list(preprocessing.image_shape),
            "fixed_input_size": known.get("fixed_input_size", False),
            "interpolation": preprocessing.interpolation,
            "crop_pct": preprocessing.crop_pct,
            "crop_mode": preprocessing.crop_mode,
            "mean": _numbers(model.mean),
            "std": _numbers(model.std),
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }


def _from_description(config: Mapping[str, Any]) -> tuple[Standardized, ExportInfo]:
    settings, about = config["pretrained_cfg"], config["advprop"]
    info = ExportInfo(
        class_names=config["label_names"],
        preprocessing=Preprocessing(
            image_shape=settings["input_size"],
            interpolation=settings["interpolation"],
            crop_pct=settings["crop_pct"],
            crop_mode=settings["crop_mode"],
        ),
        provenance={key: value for key, value in about.items() if key not in _OURS},
        options=config["model_args"],
        multi_label=config.get("problem_type") == MULTI_LABEL,
        checks=about.get("checks", {}),
    )
    statistics = {"mean": settings["mean"], "std": settings["std"]}
    check_options(info.options)  # no option may open or download a file
    sizes = {"num_classes": len(info.class_names), "in_chans": info.preprocessing.image_shape[0]}
    model = build_model(config["architecture"], **{**info.options, **sizes}, **statistics)
    check_forward(
        model,
        config["architecture"],
        image_shape=info.preprocessing.image_shape,
        num_classes=len(info.class_names),
    )
    return model, info


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; `advprop export` makes exports")
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: not an export, {CONFIG} is missing")
    config = read_json(path, remedy="not an export of advprop, or export again")
    about = config.get("advprop")
    if not isinstance(about, dict):
        raise ValueError(
            f"{path}: not an export of advprop (no entry of that name); "
            f'timm.create_model("local-dir:...", pretrained=True) loads other folders'
        )
    if about.get("format") not in _FORMATS:
        raise ValueError(
            f"{path}: format {about.get('format')}, this version of advprop reads 1 to {FORMAT}; "
            "use the version that wrote it"
        )
    return read_json(path, _Config, remedy="export again")


def _plain(name: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the model was built with {name}={value!r}, which JSON cannot hold: name it by a "
            f"string that timm understands, or give write_export(options={{{name!r}: ...}})"
        ) from error


def _numbers(values: Tensor) -> list[float]:
    """Return the shortest decimal numbers that equal these float32 numbers exactly."""
    return [float(str(np.float32(value))) for value in values.flatten().tolist()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
