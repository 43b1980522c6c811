"""`advprop predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advprop.cli.options import RunArgument


def main(
    run_or_export: RunArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option(help="So many classes for each image.", min=1)] = 3,
) -> None:
    """Classify image files."""
    from advprop.prediction import predict
    from advprop.suites import load_subject

    subject = load_subject(run_or_export)
    found = predict(
        subject.model,
        images,
        class_names=subject.class_names,
        preprocessing=subject.preprocessing,
        top=top,
    )
    for path, classes in zip(images, found, strict=True):
        listed = ", ".join(f"{name} {probability:.1%}" for name, probability in classes)
        typer.echo(f"{path}: {listed}")
