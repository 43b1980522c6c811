"""`advprop recipes`."""

from __future__ import annotations

from typing import Annotated

import typer


def main(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Print this recipe's configuration.")
    ] = None,
) -> None:
    """List the recipes, or print one recipe's resolved configuration."""
    from advprop.recipes import RECIPES
    from advprop.recipes.resolve import resolve_recipe

    if name is not None:
        typer.echo(resolve_recipe(name).model_dump_json(indent=2))
        return
    for key, recipe in RECIPES.items():
        typer.echo(f"{key}\n  {recipe.command}\n  time: {recipe.time}\n  result: {recipe.result}")
