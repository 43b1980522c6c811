"""`advprop export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from advprop.cli.options import WeightsOption, comma_separated, say


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
) -> None:
    """Write the plain model, which is checked to give equal outputs, and a model card."""
    from advprop.exports.format import read_checks
    from advprop.runs.exporting import export
    from advprop.runs.folder import check_weights

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
    say(f"next: {shlex.join(['advprop', 'predict', str(folder), 'IMAGE'])}")
