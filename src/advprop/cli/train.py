"""`advprop train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from advprop.cli.options import QuietOption, RecipeArgument, SetOption


def main(
    recipe: RecipeArgument,
    method: Annotated[
        str | None, typer.Option(help="Another method than the recipe's.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the recipe's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/RECIPE-METHOD-seedN by default.")
    ] = None,
    settings: SetOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the newest checkpoint, or start where there is none."
        ),
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Train one model."""
    from advprop.config.overrides import apply_overrides
    from advprop.recipes.resolve import resolve_recipe
    from advprop.run_folder import is_finished
    from advprop.runs import train
    from advprop.training.stopping import InterruptedTraining

    config = resolve_recipe(recipe)
    if method is not None:
        config = config.with_method(method)
    overrides = [*(settings or []), *([f"seed={seed}"] if seed is not None else [])]
    config = apply_overrides(config, overrides)
    folder = out or Path("runs") / f"{config.recipe}-{config.method.kind}-seed{config.seed}"
    was_finished = is_finished(folder)
    try:
        result = train(config, folder, resume=resume, quiet=quiet)
    except InterruptedTraining as error:
        error.add_note("go on with the same command and --resume")
        raise
    if int(os.environ.get("RANK", "0")) > 0:
        return  # of the processes that torchrun starts, the first speaks
    ending = "finished already, nothing done" if was_finished else "finished"
    typer.echo(
        f"{folder}: {ending}; validation accuracy {result['validation_accuracy']:.1%} after "
        f"{result['epochs']} epochs, {result['train_seconds']:.0f} s"
    )
    typer.echo(f"next: advprop evaluate {folder}")
