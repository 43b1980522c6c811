"""`advprop compare`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from advprop.cli.options import QuietOption, RecipeArgument, SetOption, comma_separated
from advprop.cli.terminal import say
from advprop.files.atomic import safe_name


def main(
    recipe: RecipeArgument,
    methods: Annotated[
        str, typer.Option(help="Methods, separated by commas; vanilla_equal_cost always joins.")
    ] = "vanilla,adversarial,mixed,advprop",
    seeds: Annotated[int, typer.Option(help="Seeds 0 to N-1.")] = 3,
    jobs: Annotated[int, typer.Option(help="So many runs at a time.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="The comparison's folder; runs/compare-RECIPE by default.")
    ] = None,
    settings: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train and test methods side by side; goes on with what the folder has already."""
    from advprop.cli.tables import print_results
    from advprop.comparisons.comparing import compare
    from advprop.comparisons.sources import RESULTS, read_results
    from advprop.recipes.resolve import resolve_recipe
    from advprop.results.summary import summarise

    config = resolve_recipe(recipe)
    folder = out or Path("runs", safe_name("compare", config.recipe))

    try:
        results = compare(
            config,
            folder,
            methods=comma_separated(methods),
            num_seeds=seeds,
            jobs=jobs,
            overrides=settings or [],
            report_finished=_ignore if quiet else _show,
            command=shlex.join(["advprop", *sys.argv[1:]]),
        )
    except KeyboardInterrupt:
        if (folder / RESULTS).is_file():
            found = read_results(folder)
            print_results({**found, "summary": summarise(found["runs"])})
        say(f"{folder}: the same command goes on", err=True)
        raise
    print_results(results)
    say(f"{folder}/results.json and {folder}/report.html written")
    for failed in results["failed"]:
        line = f"{failed['method']} seed {failed['seed']}: {failed['error']}"
        say(f"advprop: warning: {line}", err=True)
    if results["failed"]:
        raise typer.Exit(3)


def _show(row: dict[str, Any]) -> None:
    say(
        f"{row['method']} seed {row['seed']}: clean {row['clean_accuracy']:.1%}, "
        f"noise {row['noise_accuracy']:.1%}, adversarial "
        f"{row['adversarial_accuracy']:.1%} ({row['train_seconds']:.0f} s)",
        err=True,
    )


def _ignore(row: dict[str, Any]) -> None:
    pass
