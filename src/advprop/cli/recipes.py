"""`advprop recipes`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from advprop.cli.options import say

if TYPE_CHECKING:
    from advprop.recipes import Recipe

_COLUMNS = 80


def main(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Print this recipe's configuration.")
    ] = None,
) -> None:
    """List the recipes, or print one recipe's resolved configuration."""
    from advprop.recipes import RECIPES
    from advprop.recipes.resolve import resolve_recipe

    if name is not None:
        say(resolve_recipe(name).model_dump_json(indent=2))
        return
    for key, recipe in RECIPES.items():
        say("\n".join([key, *_command(recipe.command), *_facts(recipe)]))


def _command(command: str) -> list[str]:
    """Return the command to copy, in two lines if one would be too long."""
    if len(command) + 2 <= _COLUMNS:
        return [f"  {command}"]
    start, setting = command.rsplit(" --set ", 1)
    return [f"  {start} \\", f"      --set {setting}"]


def _facts(recipe: Recipe) -> list[str]:
    facts = {"time": recipe.time, "result": recipe.result}
    return [
        line
        for name, text in facts.items()
        for line in textwrap.wrap(
            f"{name}: {text}",
            _COLUMNS,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
