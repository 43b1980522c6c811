"""`advprop predict`."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from advprop.cli.options import RunArgument, check_json_target, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from advprop.exports.prediction import Prediction


def main(
    run_or_export: RunArgument,
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Image files, or folders of them."),
    ],
    top: Annotated[
        int, typer.Option(help="Number of classes shown for an image; labels are all shown.", min=1)
    ] = 3,
    batch_size: Annotated[int, typer.Option(help="Number of images at a time.", min=1)] = 32,
    json: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write a JSON list to this file; - is standard output."),
    ] = None,
) -> None:
    """Classify image files."""
    import torch

    from advprop.exports.export import is_export, load_export
    from advprop.exports.prediction import find_images, predictions
    from advprop.suites import load_subject

    if json is not None and json != "-":
        check_json_target(Path(json), "image")
    files = find_images(images)
    subject = (
        load_export(run_or_export) if is_export(run_or_export) else load_subject(run_or_export)
    )
    found = predictions(
        subject.model.to("cuda" if torch.cuda.is_available() else "cpu"),
        files,
        class_names=subject.class_names,
        preprocessing=subject.preprocessing,
        top=top,
        batch_size=batch_size,
        multi_label=subject.multi_label,
    )
    total, failed = _write(found, json)
    if failed:
        raise ValueError(f"{failed} of {total} images could not be read; each is named above")


def _write(found: Iterable[Prediction], json: str | None) -> tuple[int, int]:
    """Print or write `found`; return the numbers of images and of unreadable ones."""
    import sys

    from advprop.files.atomic import write_atomically

    if json is None:
        return _report(found, None)
    if json == "-":
        return _report(found, sys.stdout.buffer, quiet=True)
    ended: list[tuple[int, int]] = []
    write_atomically(Path(json), lambda file: ended.append(_report(found, file)))
    return ended[0]


def _report(
    found: Iterable[Prediction], file: IO[bytes] | None, *, quiet: bool = False
) -> tuple[int, int]:
    total = failed = 0
    for total, prediction in enumerate(found, start=1):
        if prediction.error is not None:
            failed += 1
            say(f"advprop: warning: {prediction.error}", err=True)
        elif not quiet:
            say(_line(prediction))
        if file is not None:
            file.write(("[\n" if total == 1 else ",\n").encode() + _entry(prediction))
    if file is not None:
        file.write(b"\n]\n")
    return total, failed


def _line(prediction: Prediction) -> str:
    from advprop.files.parsing import printable

    listed = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.classes)
    return printable(f"{prediction.path}: {listed}", lines=False)


def _entry(prediction: Prediction) -> bytes:
    import json

    entry: dict[str, Any] = {"image": prediction.path}
    if prediction.error is not None:
        entry["error"] = prediction.error
    else:
        entry["classes"] = [
            {"name": name, "probability": probability} for name, probability in prediction.classes
        ]
    return json.dumps(entry).encode()
