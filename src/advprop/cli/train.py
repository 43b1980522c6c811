"""`advprop train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from advprop.cli.options import QuietOption, RecipeArgument, SetOption, process_number
from advprop.cli.terminal import say


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
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's event files into the folder.")
    ] = False,
    wandb: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", help="Log to this project of Weights & Biases."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Train one model; under torchrun, on many devices."""
    from advprop.recipes.resolve import resolve_run
    from advprop.run_folder import is_finished
    from advprop.runs import train
    from advprop.training.stopping import InterruptedTraining

    overrides = [*(settings or []), *([f"seed={seed}"] if seed is not None else [])]
    config = resolve_run(recipe, method=method, overrides=overrides)
    folder = out or Path("runs") / f"{config.recipe}-{config.method.kind}-seed{config.seed}"
    was_finished = is_finished(folder)
    try:
        result = train(
            config, folder, resume=resume, quiet=quiet, tensorboard=tensorboard, wandb=wandb
        )
    except InterruptedTraining as error:
        error.add_note(f"go on with the same command and --resume ({folder})")
        raise
    if process_number() == "0":  # of torchrun's processes the first speaks
        ending = "finished already, nothing done" if was_finished else "finished"
        _show(folder, ending, result)


def _show(folder: Path, ending: str, result: dict[str, Any]) -> None:
    say(
        f"{folder}: {ending}; validation accuracy {result['validation_accuracy']:.1%} after "
        f"{result['epochs']} epochs, {result['train_seconds']:.0f} s"
    )
    say("there: config.json, metrics.jsonl, result.json, checkpoints/ (the last and best)")
    say(f"next: advprop evaluate {folder}")
