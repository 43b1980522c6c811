"""The numbers of the figures as tables of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advprop.files.parsing import read_part
from advprop.report.answer.conclusion import BASELINE_TITLES
from advprop.report.answer.estimates import Estimate, estimate
from advprop.report.figures.charts import accuracy_title
from advprop.report.figures.robustness import Found, series
from advprop.report.figures.soups import soup_series
from advprop.report.findings import Findings
from advprop.results.cells import (
    Cell,
    accuracy_cell,
    difference_cell,
    number_text,
    passes_cell,
)
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
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def difference_tables(
    summary: Sequence[Json],
) -> list[tuple[str, list[tuple[str, list[Cell]]]]]:
    """Return each baseline's title and rows (method, a cell per accuracy), if any is known."""
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
    """Return the names of the accuracies of further suites."""
    return [name for name in accuracy_names(summary) if name not in ACCURACIES]


def main_accuracies(summary: Sequence[Json]) -> list[str]:
    """Return the accuracies of the first table: the usual three, and others if at most `ROOM`."""
    others = other_accuracies(summary)
    return [*ACCURACIES, *(others if len(others) <= ROOM else ())]


def main_rows(summary: Sequence[Json]) -> list[tuple[str, list[Cell]]]:
    """Return each method's accuracies and costs."""
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
    """Return the accuracies of suites that the first table omits, or None without any."""
    names = other_accuracies(summary)
    if len(names) <= ROOM:
        return None
    return Table(
        caption="Further suites and measures: mean over seeds, 95 % interval.",
        columns=tuple(accuracy_title(name) for name in names),
        rows=tuple(
            (entry["method"], tuple(accuracy_cell(entry.get(name)) for name in names))
            for entry in summary
            if any(name in entry for name in names)
        ),
    )


def curve_tables(found: Found) -> list[Table]:
    """Return the robustness curves as numbers, a table per threat model."""
    names = dict.fromkeys(
        p.threat_model for runs in found.values() for run in runs for p in _curve(run)
    )
    tables = []
    for name in names:
        lines = {method: series(runs, name) for method, runs in found.items()}
        lines = {method: points for method, points in lines.items() if points}
        caption = f"Accuracy under {name} attacks by epsilon, a fraction of the range [0, 1]."
        tables.append(_of_lines(caption, lines))
    return tables


def soup_tables(found: Found) -> list[Table]:
    """Return the accuracies of branch soups by weight, a table per suite."""
    return [
        _of_lines(f"{accuracy_title(f'{suite}_accuracy')}: branch soups by weight.", lines)
        for suite, lines in soup_series(found).items()
    ]


def _of_lines(caption: str, lines: Mapping[str, Mapping[float, Estimate]]) -> Table:
    places = sorted({place for points in lines.values() for place in points})
    return Table(
        caption=caption,
        columns=tuple(f"{place:.4g}" for place in places),
        rows=tuple(
            (method, tuple(_cell(points.get(place)) for place in places))
            for method, points in lines.items()
        ),
    )


def branch_table(found: Found) -> Table | None:
    """Return the accuracy by attacked and evaluated branch, or None if no pairs were tested."""
    values: dict[str, dict[str, list[float]]] = {}
    for method, runs in found.items():
        for run in runs:
            for pair in run.suites.adversarial.pairs:
                column = f"{pair.attack_branch} attacked, {pair.eval_branch} tested"
                values.setdefault(method, {}).setdefault(column, []).append(pair.accuracy)
    return _of_values("Under attack, by the branch that is attacked and that is tested.", values)


def autoattack_table(found: Found) -> Table | None:
    """Return the accuracy after each attack of AutoAttack, or None if it was not run."""
    values: dict[str, dict[str, list[float]]] = {}
    for method, runs in found.items():
        for run in runs:
            for attack, accuracy in run.suites.autoattack.after.items():
                values.setdefault(method, {}).setdefault(attack, []).append(accuracy)
    return _of_values(
        "AutoAttack: accuracy that is left after each attack, in their order.", values
    )


def _curve(run: Findings) -> Sequence[Any]:
    return run.suites.adversarial.curve


def _cell(found: Estimate | None) -> Cell:
    return accuracy_cell(
        None if found is None else {"mean": found.mean, "ci95": found.ends, "n": found.n}
    )


def _of_values(caption: str, values: Mapping[str, Mapping[str, list[float]]]) -> Table | None:
    columns = tuple(dict.fromkeys(column for own in values.values() for column in own))
    if not columns:
        return None
    rows = tuple(
        (
            method,
            tuple(_cell(estimate(own[c]) if c in own else None) for c in columns),
        )
        for method, own in values.items()
    )
    return Table(caption=caption, columns=columns, rows=rows)


def run_columns(runs: Sequence[Json]) -> list[str]:
    """Return the keys that the table of single runs shows."""
    return [*RUN_COSTS, *accuracy_names(runs)]


def trials_table(trials: Sequence[Json]) -> Table | None:
    """Return the settings that were tried on validation images, or None without any."""
    tried = [read_part(Trial, trial) for trial in trials]
    if not tried:
        return None
    return Table(
        caption="Share of clean validation images right after one training with a seed of its own. "
        "No test image had a part in the choice, and costs do not include it.",
        columns=("Settings", "Validation"),
        rows=tuple((trial.method, (Cell(value=trial.told), _trial_cell(trial))) for trial in tried),
    )


def _trial_cell(trial: Trial) -> Cell:
    accuracy = _run_value("validation_accuracy", trial.validation_accuracy)
    word = "not trained" if trial.error else "chosen" if trial.chosen else ""
    return Cell(value=accuracy, interval=word, significant=word == "chosen")


def run_rows(runs: Sequence[Json]) -> list[tuple[str, list[str]]]:
    """Return every run's method, and its seed, costs, accuracies and folder."""
    keys = run_columns(runs)
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
