"""What all figures share: panels, axes, marks and intervals, as plotly descriptions.

Figures are plain dictionaries, drawn by plotly.js in the page. Colours are `var(--name)`:
report.js puts the theme's values in. Every text that comes from a run goes through `plot_text`,
since plotly reads a few HTML tags. A trace's `meta` is the method that the reader may hide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from advprop.report.page.styles import MethodStyle

Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One drawing: its heading, plotly's figure, height in pixels, and its text for the ear."""

    title: str
    figure: dict[str, Any]
    label: str
    height: int = 270


def plot_text(text: object) -> str:
    """`text` with `<`, `>`, `&` and `{` as entities, which plotly shows as the characters."""
    return escape(str(text), quote=False).replace("{", "&#123;")


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


def points_range(spans: Iterable[Sequence[float]]) -> list[float]:
    """A range in points that holds zero and every difference, with a little air.

    Each of `spans` is a difference and, where known, the ends of its interval, as fractions.
    Intervals are shown up to three times the largest difference (or five points), and up to what
    is possible: where they say nothing they would hide what there is.
    """
    spans = list(spans)
    most = min(max(5.0, 300 * max(abs(difference) for difference, *_ in spans)), 100.0)
    ends = [100 * end for span in spans for end in span]
    low, high = max(min(ends), -most), min(max(ends), most)
    air = 0.06 * (max(high, 0) - min(low, 0)) or 1.0
    return [min(low, 0) - air, max(high, 0) + air]


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


def mark(style: MethodStyle) -> dict[str, Any]:
    """The marker of a method."""
    line = {"width": 2, "color": style.color}
    return {"color": style.color, "symbol": style.symbol, "size": 11, "line": line}


def error_bar(
    middles: Sequence[float], ends: Sequence[Sequence[float]], style: MethodStyle
) -> dict[str, Any]:
    """Bars from the lower to the upper of `ends` around `middles`; no ends, no bar."""
    if not any(ends):
        return {"visible": False}
    pairs = [pair or (middle, middle) for middle, pair in zip(middles, ends, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": [pair[1] - middle for middle, pair in zip(middles, pairs, strict=True)],
        "arrayminus": [middle - pair[0] for middle, pair in zip(middles, pairs, strict=True)],
        "color": style.color,
        "thickness": 1.5,
        "width": 4,
    }


def band(
    method: str, x: Sequence[float], ends: Sequence[Sequence[float]], style: MethodStyle
) -> dict[str, Any]:
    """The area between the lower and the upper `ends`."""
    return {
        "type": "scatter",
        "meta": method,
        "mode": "lines",
        "x": [*x, *reversed(x)],
        "y": [*(pair[1] for pair in ends), *(pair[0] for pair in reversed(ends))],
        "fill": "toself",
        "fillcolor": style.color,
        "line": {"width": 0, "color": style.color},
        "opacity": 0.12,
        "hoverinfo": "skip",
    }


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    texts: Sequence[Sequence[str]],
    hover: Sequence[Sequence[str]],
    *,
    scale: str,
    limits: tuple[float, float],
) -> dict[str, Any]:
    """Coloured cells with their numbers; `scale` names the colours of report.css."""
    steps = 5
    return {
        "type": "heatmap",
        "x": [plot_text(column) for column in columns],
        "y": [plot_text(row) for row in rows],
        "z": [list(row) for row in values],
        "text": [list(row) for row in texts],
        "texttemplate": "%{text}",
        "textfont": {"color": "var(--ink)"},
        "hoverinfo": "text",
        "hovertext": [list(row) for row in hover],
        "colorscale": [[i / (steps - 1), f"var(--{scale}-{i})"] for i in range(steps)],
        "zmin": limits[0],
        "zmax": limits[1],
        "xgap": 1,
        "ygap": 1,
        "showscale": False,
    }
