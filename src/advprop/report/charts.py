"""The figures as plotly descriptions: plain dictionaries, drawn by plotly.js in the page.

Colours are `var(--name)`: report.js puts the theme's values in. Every text that comes from a run
goes through `plot_text`, since plotly reads a few HTML tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from advprop.evaluation.results import (
    ACCURACIES,
    BASELINES,
    EQUAL_COST,
    accuracy_cell,
    difference_cell,
    difference_of,
)
from advprop.report.styles import MethodStyle

Entry = Mapping[str, Any]
TITLES = dict(zip(ACCURACIES, ("Clean images", "Under noise", "Under attack"), strict=True))
STEP = 0.03  # of the widest cost: how far apart marks of equal cost are drawn
COST_TITLES = {
    "total_passes": "passes per image, whole training",
    "train_seconds": "seconds of training",
}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One drawing: its heading, plotly's figure, height in pixels, and its text for the ear."""

    title: str
    figure: dict[str, Any]
    label: str
    height: int = 270


def plot_text(text: object) -> str:
    """`text` with `<`, `>` and `&` as entities, which plotly shows as the characters."""
    return escape(str(text), quote=False)


def axis(title: str = "", **changes: Any) -> dict[str, Any]:
    """A quiet axis: thin grid, no zoom (a page must scroll under a thumb)."""
    return {
        "title": {"text": title, "standoff": 6, "font": {"size": 12}},
        "gridcolor": "var(--grid)",
        "linecolor": "var(--axis)",
        "zeroline": False,
        "fixedrange": True,
        "automargin": True,
        **changes,
    }


def figure(traces: list[dict[str, Any]], **layout: Any) -> dict[str, Any]:
    """Traces and layout in the report's common look, without legend (the page has its own)."""
    return {
        "data": traces,
        "layout": {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--ink-soft)"},
            "hoverlabel": {
                "bgcolor": "var(--card)",
                "bordercolor": "var(--axis)",
                "font": {"color": "var(--ink)"},
            },
            "margin": {"l": 8, "r": 12, "t": 10, "b": 8},
            "showlegend": False,
            "dragmode": False,
            "hovermode": "closest",
            **layout,
        },
    }


def cost_panels(
    summary: Sequence[Entry],
    runs: Sequence[Mapping[str, Any]],
    styles: Mapping[str, MethodStyle],
    cost: str,
) -> list[Panel]:
    """Accuracy against `cost`, one panel an accuracy: means with intervals, seeds as dots."""
    panels = []
    for accuracy, title in TITLES.items():
        entries = [entry for entry in summary if accuracy in entry and cost in entry]
        if not entries:
            continue
        places = _side_by_side([(entry["method"], entry[cost]) for entry in entries])
        traces = [
            trace
            for entry in entries
            for trace in _cost_traces(entry, runs, styles[entry["method"]], accuracy, cost, places)
        ]
        widest = max(places.values())
        axes = {
            "xaxis": axis(COST_TITLES[cost], range=[0, 1.1 * widest or 1]),
            "yaxis": axis(ticksuffix=" %"),
        }
        reached = ", ".join(f"{e['method']} {accuracy_cell(e[accuracy]).value}" for e in entries)
        label = f"{title}: accuracy against {COST_TITLES[cost]}. {reached}."
        panels.append(Panel(title=title, figure=figure(traces, **axes), label=label))
    return panels


def _side_by_side(costs: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Where to draw each method: equal costs a little apart, so that no mark hides another."""
    step = STEP * max(cost for _, cost in costs)
    places: dict[str, float] = {}
    for method, cost in costs:
        group = [name for name, other in costs if abs(other - cost) < step]
        places[method] = cost + (group.index(method) - (len(group) - 1) / 2) * step
    return places


def _cost_traces(
    entry: Entry,
    runs: Iterable[Mapping[str, Any]],
    style: MethodStyle,
    accuracy: str,
    cost: str,
    places: Mapping[str, float],
) -> list[dict[str, Any]]:
    place, aside = places[entry["method"]], 0.4 * STEP * max(places.values())
    mean, cell = 100 * entry[accuracy]["mean"], accuracy_cell(entry[accuracy])
    values = [
        100 * run[accuracy]
        for run in runs
        if run["method"] == entry["method"] and run.get(accuracy) is not None
    ]
    seeds = {
        "type": "scatter",
        "mode": "markers",
        "x": [place - aside] * len(values),
        "y": values,
        "marker": {"color": style.color, "size": 4, "opacity": 0.7},
        "hoverinfo": "skip",
    }
    average = {
        "type": "scatter",
        "mode": "markers",
        "x": [place],
        "y": [mean],
        "error_y": _error(
            mean, [min(max(100 * end, 0), 100) for end in entry[accuracy]["ci95"] or ()], style
        ),
        "marker": _mark(style),
        "hoverinfo": "text",
        "hovertext": [
            f"<b>{plot_text(entry['method'])}</b><br>{cell.text}<br>"
            f"{entry[cost]:,.4g} {COST_TITLES[cost]}"
        ],
    }
    return [seeds, average]


def _mark(style: MethodStyle) -> dict[str, Any]:
    line = {"width": 2, "color": style.color}
    return {"color": style.color, "symbol": style.symbol, "size": 11, "line": line}


def _error(middle: float, ends: Sequence[float], style: MethodStyle) -> dict[str, Any]:
    if not ends:
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [ends[1] - middle],
        "arrayminus": [middle - ends[0]],
        "color": style.color,
        "thickness": 1.5,
        "width": 4,
    }


def difference_panels(
    summary: Sequence[Entry], styles: Mapping[str, MethodStyle], baseline: str
) -> list[Panel]:
    """Paired differences to `baseline` with intervals around the line of no difference."""
    panels = []
    for accuracy, title in TITLES.items():
        found = {
            entry["method"]: difference
            for entry in summary
            if entry["method"] not in BASELINES
            and (difference := difference_of(entry, baseline, accuracy)) is not None
        }
        if not found:
            continue
        traces = [_difference_trace(name, d, styles[name]) for name, d in found.items()]
        name = "vanilla of equal cost" if baseline == EQUAL_COST else "vanilla of equal epochs"
        axes = {
            "xaxis": axis(
                "percentage points",
                range=_with_zero(found.values()),
                zeroline=True,
                zerolinecolor="var(--ink)",
                zerolinewidth=1.5,
            ),
            "yaxis": axis(autorange="reversed", type="category", showgrid=False),
        }
        values = ", ".join(f"{m} {difference_cell(d).text}" for m, d in found.items())
        label = f"{title}: difference to {name} in percentage points. {values}."
        height = 90 + 38 * len(found)
        panels.append(Panel(title=title, figure=figure(traces, **axes), label=label, height=height))
    return panels


def _with_zero(differences: Iterable[Mapping[str, Any]]) -> list[float]:
    """A range in points that holds every interval and zero, with a little air."""
    ends = [0.0, *(100 * end for d in differences for end in (d["difference"], *(d["ci95"] or ())))]
    air = 0.06 * (max(ends) - min(ends)) or 1.0
    return [min(ends) - air, max(ends) + air]


def _difference_trace(
    method: str, difference: Mapping[str, Any], style: MethodStyle
) -> dict[str, Any]:
    value = 100 * difference["difference"]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [value],
        "y": [plot_text(method)],
        "error_x": _error(value, [100 * end for end in difference["ci95"] or ()], style),
        "marker": _mark(style),
        "hoverinfo": "text",
        "hovertext": [f"<b>{plot_text(method)}</b><br>{difference_cell(difference).text}"],
    }
