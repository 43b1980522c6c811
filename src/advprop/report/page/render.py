"""Renders the report's HTML from `results.json` and the records of runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import cycle
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from advprop.report import tables
from advprop.report.answer.conclusion import BASELINE_TITLES
from advprop.report.answer.estimates import references
from advprop.report.answer.overview import overview, red_flags
from advprop.report.facts import attack_of_tests, run_facts
from advprop.report.figures import calibration, charts, corruptions
from advprop.report.figures.charts import accuracy_title
from advprop.report.figures.curves import DASHES, branch_names, curve_panels, statistics_panels
from advprop.report.figures.drawing import Panel
from advprop.report.figures.lines import robustness_panels, strengths
from advprop.report.findings import Found, read_findings
from advprop.report.images import classes
from advprop.report.images.gallery import browse, galleries
from advprop.report.page.styles import Styles, method_styles, titled
from advprop.report.records import Record, read_records
from advprop.results.summary import ACCURACIES, accuracy_names, corrected, group_of, summarise

Json = Mapping[str, Any]
NEGATIVE = re.compile(r"(?<![^\s(])-(?=\d)")
BEFORE_UNIT = re.compile(r"(?<=\d) (?=%|points)|(?<=\bp) (?=[=<])|(?<=\bp [=<]) (?=\d)")


def render_report(results: Json, details: Json | None = None) -> str:
    """Return the report as one self-contained HTML text.

    `results` is the contents of `results.json`, `details` has the entries that docs/results.md
    lists under the report. Raises ValueError for a value of a wrong type in records, tests or
    trials, and as `summarise`.
    """
    details = details or {}
    runs = list(results.get("runs") or ())
    summary = summarise(runs) if runs else corrected(results.get("summary") or ())
    labelled = [
        details.get(key) or () for key in ("curves", "records", "tests", "configs", "trials")
    ]
    runs, summary, curves, records, tests, configs, trials = titled(runs, summary, *labelled)
    named = [entry["method"] for entry in [*summary, *curves, *records, *tests, *trials]]
    styles = method_styles(list(dict.fromkeys(named)), [*runs, *summary, *curves, *records, *tests])
    order = list(styles)
    for part in (records, tests):
        part.sort(key=lambda item: order.index(item["method"]))
    found, recorded = read_findings(tests), read_records(records)
    command = str(details.get("command") or results.get("command") or "")
    page = {
        "recipe": str(results.get("recipe") or "unnamed"),
        "conclusion": overview(summary, runs),
        "flags": red_flags(runs, found),
        "notes": [str(note) for note in details.get("notes") or ()],
        "styles": styles,
        "methods": [entry["method"] for entry in summary],
        "several_groups": len({group_of(entry) for entry in summary}) > 1,
        **_numbers(summary, runs, found),
        **_suites(summary, runs, found, styles),
        **_training(curves, recorded, styles),
        "galleries": galleries(recorded),
        "num_galleries": len({record.method for record in recorded if record.gallery}),
        "settings": run_facts(runs, configs),
        "attack": attack_of_tests(configs),
        "trials": tables.trials_table(trials),
        "browse": browse(recorded),
        "commands": [line for line in command.splitlines() if line.strip()],
        "versions": {str(k): str(v) for k, v in (results.get("versions") or {}).items()},
    }
    return str(_template().render(**page, **_assets()))


def _numbers(summary: Sequence[Json], runs: Sequence[Json], found: Found) -> dict[str, Any]:
    """Return the variables of the page's tables."""
    return {
        "table": tables.main_rows(summary),
        "accuracy_titles": [accuracy_title(name) for name in tables.main_accuracies(summary)],
        "measured": bool(accuracy_names(summary)),
        "differences": tables.difference_tables(summary),
        "difference_titles": [
            accuracy_title(name) for name in (*ACCURACIES, *tables.other_accuracies(summary))
        ],
        "suites_table": tables.suites_table(summary),
        "curve_tables": tables.curve_tables(found),
        "attack_tables": tables.attack_tables(found),
        "runs": tables.run_rows(runs),
        "run_titles": [accuracy_title(name) for name in accuracy_names(runs)],
        "tested_on": sorted({str(run["tested_on"]) for run in runs if run.get("tested_on")}),
    }


def _suites(
    summary: Sequence[Json], runs: Sequence[Json], found: Found, styles: Styles
) -> dict[str, Any]:
    """Return the variables of the page's sections on test results."""
    held = references(found, summary)
    costs = {"total_passes": "Cost in passes per image", "train_seconds": "Cost in training time"}
    several = sum("clean_accuracy" in entry for entry in summary) > 1
    differences = (
        _group(
            charts.difference_panels(summary, styles, baseline), title=f"Difference from {title}"
        )
        for baseline, title in BASELINE_TITLES.items()
    )
    return {
        # differences to vanilla at equal cost, or else to vanilla; tables have both
        "difference_groups": next(filter(None, differences), []),
        "cost_groups": [
            group
            for cost, title in costs.items()
            if several
            for group in _group(charts.cost_panels(summary, runs, styles, cost), title=title)
        ],
        "robustness_groups": _group(robustness_panels(found, styles), columns=2),
        "strengths": strengths(found),
        "corruption_views": _corruption_views(found, held),
        "corruption_rows": corruptions.corruption_rows(found),
        "class_groups": _group(classes.class_panels(found, held)),
        "class_table": classes.class_table(found, held),
        "confusion_table": classes.confusion_table(found),
        "calibration_groups": _group(calibration.calibration_panels(found, styles), columns=2),
    }


def _corruption_views(found: Found, held: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the views between which the reader switches, each with its colour scale."""
    accuracies = corruptions.corruption_panels(found)
    differences = corruptions.difference_panels(found, held)
    end = differences[0].figure["data"][0]["zmax"] if differences else 0
    minus, plus = f"\N{MINUS SIGN}{end:g} points", f"+{end:g} points"
    views = (
        ("Accuracy", accuracies, corruptions.ACCURACY_SCALE, "0 %", "100 %"),
        ("Difference", differences, corruptions.DIFFERENCE_SCALE, minus, plus),
    )
    return [
        {"title": title, "groups": _group(panels), "scale": scale, "low": low, "high": high}
        for title, panels, scale, low, high in views
        if panels
    ]


def _group(panels: Sequence[Panel], *, title: str = "", columns: int = 3) -> list[dict[str, Any]]:
    """Return a list with one group, `panels` under one heading; [] if there are no panels."""
    columns = 2 if len(panels) == 4 else columns
    return [{"title": title, "panels": panels, "columns": columns}] if panels else []


def _training(curves: Sequence[Json], records: Sequence[Record], styles: Styles) -> dict[str, Any]:
    """Return the variables of the page's sections on training and branches."""
    points = [point for curve in curves for point in curve["points"]]
    return {
        "branches": list(zip(branch_names(curves), cycle(DASHES), strict=False)),
        "has_validation": any(p.get("validation_accuracy") is not None for p in points),
        "curve_groups": _group(curve_panels(curves, styles)),
        "statistics_methods": list(dict.fromkeys(r.method for r in records if r.statistics)),
        "statistics_groups": _group(statistics_panels(records, styles), columns=2),
    }


@cache
def _template() -> Any:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_own_file),
    )
    environment.filters["typeset"] = typeset
    environment.filters["script_json"] = _script_json
    return environment.get_template("template.html.jinja")


def _assets() -> dict[str, Markup]:
    """Return the style sheet and scripts, trusted text of installed packages, without escaping."""
    return {
        "css": Markup(_own_file("report.css")),
        "script": Markup("\n".join(_own_file(name) for name in ("report.js", "browse.js"))),
        "plotly": Markup(get_plotlyjs()),
    }


def _own_file(name: str) -> str:
    return (files("advprop.report.page") / name).read_text(encoding="utf-8")


def typeset(text: str) -> str:
    """Return `text` with minus signs before numbers, and no-break spaces before units."""
    return BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", NEGATIVE.sub("\N{MINUS SIGN}", text))


def _script_json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element, whatever its strings contain."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"}))
