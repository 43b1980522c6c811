"""`advprop export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advprop.cli.options import WeightsOption


def main(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    out: Annotated[Path, typer.Option(help="The export's folder.")],
    weights: WeightsOption = None,
) -> None:
    """Write the plain model, its outputs proven equal, as safetensors and config.json."""
    from advprop.run_folder import check_weights, export

    folder = export(run, out, weights=check_weights(weights))
    typer.echo(f"{folder} written; outputs equal the run's clean branch, bit for bit")
    typer.echo(f"next: advprop predict {folder} IMAGE")
