"""Prints results as a table on the terminal, at most 80 columns wide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from advprop.files.parsing import printable
from advprop.report.answer.overview import overview
from advprop.report.page.styles import titled
from advprop.results.cells import difference_cell, number_text
from advprop.results.rows import Trial
from advprop.results.summary import (
    ACCURACIES,
    EQUAL_COST,
    LABEL_MEASURES,
    difference_of,
    headline_names,
)

_HEADINGS = (
    "clean",
    "noise",
    "adver-\nsarial",
    "passes\nper\nimage",
    "sec.",
    "clean, vs\nvanilla at\nequal cost",
)


def print_results(results: Mapping[str, Any]) -> None:
    """Print a comparison's accuracies and costs as a table, and its conclusion in words."""
    runs, summary = titled(results["runs"], results["summary"])
    answer = overview(summary, runs)
    names = headline_names(results["summary"])
    recipe = printable(str(results["recipe"]))
    measure = "accuracy" if names == ACCURACIES else LABEL_MEASURES["auroc"]
    table = Table(
        title=f"{recipe}: test {measure} in % (± 95 % interval), Holm-corrected p-values",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in results["summary"]:
        difference = difference_cell(difference_of(entry, EQUAL_COST, names[0]))
        table.add_row(
            printable(entry["method"], lines=False),
            *(_accuracy(entry.get(name)) for name in names),
            number_text(entry.get("total_passes")),
            _seconds(entry.get("train_seconds")),
            "\n".join(part for part in (difference.value, difference.p_value) if part),
        )
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    for trial in map(Trial.model_validate, results.get("trials") or ()):
        if trial.chosen and not trial.error:
            chosen = f"chosen on validation images for {trial.method}: {trial.told}"
            console.print(printable(chosen, lines=False))
    console.print(printable(f"\n{answer.headline}\n{answer.cost}\n"))


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _accuracy(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "-"
    if value["ci95"] is None:
        return f"{100 * value['mean']:.1f}"
    return f"{100 * value['mean']:.1f} ± {50 * (value['ci95'][1] - value['ci95'][0]):.1f}"
