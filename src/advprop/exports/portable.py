"""Writes the plain model as ONNX and torch.export files, which need no advprop, and checks them."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from advprop.exports.format import ExportInfo
from advprop.files.parsing import first_line
from advprop.models.standardize import Standardized
from advprop.randomness import generator_for
from advprop.shapes import Images, Logits, LogitsFn

HUB, ONNX, TORCH_EXPORT = "hub", "onnx", "torch_export"
FORMATS = (HUB, ONNX, TORCH_EXPORT)
CHECKED_BATCH_SIZES = (1, 3)
RELATIVE_TOLERANCE = 1e-3
"""The permitted difference of a logit, as a share of the largest; kernels round differently."""

_ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_ABOUT = "advprop.json"
_PIXEL_FORMATS = {"RGB": "Rgb8", "grey": "Gray8"}
_DYNAMIC_BATCH = ({0: Dim("batch")},)


def check_formats(formats: Sequence[str]) -> None:
    """Raise ValueError for an unknown format, ImportError if a format's packages are missing."""
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f'format "{name}" unknown: choose from {", ".join(FORMATS)}')
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if ONNX in formats and missing:
        raise ImportError(
            f"the format onnx needs {', '.join(missing)}: pip install 'advprop[onnx]', "
            "or leave it out"
        )


def write_portable(
    model: Standardized,
    folder: Path,
    info: ExportInfo,
    formats: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """Write a plain `model` on the CPU, in eval mode, in those of `formats` that are not "hub".

    The files map float32 `images` in [0, 1], of shape [batch, *image_shape] for any
    batch, to `logits`. They contain class names, size, crop, mean and std: ONNX as metadata, each
    as JSON, and torch.export in its extra file "advprop.json". Each file is read again and compared
    with `model`. Returns `{format, max_difference, tolerance, batch_sizes}` for each file's name.
    Raises ValueError if the model cannot be written in a format or the file gives other logits.
    """
    wanted = [name for name in _WRITERS if name in formats]
    if not wanted:
        return {}
    image_shape, about = info.preprocessing.image_shape, _about(model, info)
    with _named_errors(wanted):
        program = _captured(model, image_shape)
    found = {}
    for name in wanted:
        file, write = _WRITERS[name]
        generator = generator_for("interchange")
        with _named_errors([name]), torch.no_grad():
            logits_fn = write(program, folder / file, about)
            batches = (
                torch.rand(n, *image_shape, generator=generator) for n in CHECKED_BATCH_SIZES
            )
            pairs = [(model(images), logits_fn(images)) for images in batches]
        found[file] = {"format": name, **_compared(pairs, name)}
    return found


def _about(model: Standardized, info: ExportInfo) -> dict[str, Any]:
    preprocessing = info.preprocessing
    channels, *size = preprocessing.image_shape
    return {
        "class_names": list(info.class_names),
        "image_size": size,
        "colours": "RGB" if channels == 3 else "grey",
        "input_range": [0, 1],
        "mean_inside": model.mean.flatten().tolist(),
        "std_inside": model.std.flatten().tolist(),
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": preprocessing.crop_mode,
        "producer": "advprop",
    }


def _captured(model: Standardized, image_shape: tuple[int, int, int]) -> ExportedProgram:
    program = torch.export.export(
        model,
        (torch.rand(2, *image_shape, generator=generator_for("interchange")),),
        dynamic_shapes=_DYNAMIC_BATCH,
    )
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # it contains paths of this machine
    return program


def _write_onnx(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> LogitsFn:
    made = torch.onnx.export(
        program,
        dynamo=True,
        dynamic_shapes=_DYNAMIC_BATCH,
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    if made is None:
        raise RuntimeError("torch.onnx made no program")
    told = {**about, "opset": made.model.opset_imports[""]}
    made.model.metadata_props.update({name: json.dumps(value) for name, value in told.items()})
    # ONNX's own names for these facts
    made.model.metadata_props["Image.BitmapPixelFormat"] = _PIXEL_FORMATS[about["colours"]]
    made.model.metadata_props["Image.ColorSpaceGamma"] = "SRGB"
    made.model.metadata_props["Image.NominalPixelRange"] = "Normalized_0_1"
    made.save(path)
    onnxruntime = importlib.import_module("onnxruntime")  # an extra, and without types
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def logits_fn(images: Images) -> Logits:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return logits_fn


def _write_torch_export(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> LogitsFn:
    torch.export.save(program, path, extra_files={_ABOUT: json.dumps(about)})
    # loading may run code in the file, so it is safe only for a file that was just written
    return torch.export.load(path).module()


_WRITERS: dict[str, tuple[str, Callable[[ExportedProgram, Path, Mapping[str, Any]], LogitsFn]]] = {
    ONNX: ("model.onnx", _write_onnx),
    TORCH_EXPORT: ("model.pt2", _write_torch_export),
}


def _compared(pairs: Sequence[tuple[Logits, Logits]], name: str) -> dict[str, Any]:
    expected, found = (torch.cat(logits) for logits in zip(*pairs, strict=True))
    difference = float((found - expected).abs().max())
    tolerance = RELATIVE_TOLERANCE * float(expected.abs().max())
    same_classes = torch.equal(found.argmax(dim=1), expected.argmax(dim=1))
    if not (difference <= tolerance and same_classes):  # also true if the difference is NaN
        raise ValueError(
            f"as {name} the model gives other logits: they differ by {difference:.2g}, at most "
            f"{tolerance:.2g} is right, and the classes are {'' if same_classes else 'not '}the "
            f"same; nothing was written, leave the format {name} out"
        )
    return {
        "max_difference": difference,
        "tolerance": tolerance,
        "batch_sizes": list(CHECKED_BATCH_SIZES),
    }


@contextmanager
def _named_errors(formats: Sequence[str]) -> Iterator[None]:
    """Convert an exporter's errors inside to ValueError, except OSError and ImportError."""
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:  # exporters raise many kinds of errors
        listed = ", ".join(formats)
        reason = first_line(error)
        raise ValueError(
            f"the model cannot be written as {listed} ({type(error).__name__}: {reason}); nothing "
            f"was written, leave the format {listed} out"
        ) from error
