"""Exports a plain model as a folder for `load_export`, timm and transformers.

If the architecture is timm's, `timm.create_model("local-dir:FOLDER", pretrained=True)` and
transformers' `pipeline("image-classification", "FOLDER")` load the folder, with the mean, std,
image size, interpolation and class names of training. The folder has a model card and, on request,
the model in the formats of ONNX and torch.export.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch

from advprop.auxiliary.route import CLEAN, has_auxiliary_norms
from advprop.auxiliary.surgery import remove_auxiliary_norms
from advprop.data.preprocessing import Preprocessing
from advprop.exports.card import CARD, model_card
from advprop.exports.format import (
    CONFIG,
    WEIGHTS,
    ExportInfo,
    read_files,
    write_config,
    write_files,
)
from advprop.exports.portable import HUB, check_formats, write_portable
from advprop.files.atomic import appearing_folder, check_free
from advprop.files.json_files import read_json
from advprop.models.build import construction, is_timm
from advprop.models.standardize import Standardized, standardized
from advprop.randomness import generator_for, random_streams
from advprop.shapes import Images, Logits


@dataclass(frozen=True, kw_only=True)
class LoadedExport(ExportInfo):
    """A model without branches, in eval mode on the CPU, with its export's other contents."""

    model: Standardized


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
    multi_label: bool = False,
) -> Path:
    """Write `model` without its auxiliary branches to `folder`, and return that path.

    `class_names` are in the order of the logits; they name labels if an image has several
    (`multi_label`). `preprocessing` is that of the evaluation, `provenance` plain data about the
    model, and `branch` the one to keep. The architecture and options with which the model was built
    are recorded; `options` replaces those that JSON cannot hold or timm did not record. The
    caller's model is not changed; weights are written as float32. The folder appears when it is
    complete: the files, loaded by `load_export` and by timm, must give bit-equal outputs. `formats`
    may add "onnx" and "torch_export", which are compared too (`advprop.exports.portable`). Raises
    ValueError if `folder` is not empty, the model cannot be rebuilt from its name or written in a
    format, or the arguments do not fit; TypeError without mean and std; ImportError without ONNX.
    """
    check_formats(formats)
    info = ExportInfo(
        class_names=tuple(class_names),
        preprocessing=preprocessing,
        provenance=provenance or {},
        options=options or {},
        multi_label=multi_label,
    )
    check_free(folder := Path(folder))
    plain = _plain_copy(model, branch)
    images = torch.rand(2, *preprocessing.image_shape, generator=generator_for("export"))
    _check_fit(logits := _logits(plain, images), info)
    with appearing_folder(folder, needed=_num_bytes(plain)) as unfinished:
        write_files(plain, unfinished, info)
        _prove_equal(plain, unfinished, images, logits)
        info = replace(info, checks=write_portable(plain, unfinished, info, formats))
        write_config(plain, unfinished, info)
        (unfinished / CARD).write_text(_card(plain, info, branch), encoding="utf-8")
    return folder


def is_export(folder: str | Path) -> bool:
    """Return whether `folder` holds an export, intact or damaged, and not a run."""
    config, weights = Path(folder) / CONFIG, Path(folder) / WEIGHTS
    try:
        return weights.is_file() or "architecture" in read_json(config)
    except (OSError, ValueError):
        return False


def load_export(folder: str | Path) -> LoadedExport:
    """Return the model that `write_export` wrote to `folder`, with its facts.

    Raises FileNotFoundError if the folder or a file is missing; ValueError if it is no export of
    advprop, is damaged, or its weights do not fit the architecture.
    """
    # building the model draws random weights, which must not change the caller's random streams
    with random_streams("export"):
        model, info = read_files(Path(folder))
    return LoadedExport(model=model.eval(), **vars(info))


def _num_bytes(model: Standardized) -> int:
    return sum(value.nbytes for value in model.state_dict().values())


def _card(plain: Standardized, info: ExportInfo, branch: str) -> str:
    architecture, _ = construction(plain.model)
    mean, std = plain.mean.flatten().tolist(), plain.std.flatten().tolist()
    return model_card(info, architecture=architecture, mean=mean, std=std, branch=branch)


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
    # contiguous like a newly built model: kernels of other layouts round differently
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
            with random_streams("export"):
                of_timm = timm.create_model(f"local-dir:{folder}", pretrained=True)
            models.append(standardized(of_timm).eval())
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


@torch.no_grad()
def _logits(model: Standardized, images: Images) -> Logits:
    logits: Logits = model(images)
    return logits
