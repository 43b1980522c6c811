"""`advprop evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from advprop.cli.evaluate_text import flag_lines, result_lines
from advprop.cli.json_target import check_json_target
from advprop.cli.options import EvaluationSetOption, TestedArgument, WeightsOption, comma_separated
from advprop.cli.terminal import say

SuiteOption = Annotated[
    str | None,
    typer.Option(
        help="Suites, separated by commas; by default clean,noise,adversarial where the model "
        "has images of its own, and those of --data."
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
    str | None, typer.Option(help="A curve over these, as in 1/255,2/255,4/255.")
]
L2EpsilonsOption = Annotated[str | None, typer.Option(help="The same for L2.")]
AttackBranchOption = Annotated[
    str | None, typer.Option(help="The branch that is attacked; by default the one tested.")
]
AllBranchesOption = Annotated[
    bool, typer.Option("--all-branches", help="Attack and test every pair of branches too.")
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="Local weights for a timm model, in place of timm's.")
]
MixOption = Annotated[
    str | None,
    typer.Option(
        metavar="W,W,...",
        help="Test branch soups of these weights too, from 0 (clean branch) to 1 (auxiliary "
        "branch); corruptions are then among the default suites.",
    ),
]
SourceOption = Annotated[
    Path | None, typer.Option(help="The run or export that suite transfer attacks.")
]


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
    mix: MixOption = None,
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
        mix=_weights(mix or ""),
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
        return f"not recorded in {run}: its own tests go without {', '.join(other)}"
    if not record_test(run, result):
        return f"not recorded in {run}: first comes advprop evaluate {run} without --suite"
    return f"recorded in {run}, for advprop report and the card of advprop export"


def _shorthands(restarts: int | None, epsilons: str | None, l2_epsilons: str | None) -> list[str]:
    values = {"restarts": restarts, "epsilons": epsilons, "l2_epsilons": l2_epsilons}
    return [f"evaluation.{name}={value}" for name, value in values.items() if value is not None]


def _weights(text: str) -> list[float]:
    try:
        return [float(word) for word in comma_separated(text)]
    except ValueError as error:
        raise ValueError(
            f'--mix "{text}": {error}; write numbers from 0 to 1, as in 0,0.25,1'
        ) from None


def _pair(item: str) -> tuple[str, str]:
    suite, equals, folder = item.partition("=")
    if not equals:
        raise ValueError(f'--data "{item}": write SUITE=DIR, as in clean=photos/test')
    return suite, folder
