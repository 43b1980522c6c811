"""Exports: one plain model as a folder that timm and transformers load, or that `load_export` does.

`timm.create_model("local-dir:FOLDER", pretrained=True)` and transformers'
`pipeline("image-classification", "FOLDER")` take such a folder where the architecture is timm's;
mean, std, image size, interpolation and class names are those of the training. A model card tells
where the model is from; ONNX and torch.export's form lie beside it where asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch

from advprop.auxiliary.branches import has_auxiliary_norms
from advprop.auxiliary.route import CLEAN
from advprop.auxiliary.surgery import remove_auxiliary_norms
from advprop.data.preprocessing import Preprocessing
from advprop.exports.card import CARD, model_card
from advprop.exports.format import (
    ExportInfo,
    looks_like_export,
    read_files,
    write_config,
    write_files,
)
from advprop.exports.portable import HUB, check_formats, write_portable
from advprop.files.atomic import appearing_folder
from advprop.models.build import construction, is_timm
from advprop.models.standardize import Standardized, standardized
from advprop.randomness import generator_for, random_streams
from advprop.shapes import Images, Logits


@dataclass(frozen=True, kw_only=True)
class LoadedExport:
    """A model without branches, in eval mode on the CPU, and what its export says about it."""

    model: Standardized
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    provenance: dict[str, Any]


def write_export(
    model: Standardized,
    folder: str | Path,
    *,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    provenance: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    branch: str = CLEAN,
    formats: Sequence[str] = (HUB,),
) -> Path:
    """Write `model` without its auxiliary branches to `folder`, and return that path.

    `class_names` are in the order of the logits; `preprocessing` is the evaluation's view of a
    file; `provenance` is plain data (recipe, method, which weights, versions, ...); `branch` is the
    one to keep. Architecture and options are those the model was built with; `options` replaces
    what JSON cannot hold or timm did not record. The caller's model stays as it is; weights are
    written as float32. What was written is loaded again, by `load_export` and by timm, and has to
    give bit-equal outputs before `folder` appears, whole. `formats` may add "onnx" and
    "torch_export", compared with `model` too (`advprop.exports.portable`). ValueError: `folder` is
    not empty, the model could not be made again from its name or written in a format, or what is
    said does not fit it. ImportError: ONNX's packages are missing.
    """
    check_formats(formats)
    info = ExportInfo(
        class_names=tuple(class_names),
        preprocessing=preprocessing,
        provenance=provenance or {},
        options=options or {},
    )
    folder = Path(folder)
    _check_free(folder)
    plain = _plain_copy(model, branch)
    images = torch.rand(2, *info.preprocessing.image_shape, generator=generator_for("export"))
    logits = _logits(plain, images)
    _check_fit(logits, info)
    with appearing_folder(folder, needed=_num_bytes(plain)) as unfinished:
        write_files(plain, unfinished, info)
        _prove_equal(plain, unfinished, images, logits)
        checks = write_portable(
            plain,
            unfinished,
            class_names=info.class_names,
            preprocessing=info.preprocessing,
            formats=formats,
        )
        info = replace(info, checks=checks)
        write_config(plain, unfinished, info)
        (unfinished / CARD).write_text(_card(plain, info, branch), encoding="utf-8")
    return folder


def is_export(folder: str | Path) -> bool:
    """Whether `folder` looks like an export, be it a damaged one; False for a run."""
    return looks_like_export(Path(folder))


def load_export(folder: str | Path) -> LoadedExport:
    """The model that `write_export` wrote to `folder`.

    FileNotFoundError: no such folder, or a file is missing. ValueError: not an export of advprop,
    damaged, or weights that do not belong to the architecture. The message says what to do.
    """
    # what the architecture is initialised with is overwritten: leave the caller's streams alone
    with random_streams("export"):
        model, info = read_files(Path(folder))
    return LoadedExport(
        model=model.eval(),
        class_names=info.class_names,
        preprocessing=info.preprocessing,
        provenance=dict(info.provenance),
    )


def _num_bytes(model: Standardized) -> int:
    return sum(value.nbytes for value in model.state_dict().values())


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file, not a folder; name another")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder}: not empty, and nothing is overwritten; name another folder")


def _card(plain: Standardized, info: ExportInfo, branch: str) -> str:
    architecture, _ = construction(plain.model)
    return model_card(
        architecture=architecture,
        timm_loads=is_timm(architecture),
        class_names=info.class_names,
        preprocessing=info.preprocessing,
        mean=plain.mean.flatten().tolist(),
        std=plain.std.flatten().tolist(),
        branch=branch,
        provenance=info.provenance,
        checks=info.checks,
    )


def _plain_copy(model: Standardized, branch: str) -> Standardized:
    if not isinstance(model, Standardized):
        raise TypeError(
            f"an export needs mean and std, {type(model).__name__} has none: pass "
            "standardized(model), and the module itself where something wraps it"
        )
    if branch != CLEAN and not has_auxiliary_norms(model):
        raise ValueError(f'branch "{branch}" unknown, this model has no auxiliary branches')
    plain = copy.deepcopy(model)
    if has_auxiliary_norms(plain):
        remove_auxiliary_norms(plain, keep=branch)
    # contiguous as a model that was just built: other kernels would round differently
    return plain.cpu().float().to(memory_format=torch.contiguous_format).eval()


def _check_fit(logits: Logits, info: ExportInfo) -> None:
    if logits.shape[1] != len(info.class_names):
        raise ValueError(
            f"{len(info.class_names)} class names for {logits.shape[1]} logits: one for each"
        )
    if not logits.isfinite().all():
        raise ValueError("the model's logits are not finite: its training has failed, train again")


def _prove_equal(plain: Standardized, folder: Path, images: Images, logits: Logits) -> None:
    try:
        models = [load_export(folder).model]
        if is_timm(construction(plain.model)[0]):
            models.append(_load_as_timm(folder))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"the export would not load again, {_REMEDY} ({error})") from error
    for model in models:
        loaded, expected = model.model.state_dict(), plain.model.state_dict()
        same = loaded.keys() == expected.keys() and all(
            torch.equal(loaded[key], expected[key]) for key in expected
        )
        if not same or not torch.equal(_logits(model, images), logits):
            raise ValueError(f"the export would give other outputs than the model, {_REMEDY}")


_REMEDY = (
    "so nothing was written: options that timm did not record can be given as "
    "write_export(options=...), layers exchanged by hand cannot be exported"
)


def _load_as_timm(folder: Path) -> Standardized:
    with random_streams("export"):
        return standardized(timm.create_model(f"local-dir:{folder}", pretrained=True)).eval()


@torch.no_grad()
def _logits(model: Standardized, images: Images) -> Logits:
    logits: Logits = model(images)
    return logits
