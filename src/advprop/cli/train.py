"""`advprop train`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advprop.cli.options import QuietOption, RecipeArgument, SetOption, process_number, say
from advprop.files.atomic import safe_name

if TYPE_CHECKING:
    from advprop.config import RunConfig


_OutOption = Annotated[
    Path | None,
    typer.Option(
        help="The run's folder; runs/RECIPE-METHOD-seedN by default, with --resume that of a "
        "saved config.json."
    ),
]


def main(
    recipe: RecipeArgument,
    method: Annotated[
        str | None, typer.Option(help="Another method than the recipe's.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the recipe's.")] = None,
    out: _OutOption = None,
    settings: SetOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the newest checkpoint, or start if there is none."
        ),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's event files into the folder.")
    ] = False,
    wandb: Annotated[
        str | None,
        typer.Option(metavar="[TEAM/]PROJECT", help="Log to this project of Weights & Biases."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Train one model; torchrun trains it on several devices."""
    from advprop.recipes.resolve import resolve_run
    from advprop.runs import train
    from advprop.runs.folder import RESULT
    from advprop.training.stopping import InterruptedTraining

    overrides = [*(settings or []), *([f"seed={seed}"] if seed is not None else [])]
    config = resolve_run(recipe, method=method, overrides=overrides)
    folder = out or _folder(recipe, config, resume=resume)
    before = _content(folder / RESULT)
    try:
        result = train(
            config,
            folder,
            resume=resume,
            more_epochs=_sets_length(overrides),
            quiet=quiet,
            tensorboard=tensorboard,
            wandb=wandb,
        )
    except InterruptedTraining as error:
        error.add_note(f"go on with the same command and --resume ({folder})")
        raise
    if process_number() == "0":  # under torchrun only the first process prints
        _show(folder, before, result)


def _sets_length(overrides: Sequence[str]) -> bool:
    """Return whether a command sets the number of epochs, so that a resumed run may get more."""
    from advprop.config.overrides import parse_override

    paths = [parse_override(override)[0] for override in overrides]
    return "training" in paths or "training.num_epochs" in paths


def _folder(recipe: str, config: RunConfig, *, resume: bool) -> Path:
    from advprop.recipes.resolve import own_folder

    own = own_folder(recipe, config) if resume else None
    named = safe_name(config.recipe, config.method.kind, f"seed{config.seed}")
    return own or Path("runs") / named


def _show(folder: Path, before: bytes | None, result: dict[str, Any]) -> None:
    from advprop.runs.folder import RESULT

    nothing_done = before is not None and before == _content(folder / RESULT)
    ending = "already finished, nothing done" if nothing_done else "training finished"
    epochs = f"{result['epochs']} epoch{'s' * (result['epochs'] != 1)}"
    say(
        f"{folder}: {ending}; validation accuracy {result['validation_accuracy']:.1%} after "
        f"{epochs} in {result['train_seconds']:.0f} s"
    )
    say("files: config.json, metrics.jsonl, result.json, checkpoints/ (last and best weights)")
    say(f"next: {shlex.join(['advprop', 'evaluate', str(folder)])}")


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
