"""`advprop report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def main(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A comparison's or run's folder.")],
) -> None:
    """Write report.html anew; a run that was not tested is tested first."""
    from advprop.comparison import report

    typer.echo(f"{report(folder)} written")
