"""The parts of all figures: panels, axes, marks and intervals for plotly.

Figures are plain dictionaries that plotly.js draws in the page. Colours are `var(--name)`, which
report.js replaces by the theme's values. All texts from runs go through `plot_text`, since plotly
interprets some HTML tags. A trace's `meta` is its method, which the reader can hide.
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
    """One drawing: heading, plotly figure, height in pixels, and a label for screen readers."""

    title: str
    figure: dict[str, Any]
    label: str
    height: int = 270


def plot_text(text: object) -> str:
    """Return `text` with `<`, `>`, `&` and `{` as entities, which plotly shows as characters."""
    return escape(str(text), quote=False).replace("{", "&#123;")


def axis(title: str = "", **changes: Any) -> dict[str, Any]:
    """Return an axis with a thin grid and no zoom, so that touch screens can scroll the page."""
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
    """Return a range in points that includes zero and all differences, with a margin.

    Each of `spans` is a difference and, if known, the ends of its interval, as fractions. Intervals
    are cut at three times the largest difference (at least five, at most 100 points), since very
    wide intervals would compress the differences.
    """
    spans = list(spans)
    most = min(max(5.0, 300 * max(abs(difference) for difference, *_ in spans)), 100.0)
    ends = [100 * end for span in spans for end in span]
    low, high = max(min(ends), -most), min(max(ends), most)
    air = 0.06 * (max(high, 0) - min(low, 0)) or 1.0
    return [min(low, 0) - air, max(high, 0) + air]


def figure(traces: list[dict[str, Any]], **layout: Any) -> dict[str, Any]:
    """Return a figure in the report's common style, without legend, which the page provides."""
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


def scatter(
    method: str, x: Sequence[Any], y: Sequence[Any], mode: str = "markers", **settings: Any
) -> dict[str, Any]:
    """Return a trace of a method's points, with further `settings` of plotly's."""
    return {"type": "scatter", "meta": method, "mode": mode, "x": x, "y": y, **settings}


def hover(method: str, *texts: str) -> dict[str, Any]:
    """Return the text that the pointer shows at each point: the method, and one of `texts`."""
    head = f"<b>{plot_text(method)}</b><br>"
    return {"hoverinfo": "text", "hovertext": [head + text for text in texts]}


def mark(style: MethodStyle) -> dict[str, Any]:
    """Return the marker of a method."""
    line = {"width": 2, "color": style.color}
    return {"color": style.color, "symbol": style.symbol, "size": 11, "line": line}


def error_bar(
    middles: Sequence[float], ends: Sequence[Sequence[float]], style: MethodStyle
) -> dict[str, Any]:
    """Return bars from the lower to the upper of `ends` around `middles`; no bar without ends."""
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
