"""From `results.json` and what the runs recorded to the one HTML file of the report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import cycle
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from advprop.evaluation.results import (
    ACCURACIES,
    BASELINES,
    EQUAL_COST,
    VANILLA,
    Cell,
    difference_cell,
    difference_of,
    results_table,
    summarise,
)
from advprop.report.charts import TITLES, Panel, cost_panels, difference_panels
from advprop.report.conclusion import conclude
from advprop.report.curves import DASHES, branch_names, curve_panels, statistics_panels
from advprop.report.gallery import galleries
from advprop.report.styles import method_styles

Json = Mapping[str, Any]
BASELINE_TITLES = {EQUAL_COST: "vanilla of equal cost", VANILLA: "vanilla of equal epochs"}
NEGATIVE = re.compile(r"(?<![^\s(])-(?=\d)")
RUN_COLUMNS = ("epochs", "passes_per_image", "train_seconds", *ACCURACIES)


@dataclass(frozen=True, kw_only=True)
class PanelGroup:
    """Panels side by side under one heading; `columns` is how many where there is room."""

    title: str
    panels: tuple[Panel, ...]
    columns: int = 3


def render_report(results: Json, details: Json | None = None) -> str:
    """The report as one HTML text that needs nothing from anywhere else.

    `results` is what `results.json` holds, `details` what docs/results.md lists under the
    report: command, curves, records, notes. Whatever is missing is said to be missing.
    """
    details = details or {}
    runs = [{**run, "method": str(run["method"])} for run in results.get("runs") or ()]
    summary = results.get("summary") or summarise(runs)
    curves = [{**c, "method": str(c["method"])} for c in details.get("curves") or ()]
    records = [{**r, "method": str(r["method"])} for r in details.get("records") or ()]
    named = [entry["method"] for entry in [*summary, *curves, *records]]
    styles = method_styles(list(dict.fromkeys(named)))
    records.sort(key=lambda record: list(styles).index(record["method"]))
    page = {
        "recipe": str(results.get("recipe") or "unnamed"),
        "conclusion": conclude(summary),
        "table": results_table(summary),
        "measured": any(accuracy in entry for entry in summary for accuracy in ACCURACIES),
        "differences": _difference_tables(summary),
        "runs": _run_rows(runs),
        "run_columns": RUN_COLUMNS,
        "styles": styles,
        "methods": [entry["method"] for entry in summary],
        "difference_groups": _difference_groups(summary, styles),
        "cost_groups": _cost_groups(summary, runs, styles),
        "curve_groups": _groups(("", curve_panels(curves, styles), 3)),
        "branches": list(zip(branch_names(curves), cycle(DASHES), strict=False)),
        "has_validation": any(
            p.get("validation_accuracy") is not None for c in curves for p in c["points"]
        ),
        "galleries": galleries(records),
        "statistics_groups": _groups(("", statistics_panels(records, styles), 2)),
        "commands": _lines(details.get("command") or results.get("command")),
        "tested_on": sorted({str(run["tested_on"]) for run in runs if run.get("tested_on")}),
        "notes": _notes(runs, details),
        "versions": {str(k): str(v) for k, v in (results.get("versions") or {}).items()},
    }
    return str(_template().render(**page, **_assets()))


def _groups(*candidates: tuple[str, list[Panel], int]) -> list[PanelGroup]:
    return [
        PanelGroup(title=title, panels=tuple(panels), columns=columns)
        for title, panels, columns in candidates
        if panels
    ]


def _cost_groups(
    summary: Sequence[Json], runs: Sequence[Json], styles: Mapping[str, Any]
) -> list[PanelGroup]:
    if sum("clean_accuracy" in entry for entry in summary) < 2:
        return []
    titles = {"total_passes": "Cost in passes", "train_seconds": "Cost in seconds"}
    return _groups(
        *((title, cost_panels(summary, runs, styles, cost), 3) for cost, title in titles.items())
    )


def _difference_groups(summary: Sequence[Json], styles: Mapping[str, Any]) -> list[PanelGroup]:
    """The differences to the sterner baseline that was run; the tables hold those to both."""
    return _groups(
        *(
            (f"Difference to {title}", difference_panels(summary, styles, baseline), 3)
            for baseline, title in BASELINE_TITLES.items()
        )
    )[:1]


def _difference_tables(
    summary: Sequence[Json],
) -> list[tuple[str, list[tuple[str, list[Cell]]]]]:
    """For each baseline its title and rows (method, a cell an accuracy), where any is known."""
    tables = []
    for baseline, title in BASELINE_TITLES.items():
        rows = [
            (
                entry["method"],
                [difference_cell(difference_of(entry, baseline, key)) for key in ACCURACIES],
            )
            for entry in summary
            if entry["method"] not in BASELINES
            or (entry["method"] == EQUAL_COST and baseline == VANILLA)
        ]
        if any(cell.value != "-" for _, cells in rows for cell in cells):
            tables.append((title, rows))
    return tables


def _run_rows(runs: Sequence[Json]) -> list[tuple[str, list[str]]]:
    return [
        (
            run["method"],
            [str(run["seed"]), *(_run_value(key, run.get(key)) for key in RUN_COLUMNS)],
        )
        for run in runs
    ]


def _run_value(key: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if key in ACCURACIES else f"{value:.4g}"


def _notes(runs: Sequence[Json], details: Json) -> list[str]:
    flags = [
        f"{run['method']}, seed {run['seed']}: {flag['message']}"
        for run in runs
        for flag in run.get("red_flags") or ()
    ]
    return [*flags, *map(str, details.get("notes") or ())]


def _lines(command: object) -> list[str]:
    return [line for line in str(command or "").splitlines() if line.strip()]


@cache
def _template() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = with_minus
    environment.filters["script_json"] = _script_json
    environment.globals["accuracy_titles"] = list(TITLES.values())
    return environment.from_string(_own_file("template.html.jinja"))


def _assets() -> dict[str, Markup]:
    """Our style and script, and plotly.js: trusted text of installed packages, not escaped."""
    return {
        "css": Markup(_own_file("report.css")),
        "script": Markup(_own_file("report.js")),
        "plotly": Markup(get_plotlyjs()),
    }


def _own_file(name: str) -> str:
    return (files("advprop.report") / name).read_text(encoding="utf-8")


def with_minus(text: str) -> str:
    """The hyphens in front of numbers as minus signs; those inside words stay."""
    return NEGATIVE.sub("\N{MINUS SIGN}", text)


def _script_json(value: Any) -> Markup:
    """JSON that is harmless inside a script element, whatever its strings hold."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"}))
