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
from advprop.report.answer.overview import overview, red_flags
from advprop.report.facts import attack_of_tests, run_facts
from advprop.report.figures.charts import accuracy_title
from advprop.report.figures.curves import DASHES, branch_names
from advprop.report.findings import read_findings
from advprop.report.images.gallery import galleries
from advprop.report.page.browsing import browse
from advprop.report.page.styles import method_styles, titled
from advprop.report.records import read_records
from advprop.report.sections import suite_sections, training_sections
from advprop.results.summary import (
    ACCURACIES,
    accuracy_names,
    corrected,
    group_of,
    summarise,
)

Json = Mapping[str, Any]
NEGATIVE = re.compile(r"(?<![^\s(])-(?=\d)")
BEFORE_UNIT = re.compile(r"(?<=\d) (?=%|points)|(?<=\bp) (?=[=<])|(?<=\bp [=<]) (?=\d)")


def render_report(results: Json, details: Json | None = None) -> str:
    """Return the report as one self-contained HTML text.

    `results` is the contents of `results.json`, `details` has the entries that docs/results.md
    lists under the report: command, curves, records, tests, notes. The report names missing parts.
    Raises ValueError for values of the wrong type.
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
    found = read_findings(tests)
    page = {
        "recipe": str(results.get("recipe") or "unnamed"),
        "conclusion": overview(summary, runs),
        "flags": red_flags(runs, found),
        "notes": [str(note) for note in details.get("notes") or ()],
        "styles": styles,
        "methods": [entry["method"] for entry in summary],
        "several_groups": len({group_of(entry) for entry in summary}) > 1,
        **_numbers(summary, runs, found),
        **suite_sections(summary, runs, found, styles),
        **training_sections(curves, records, styles),
        "branches": list(zip(branch_names(curves), cycle(DASHES), strict=False)),
        "has_validation": any(
            p.get("validation_accuracy") is not None for c in curves for p in c["points"]
        ),
        "galleries": galleries(records),
        "num_galleries": len({r["method"] for r in records if r.get("gallery")}),
        "settings": run_facts(runs, configs),
        "attack": attack_of_tests(configs),
        "trials": tables.trials_table(trials),
        "browse": browse(read_records(records)),
        "commands": _lines(details.get("command") or results.get("command")),
        "versions": {str(k): str(v) for k, v in (results.get("versions") or {}).items()},
    }
    return str(_template().render(**page, **_assets()))


def _numbers(
    summary: Sequence[Json], runs: Sequence[Json], found: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the tables and the titles of their columns."""
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
        "soup_tables": tables.soup_tables(found),
        "attack_tables": [
            table
            for table in (tables.branch_table(found), tables.autoattack_table(found))
            if table is not None
        ],
        "runs": tables.run_rows(runs),
        "run_titles": [accuracy_title(name) for name in accuracy_names(runs)],
        "tested_on": sorted({str(run["tested_on"]) for run in runs if run.get("tested_on")}),
    }


def _lines(command: object) -> list[str]:
    return [line for line in str(command or "").splitlines() if line.strip()]


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
    """Replace hyphens before numbers by minus signs, and spaces before units by no-break spaces."""
    return BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", NEGATIVE.sub("\N{MINUS SIGN}", text))


def _script_json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element, whatever its strings contain."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"}))
