"""Prints to the terminal; all commands print through this module."""

from __future__ import annotations

import typer


def say(text: str, *, err: bool = False) -> None:
    """Print lines; control characters in them are escaped."""
    from advprop.files.parsing import printable  # a tenth of a second to import

    typer.echo(printable(text), err=err)
