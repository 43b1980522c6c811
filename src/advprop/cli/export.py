"""`advprop export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from advprop.cli.options import WeightsOption, comma_separated, say

PushOption = Annotated[
    str | None,
    typer.Option(
        metavar="ORG/NAME",
        help="Upload the export to this model repository of the Hugging Face Hub, which is created "
        "if it does not exist.",
    ),
]


def main(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    out: Annotated[Path, typer.Option(help="The export's folder.")],
    weights: WeightsOption = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="hub,onnx,torch_export",
            help="Formats, separated by commas; hub (safetensors and config.json) is always among "
            "them.",
        ),
    ] = "hub",
    push: PushOption = None,
) -> None:
    """Write the plain model, which is checked to give equal outputs, and a model card."""
    from advprop.exports.format import read_checks
    from advprop.exports.push import check_push, push_export
    from advprop.runs.exporting import export
    from advprop.runs.folder import check_weights

    if push is not None:
        check_push(push)
    folder = export(
        run,
        out,
        weights=check_weights(weights),
        formats=comma_separated(format) or ["hub"],
    )
    say(f"{folder} written; its outputs equal those of the run's clean branch bit for bit")
    for file, check in read_checks(folder).items():
        say(
            f"{folder / file}: same predictions, logits differ by at most "
            f"{check['max_difference']:.2g} (allowed: {check['tolerance']:.2g})"
        )
    if push is not None:
        say(f"uploaded to {push_export(folder, push)}")
    say(f"next: {shlex.join(['advprop', 'predict', str(folder), 'IMAGE'])}")
