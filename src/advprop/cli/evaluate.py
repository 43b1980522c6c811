"""`advprop evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from advprop.cli.options import RunArgument, WeightsOption, comma_separated


def main(
    run_or_export: RunArgument,
    suite: Annotated[str, typer.Option(help="Suites, separated by commas.")] = (
        "clean,noise,adversarial"
    ),
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="SUITE=DIR", help="Other images for a suite; may be repeated."),
    ] = None,
    eval_branch: Annotated[str, typer.Option(help="The branch that is tested.")] = "clean",
    attack_branch: Annotated[
        str | None, typer.Option(help="The branch that is attacked; by default the one tested.")
    ] = None,
    weights: WeightsOption = None,
    limit: Annotated[int | None, typer.Option(help="So many images at most.", min=1)] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
) -> None:
    """Test a model: clean accuracy, under noise, under attack."""
    from advprop.run_folder import check_weights
    from advprop.suites import evaluate
    from advprop.training.files import write_json

    result = evaluate(
        run_or_export,
        suites=comma_separated(suite),
        data=dict(_pair(item) for item in data or []),
        eval_branch=eval_branch,
        attack_branch=attack_branch,
        weights=check_weights(weights),
        limit=limit,
    )
    typer.echo(f"{result['run']}: branch {result['branch']}, weights {result['weights']}")
    for name, numbers in result["suites"].items():
        typer.echo(f"  {name}: {_describe(name, numbers)}")
    if json is not None:
        write_json(json, result)


def _describe(suite: str, numbers: dict[str, Any]) -> str:
    accuracy = cast("float", numbers[f"{suite}_accuracy"])
    text = f"{accuracy:.2%} of {numbers['num_images']} images ({numbers['images']})"
    if suite == "noise":
        text += f", standard deviation {numbers['standard_deviation']:g}"
    if suite == "adversarial":
        text += (
            f", {numbers['threat_model']} epsilon {numbers['epsilon']:.4g}, "
            f"{numbers['num_steps']} steps, attacked branch {numbers['attack_branch']}"
        )
    return text


def _pair(item: str) -> tuple[str, str]:
    suite, equals, folder = item.partition("=")
    if not equals:
        raise ValueError(f'--data "{item}": write SUITE=DIR, as in clean=photos/test')
    return suite, folder
