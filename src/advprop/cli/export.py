"""`advprop export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from advprop.cli.options import WeightsOption, comma_separated
from advprop.cli.terminal import say


def main(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    out: Annotated[Path, typer.Option(help="The export's folder.")],
    weights: WeightsOption = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="hub,onnx,torch_export",
            help="Formats, separated by commas; hub (safetensors and config.json) always comes.",
        ),
    ] = "hub",
) -> None:
    """Write the plain model, checked to have equal outputs, with a model card."""
    from advprop.exports.format import read_checks
    from advprop.runs.folder import check_weights, export

    folder = export(
        run, out, weights=check_weights(weights), formats=comma_separated(format) or ["hub"]
    )
    say(f"{folder} written; outputs equal the run's clean branch, bit for bit")
    for file, check in read_checks(folder).items():
        say(
            f"{folder / file}: same classes, logits differ by at most "
            f"{check['max_difference']:.2g} (allowed: {check['tolerance']:.2g})"
        )
    say(f"next: {shlex.join(['advprop', 'predict', str(folder), 'IMAGE'])}")
