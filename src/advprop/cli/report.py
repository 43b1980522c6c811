"""`advprop report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advprop.cli.options import say


def main(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Folders of comparisons or runs, or files of advprop evaluate --json.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write; by default report.html in the one folder named, or here."
        ),
    ] = None,
) -> None:
    """Write a page that compares any runs; runs without tests are tested first."""
    from advprop.comparisons.gathering import report

    say(f"{report(places, out)} written")
