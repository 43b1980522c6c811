"""The one way to the terminal."""

from __future__ import annotations

import typer


def say(text: str, *, err: bool = False) -> None:
    """Print lines; what names in them would do to a terminal is escaped."""
    from advprop.files.parsing import printable  # a tenth of a second to import

    typer.echo(printable(text), err=err)
