"""The numbers of the figures as tables of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advprop.files.parsing import read_part
from advprop.report.answer.conclusion import BASELINE_TITLES
from advprop.report.answer.estimates import Estimate, estimate
from advprop.report.figures.charts import accuracy_title
from advprop.report.figures.lines import Lines, curve_series
from advprop.report.findings import Findings, Found
from advprop.results.cells import Cell, accuracy_cell, difference_cell, number_text, passes_cell
from advprop.results.rows import Trial
from advprop.results.summary import (
    ACCURACIES,
    EQUAL_COST,
    VANILLA,
    accuracy_names,
    difference_of,
    is_baseline,
    kind_of,
)

Json = Mapping[str, Any]
ROOM = 2  # the most accuracies beyond the usual three in the first table
RUN_COSTS = ("epochs", "passes_per_image", "train_seconds")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a caption, column titles, and a row of cells for each method."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]


def difference_tables(
    summary: Sequence[Json],
) -> list[tuple[str, list[tuple[str, list[Cell]]]]]:
    """Return a pair (title, rows) for each baseline from which some difference is known.

    A row is a pair (method, cells), with a cell for each accuracy.
    """
    tables = []
    names = [*ACCURACIES, *other_accuracies(summary)]
    for baseline, title in BASELINE_TITLES.items():
        rows = [
            (
                entry["method"],
                [difference_cell(difference_of(entry, baseline, key)) for key in names],
            )
            for entry in summary
            if not is_baseline(entry) or (kind_of(entry) == EQUAL_COST and baseline == VANILLA)
        ]
        if any(cell.value != "-" for _, cells in rows for cell in cells):
            tables.append((title, rows))
    return tables


def other_accuracies(summary: Sequence[Json]) -> list[str]:
    """Return the names of all accuracies but the usual three."""
    return [name for name in accuracy_names(summary) if name not in ACCURACIES]


def main_accuracies(summary: Sequence[Json]) -> list[str]:
    """Return the names for the first table: the usual three, and the others if at most `ROOM`."""
    others = other_accuracies(summary)
    return [*ACCURACIES, *(others if len(others) <= ROOM else ())]


def main_rows(summary: Sequence[Json]) -> list[tuple[str, list[Cell]]]:
    """Return the rows of the first table: method, accuracies, passes and seconds."""
    names = main_accuracies(summary)
    return [
        (
            entry["method"],
            [
                *(accuracy_cell(entry.get(name)) for name in names),
                passes_cell(entry),
                Cell(value=number_text(entry.get("train_seconds"))),
            ],
        )
        for entry in summary
    ]


def suites_table(summary: Sequence[Json]) -> Table | None:
    """Return the table of the accuracies that the first table omits, or None if it omits none."""
    names = other_accuracies(summary)
    if len(names) <= ROOM:
        return None
    return Table(
        caption="Further suites and measures: mean over seeds with its 95 % confidence interval.",
        columns=[accuracy_title(name) for name in names],
        rows=[
            (entry["method"], [accuracy_cell(entry.get(name)) for name in names])
            for entry in summary
            if any(name in entry for name in names)
        ],
    )


def curve_tables(found: Found) -> list[Table]:
    """Return the robustness curves as tables, one per threat model."""
    caption = "Accuracy under {} attacks for each epsilon, for pixel values in [0, 1]."
    return [_of_lines(caption.format(name), lines) for name, lines in curve_series(found).items()]


def _of_lines(caption: str, lines: Lines) -> Table:
    places = sorted({place for points in lines.values() for place in points})
    return Table(
        caption=caption,
        columns=[f"{place:.4g}" for place in places],
        rows=[
            (method, [_cell(points.get(place)) for place in places])
            for method, points in lines.items()
        ],
    )


def _cell(found: Estimate | None) -> Cell:
    return accuracy_cell(
        None if found is None else {"mean": found.mean, "ci95": found.ends, "n": found.n}
    )


def attack_tables(found: Found) -> list[Table]:
    """Return tables of the accuracy by pair of branches, and after each attack of AutoAttack."""
    branches = _by_column(
        "Accuracy under attack for each pair of attacked and tested branch.",
        found,
        lambda run: [
            (f"attacked: {pair.attack_branch}, tested: {pair.eval_branch}", pair.accuracy)
            for pair in run.suites.adversarial.pairs
        ],
    )
    caption = "AutoAttack: remaining accuracy after each of its attacks, in their order."
    return branches + _by_column(caption, found, lambda run: run.suites.autoattack.after.items())


def _by_column(
    caption: str, found: Found, columns_of: Callable[[Findings], Iterable[tuple[str, float]]]
) -> list[Table]:
    """Return a list with one table of means over seeds, or [] if no run has a column.

    `columns_of` returns the (title, accuracy) pairs of a run.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for method, runs in found.items():
        for column, accuracy in (pair for run in runs for pair in columns_of(run)):
            values.setdefault(method, {}).setdefault(column, []).append(accuracy)
    columns = list(dict.fromkeys(column for own in values.values() for column in own))
    rows = [
        (method, [_cell(estimate(own[c]) if c in own else None) for c in columns])
        for method, own in values.items()
    ]
    return [Table(caption=caption, columns=columns, rows=rows)] if columns else []


def trials_table(trials: Sequence[Json]) -> Table | None:
    """Return the table of the settings tried on validation images, or None if none were."""
    tried = [read_part(Trial, trial) for trial in trials]
    if not tried:
        return None
    return Table(
        caption="Accuracy on clean validation images after one training with a separate seed. Test "
        "images played no part in the choice, and costs do not include these trainings.",
        columns=("Settings", "Validation accuracy"),
        rows=[(trial.method, (Cell(value=trial.told), _trial_cell(trial))) for trial in tried],
    )


def _trial_cell(trial: Trial) -> Cell:
    accuracy = _run_value("validation_accuracy", trial.validation_accuracy)
    word = "not trained" if trial.error else "chosen" if trial.chosen else ""
    return Cell(value=accuracy, interval=word, significant=word == "chosen")


def run_rows(runs: Sequence[Json]) -> list[tuple[str, list[str]]]:
    """Return a row for each run: its method, and its seed, costs, accuracies and folder."""
    keys = [*RUN_COSTS, *accuracy_names(runs)]
    return [
        (
            run["method"],
            [
                str(run["seed"]),
                *(_run_value(key, run.get(key)) for key in keys),
                str(run.get("folder") or "-"),
            ],
        )
        for run in runs
    ]


def _run_value(key: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if key.endswith("_accuracy") else f"{value:.4g}"
