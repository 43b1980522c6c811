"""`advprop evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from advprop.cli.options import EvaluationSetOption, TestedArgument, WeightsOption, comma_separated


def main(
    run_or_export: TestedArgument,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Suites, separated by commas; by default clean,noise,adversarial where the model "
            "has images of its own, and those of --data."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="SUITE=DIR", help="The images for a suite; may be repeated."),
    ] = None,
    eval_branch: Annotated[str, typer.Option(help="The branch that is tested.")] = "clean",
    attack_branch: Annotated[
        str | None, typer.Option(help="The branch that is attacked; by default the one tested.")
    ] = None,
    weights: WeightsOption = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Local weights for a timm model, in place of timm's.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="So many images at most, in proportion to the classes.", min=1),
    ] = None,
    settings: EvaluationSetOption = None,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
) -> None:
    """Test a model: clean accuracy, under noise, under attack, under corruptions."""
    from advprop.run_folder import check_weights
    from advprop.suites import evaluate
    from advprop.training.files import write_json

    result = evaluate(
        run_or_export,
        suites=None if suite is None else comma_separated(suite),
        data=dict(_pair(item) for item in data or []),
        eval_branch=eval_branch,
        attack_branch=attack_branch,
        weights=check_weights(weights),
        checkpoint=checkpoint,
        limit=limit,
        settings=settings or [],
    )
    typer.echo(f"{result['run']}: branch {result['branch']}, weights {result['weights']}")
    for name, numbers in result["suites"].items():
        typer.echo(f"  {name}: {_describe(name, numbers)}")
    if json is not None:
        write_json(json, result)


def _describe(suite: str, numbers: dict[str, Any]) -> str:
    low, high = numbers["ci95"]
    accuracy = cast("float", numbers[f"{suite}_accuracy"])
    text = f"{accuracy:.2%} [{low:.1%}, {high:.1%}]"
    text += f" of {numbers['num_images']} images ({numbers['images']})"
    return text + _DETAILS.get(suite, _protocol)(numbers)


def _protocol(numbers: dict[str, Any]) -> str:
    return f": {numbers['protocol']}" if "protocol" in numbers else ""


def _clean(numbers: dict[str, Any]) -> str:
    from advprop.suites.imagenet_classes import described

    worst = min(numbers["per_class"], key=lambda entry: entry["accuracy"])
    top5 = f", top 5 {numbers['top5_accuracy']:.2%}" if "top5_accuracy" in numbers else ""
    return (
        f"{top5}, calibration error {numbers['calibration']['ece']:.2%}, "
        f"lowest class {described([worst['class']])} {worst['accuracy']:.1%}"
    )


def _noise(numbers: dict[str, Any]) -> str:
    return f", standard deviation {numbers['standard_deviation']:g}"


def _adversarial(numbers: dict[str, Any]) -> str:
    return (
        f", {numbers['threat_model']} epsilon {numbers['epsilon']:.4g}, "
        f"{numbers['num_steps']} steps, attacked branch {numbers['attack_branch']}"
    )


def _corruptions(numbers: dict[str, Any]) -> str:
    found = numbers["by_corruption"]
    worst = max(found, key=lambda name: cast("float", found[name]["mean_error"]))
    mce = f", mCE {100 * numbers['mce']:.1f}" if "mce" in numbers else ""
    return (
        f", mean error {numbers['mean_error']:.2%}{mce}, {len(found)} corruptions at severity "
        f"{', '.join(map(str, numbers['severities']))}, "
        f"hardest {worst} {1 - found[worst]['mean_error']:.1%}; {numbers['made']}"
    )


_DETAILS = {
    "clean": _clean,
    "noise": _noise,
    "adversarial": _adversarial,
    "corruptions": _corruptions,
}


def _pair(item: str) -> tuple[str, str]:
    suite, equals, folder = item.partition("=")
    if not equals:
        raise ValueError(f'--data "{item}": write SUITE=DIR, as in clean=photos/test')
    return suite, folder
