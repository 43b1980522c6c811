"""`advprop compare`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from advprop.cli.options import QuietOption, RecipeArgument, SetOption, comma_separated, say
from advprop.files.atomic import safe_name

EqualOption = Annotated[
    Literal["passes", "seconds"],
    typer.Option(
        help="With passes, vanilla_equal_cost gets as many passes as the most expensive method; "
        "with seconds, all methods train for the time of that method, by steps timed here first."
    ),
]
VaryOption = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="PATH=A,B",
        help="Try these values of a setting on validation images first; each method that has it "
        "then trains with its best one. May be repeated.",
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option(
        metavar="K/N",
        help="Train only the K-th of N parts of the runs, for N machines that share --out; "
        "the same command without --part combines them.",
    ),
]


def main(
    recipe: RecipeArgument,
    methods: Annotated[
        str, typer.Option(help="Methods, separated by commas; vanilla_equal_cost is always added.")
    ] = "vanilla,adversarial,mixed,advprop",
    seeds: Annotated[int, typer.Option(help="Train each with seeds 0 to N-1.")] = 3,
    jobs: Annotated[int, typer.Option(help="Number of runs at a time.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="The comparison's folder; runs/compare-RECIPE by default.")
    ] = None,
    equal: EqualOption = "passes",
    vary: VaryOption = None,
    part: PartOption = None,
    settings: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train and test methods side by side; runs that the folder already holds are kept."""
    from advprop.cli.tables import print_results
    from advprop.comparisons.comparing import compare
    from advprop.recipes.resolve import resolve_recipe

    config = resolve_recipe(recipe)
    folder = out or Path("runs", safe_name("compare", config.recipe))
    if equal == "seconds" and not quiet:
        say(f"timing a step of each method that {folder}/step_costs.json lacks", err=True)
    try:
        results = compare(
            config,
            folder,
            methods=comma_separated(methods),
            num_seeds=seeds,
            jobs=jobs,
            overrides=settings or [],
            equal=equal,
            vary=vary or [],
            part=_part(part),
            report_finished=(lambda row: None) if quiet else _show,
            command=shlex.join(["advprop", *sys.argv[1:]]),
        )
    except (KeyboardInterrupt, SystemExit):
        _say_what_is_kept(folder)
        raise
    if part is None:
        print_results(results)
        say(f"{folder}/results.json and {folder}/report.html written")
    else:
        done = f"part {part} finished, {len(results['runs'])} runs"
        say(f"{folder}: {done}; when all parts are, the same command without --part combines them")
    _end(results)


def _say_what_is_kept(folder: Path) -> None:
    from advprop.cli.tables import print_results
    from advprop.comparisons.sources import RESULTS, read_results
    from advprop.results.summary import summarise

    if (folder / RESULTS).is_file():
        found = read_results(folder)
        print_results({**found, "summary": summarise(found["runs"])})
    say(f"{folder}: run the same command again to continue", err=True)


def _end(results: dict[str, Any]) -> None:
    """Print the failed runs and exit with code 3 if there are any."""
    for failed in results["failed"]:
        line = f"{failed['method']} seed {failed['seed']}: {failed['error']}"
        say(f"advprop: warning: {line}", err=True)
    if results["failed"]:
        raise typer.Exit(3)


def _part(text: str | None) -> tuple[int, int] | None:
    """Return the two numbers of a text such as "2/8"."""
    if text is None:
        return None
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise ValueError(f"part {text}: give K/N with K from 1 to N, as in 2/8")
    return int(number), int(count)


def _show(row: dict[str, Any]) -> None:
    from advprop.results.summary import headline_names

    if "clean_accuracy" in row:
        clean, noise, adversarial = (row[name] for name in headline_names([row]))
        found = (
            f"{row['method']} seed {row['seed']}: clean {clean:.1%}, noise {noise:.1%}, "
            f"adversarial {adversarial:.1%}"
        )
    else:  # a trial of --vary
        found = f"{Path(row['folder']).name}: validation {row['validation_accuracy']:.1%}"
    say(f"{found} ({row['train_seconds']:.0f} s)", err=True)
