"""Options shared by several subcommands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A recipe's name, a saved config.json, or file.py:function."
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN_OR_EXPORT", help="A run's folder, or an export's.")
]
TestedArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN_OR_EXPORT_OR_TIMM_NAME",
        help="A run's folder, an export's, or a model of timm's by name (needs --data).",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a setting, as in training.num_epochs=10; may be repeated.",
    ),
]
EvaluationSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a setting, as in evaluation.corruption_severities=3,5; may be repeated.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="last, best (on clean validation images) or ema; "
        "by default the average where one is kept, else the last."
    ),
]


def process_number() -> str:
    """Return the rank of this process among those that `torchrun` started; "0" if it is alone."""
    alone = os.environ.get("WORLD_SIZE", "1").strip() in ("", "1")
    return "0" if alone else os.environ.get("RANK", "0")


def comma_separated(text: str) -> list[str]:
    """Split "a,b,c" into its words."""
    return [word.strip() for word in text.split(",") if word.strip()]
