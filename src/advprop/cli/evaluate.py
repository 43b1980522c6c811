"""`advprop evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from advprop.cli.options import EvaluationSetOption, RunArgument, WeightsOption, comma_separated

RestartsOption = Annotated[int | None, typer.Option(help="Attack each image so often.")]
EpsilonsOption = Annotated[
    str | None, typer.Option(help="A curve over these, as in 1/255,2/255,4/255.")
]
L2EpsilonsOption = Annotated[str | None, typer.Option(help="The same in L2.")]
SourceOption = Annotated[
    Path | None, typer.Option(help="The run or export whose images suite transfer shows.")
]


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
    all_branches: Annotated[
        bool, typer.Option("--all-branches", help="Attack and test every pair of branches too.")
    ] = False,
    restarts: RestartsOption = None,
    epsilons: EpsilonsOption = None,
    l2_epsilons: L2EpsilonsOption = None,
    source: SourceOption = None,
    source_branch: Annotated[str, typer.Option(help="The branch of it attacked.")] = "clean",
    settings: EvaluationSetOption = None,
    weights: WeightsOption = None,
    limit: Annotated[int | None, typer.Option(help="So many images at most.", min=1)] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
) -> None:
    """Test a model: clean accuracy, under noise, under attack; red flags where figures mislead."""
    from advprop.run_folder import check_weights
    from advprop.suites import evaluate
    from advprop.training.files import write_json

    result = evaluate(
        run_or_export,
        suites=comma_separated(suite),
        data=dict(_pair(item) for item in data or []),
        eval_branch=eval_branch,
        attack_branch=attack_branch,
        all_branches=all_branches,
        source=source,
        source_branch=source_branch,
        settings=[*(settings or []), *_shorthands(restarts, epsilons, l2_epsilons)],
        weights=check_weights(weights),
        limit=limit,
    )
    _show(result)
    if json is not None:
        write_json(json, result)
    _show_flags(result)


def _show(result: dict[str, Any]) -> None:
    typer.echo(f"{result['run']}: branch {result['branch']}, weights {result['weights']}")
    for name, numbers in result["suites"].items():
        first, *more = _describe(name, numbers)
        typer.echo("\n  ".join([f"  {name}: {first}", *more]))


def _show_flags(result: dict[str, Any]) -> None:
    for flag in result["red_flags"]:
        suite = f" ({flag['suite']})" if flag["suite"] else ""
        typer.echo(f"RED FLAG {flag['flag']}{suite}: {flag['message']}; see {flag['page']}")


def _shorthands(restarts: int | None, epsilons: str | None, l2_epsilons: str | None) -> list[str]:
    values = {"restarts": restarts, "epsilons": epsilons, "l2_epsilons": l2_epsilons}
    return [f"evaluation.{name}={value}" for name, value in values.items() if value is not None]


def _describe(suite: str, numbers: dict[str, Any]) -> Iterator[str]:
    """A line of figures, and one for each point of a curve and each pair of branches."""
    accuracy = cast("float", numbers[f"{suite}_accuracy"])
    text = f"{accuracy:.2%} of {numbers['num_images']} images ({numbers['images']})"
    if suite == "noise":
        text += f", standard deviation {numbers['standard_deviation']:g}"
    if "source" in numbers:
        text += f", made for {numbers['source']} ({numbers['source_accuracy']:.2%} there)"
    yield text + (_attack(numbers) if "epsilon" in numbers else "")
    for name, after in numbers.get("after", {}).items():
        yield f"  after {name}: {after:.2%}"
    for point in numbers.get("curve", ()):
        yield f"  {point['threat_model']} epsilon {point['epsilon']:.4g}: {point['accuracy']:.2%}"
    for pair in numbers.get("pairs", ()):
        branches = f"attacked {pair['attack_branch']}, tested {pair['eval_branch']}"
        yield f"  {branches}: {pair['accuracy']:.2%}"


def _attack(numbers: dict[str, Any]) -> str:
    text = f", {numbers['threat_model']} epsilon {numbers['epsilon']:.4g}"
    if "num_steps" in numbers:
        text += f", {numbers['num_steps']} steps"
    if numbers.get("restarts", 1) > 1:
        text += f", {numbers['restarts']} restarts"
    return f"{text}, attacked branch {numbers['attack_branch']}"


def _pair(item: str) -> tuple[str, str]:
    suite, equals, folder = item.partition("=")
    if not equals:
        raise ValueError(f'--data "{item}": write SUITE=DIR, as in clean=photos/test')
    return suite, folder
