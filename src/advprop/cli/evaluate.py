"""`advprop evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from advprop.cli.options import (
    EvaluationSetOption,
    TestedArgument,
    WeightsOption,
    check_json_target,
    comma_separated,
    say,
)

SuiteOption = Annotated[
    str | None,
    typer.Option(
        help="Suites, separated by commas; by default clean,noise,adversarial if the model has "
        "images of its own, and those of --data."
    ),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(metavar="SUITE=DIR", help="The images for a suite; may be repeated."),
]
LimitOption = Annotated[
    int | None, typer.Option(help="At most N images, in proportion to the classes.", min=1)
]
RestartsOption = Annotated[int | None, typer.Option(help="Attack each image up to N times.")]
EpsilonsOption = Annotated[
    str | None, typer.Option(help="Attack with these Linf epsilons too, as in 1/255,2/255,4/255.")
]
L2EpsilonsOption = Annotated[str | None, typer.Option(help="The same for L2, as in 0.5,1.")]
AttackBranchOption = Annotated[
    str | None, typer.Option(help="The branch that is attacked; by default the one tested.")
]
AllBranchesOption = Annotated[
    bool, typer.Option("--all-branches", help="Attack and test every pair of branches too.")
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="Local weights for a timm model, in place of timm's.")
]
SourceOption = Annotated[
    Path | None, typer.Option(help="The run or export that the suite transfer attacks.")
]
Numbers = Mapping[str, Any]


def main(
    run_or_export: TestedArgument,
    suite: SuiteOption = None,
    data: DataOption = None,
    eval_branch: Annotated[str, typer.Option(help="The branch that is tested.")] = "clean",
    attack_branch: AttackBranchOption = None,
    all_branches: AllBranchesOption = False,
    restarts: RestartsOption = None,
    epsilons: EpsilonsOption = None,
    l2_epsilons: L2EpsilonsOption = None,
    source: SourceOption = None,
    source_branch: Annotated[str, typer.Option(help="The source's branch to attack.")] = "clean",
    weights: WeightsOption = None,
    checkpoint: CheckpointOption = None,
    limit: LimitOption = None,
    settings: EvaluationSetOption = None,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file.")] = None,
) -> None:
    """Test a model on clean, noisy and attacked images; red flags mark misleading results."""
    from advprop.files.json_files import write_json
    from advprop.runs.folder import check_weights
    from advprop.suites import evaluate
    from advprop.suites.recording import keeps_tests

    check_json_target(json, "suites", "red_flags")
    folders = dict(_pair(item) for item in data or [])
    kept = keeps_tests(Path(run_or_export))
    result = evaluate(
        run_or_export,
        suites=None if suite is None else comma_separated(suite),
        data=folders,
        eval_branch=eval_branch,
        attack_branch=attack_branch,
        all_branches=all_branches,
        source=source,
        source_branch=source_branch,
        settings=[*(settings or []), *_shorthands(restarts, epsilons, l2_epsilons)],
        weights=check_weights(weights),
        checkpoint=checkpoint,
        limit=limit,
    )
    if json is not None:
        write_json(json, result)
    asked = {"limit": limit, "weights": weights, "restarts": restarts, "set": settings}
    asked |= {"eval-branch": eval_branch, "attack-branch": attack_branch}
    lines = list(result_lines(result))
    lines += [_record(Path(run_or_export), result, asked, folders)] if kept else []
    say("\n".join([*lines, *flag_lines(result)]))


def _record(
    run: Path, result: dict[str, Any], asked: dict[str, Any], folders: dict[str, str]
) -> str:
    """Record the test in the run's folder if its options are standard; return a line about it."""
    from advprop.suites import DEFAULT_SUITES
    from advprop.suites.recording import record_test

    other = [f"--{name}" for name, value in asked.items() if value not in (None, [], "clean")]
    other += [f"--data {name}" for name in folders if name in DEFAULT_SUITES]
    if other:
        return f"not recorded in {run}: only tests without {', '.join(other)} are recorded"
    if not record_test(run, result):
        return f"not recorded in {run}: run advprop evaluate {run} without --suite first"
    return f"recorded in {run}; advprop report and the model card of advprop export use it"


def _shorthands(restarts: int | None, epsilons: str | None, l2_epsilons: str | None) -> list[str]:
    values = {"restarts": restarts, "epsilons": epsilons, "l2_epsilons": l2_epsilons}
    return [f"evaluation.{name}={value}" for name, value in values.items() if value is not None]


def _pair(item: str) -> tuple[str, str]:
    suite, equals, folder = item.partition("=")
    if not (equals and folder):
        raise ValueError(f'--data "{item}": write SUITE=DIR, as in clean=photos/test')
    return suite, folder


def result_lines(result: Numbers) -> Iterator[str]:
    """Yield a line about the tested model, and some lines for each suite."""
    yield f"{result['run']}: branch {result['branch']}, weights {result['weights']}"
    for name, numbers in result["suites"].items():
        first, *more = _lines(name, numbers)
        yield f"  {name}: {first}"
        yield from (f"    {line}" for line in more)


def flag_lines(result: Numbers) -> Iterator[str]:
    """Yield a line for each red flag."""
    for flag in result["red_flags"]:
        suite = f" ({flag['suite']})" if flag["suite"] else ""
        yield f"RED FLAG {flag['flag']}{suite}: {flag['message']}; see {flag['page']}"


def _lines(suite: str, numbers: Numbers) -> Iterator[str]:
    """Yield a line with the results, and one for each point of a curve and pair of branches."""
    low, high = numbers["ci95"]
    accuracy = cast("float", numbers[f"{suite}_accuracy"])
    text = f"accuracy {accuracy:.2%} (95 % interval {low:.1%} to {high:.1%})"
    text += f" on {numbers['num_images']} images ({numbers['images']})"
    yield text + _labels(suite, numbers) + _DETAILS.get(suite, _protocol)(numbers)
    for name, after in numbers.get("after", {}).items():
        yield f"accuracy after {name}: {after:.2%}"
    for point in numbers.get("curve", ()):
        yield f"{point['threat_model']} epsilon {point['epsilon']:.4g}: {point['accuracy']:.2%}"
    for pair in numbers.get("pairs", ()):
        branches = f"attacked {pair['attack_branch']}, tested {pair['eval_branch']}"
        yield f"{branches}: {pair['accuracy']:.2%}"


def _protocol(numbers: Numbers) -> str:
    return f": {numbers['protocol']}" if "protocol" in numbers else ""


def _labels(suite: str, numbers: Numbers) -> str:
    """Return the measures of several labels, if an image has them."""
    from advprop.results.summary import LABEL_MEASURES

    found = [(words, numbers.get(f"{suite}_{name}")) for name, words in LABEL_MEASURES.items()]
    return "".join(f", {words} {value:.3f}" for words, value in found if value is not None)


def _clean(numbers: Numbers) -> str:
    from advprop.suites.imagenet.classes import described

    worst = min(numbers["per_class"], key=lambda entry: entry["accuracy"])
    top5 = f", top 5 {numbers['top5_accuracy']:.2%}" if "top5_accuracy" in numbers else ""
    return (
        f"{top5}, expected calibration error {numbers['calibration']['ece']:.2%}, "
        f"worst class {described([worst['class']])} {worst['accuracy']:.1%}"
    )


def _noise(numbers: Numbers) -> str:
    return f", standard deviation {numbers['standard_deviation']:g}"


def _attack(numbers: Numbers) -> str:
    text = ""
    if "source" in numbers:
        text += (
            f", attack made for {numbers['source']} (its accuracy {numbers['source_accuracy']:.2%})"
        )
    text += f", {numbers['threat_model']} epsilon {numbers['epsilon']:.4g}"
    if "num_steps" in numbers:
        text += f", {numbers['num_steps']} steps"
    if numbers.get("restarts", 1) > 1:
        text += f", {numbers['restarts']} restarts"
    return f"{text}, attacked branch {numbers['attack_branch']}"


def _corruptions(numbers: Numbers) -> str:
    found = numbers["by_corruption"]
    worst = max(found, key=lambda name: cast("float", found[name]["mean_error"]))
    mce = f", mCE {100 * numbers['mce']:.1f}" if "mce" in numbers else ""
    return (
        f", mean error {numbers['mean_error']:.2%}{mce}, {len(found)} corruptions at severity "
        f"{', '.join(map(str, numbers['severities']))}, "
        f"worst {worst} {1 - found[worst]['mean_error']:.1%}; {numbers['made']}"
    )


_DETAILS = {
    "clean": _clean,
    "noise": _noise,
    **dict.fromkeys(("adversarial", "autoattack", "transfer"), _attack),
    "corruptions": _corruptions,
}
