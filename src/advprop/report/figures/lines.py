"""Lines of accuracies with intervals, one per method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from advprop.report.answer.estimates import Estimate
from advprop.report.figures.drawing import band, error_bar, mark, plot_text
from advprop.report.page.styles import MethodStyle

MOST_BANDS = 6  # with more methods, bands would overlap, so intervals are bars


def line_traces(
    lines: Mapping[str, Mapping[float, Estimate]],
    styles: Mapping[str, MethodStyle],
    *,
    word: str,
    place: Callable[[float], float] = float,
) -> list[dict[str, Any]]:
    """Return a line per method in percent; `word` names the points, `place` gives their x."""
    traces: list[dict[str, Any]] = []
    for method, points in lines.items():
        x = [place(value) for value in points]
        means = [100 * point.mean for point in points.values()]
        ends = [
            tuple(min(max(100 * end, 0.0), 100.0) for end in point.ends or (point.mean, point.mean))
            for point in points.values()
        ]
        line = {
            "type": "scatter",
            "meta": method,
            "mode": "lines+markers",
            "x": x,
            "y": means,
            "line": {"color": styles[method].color, "width": 2},
            "marker": {**mark(styles[method]), "size": 8},
            "hoverinfo": "text",
            "hovertext": [
                f"<b>{plot_text(method)}</b><br>{word} {value:.4g}: {point.percent()}"
                for value, point in points.items()
            ],
        }
        if len(lines) <= MOST_BANDS:
            traces += [band(method, x, ends, styles[method]), line]
        else:
            traces.append({**line, "error_y": error_bar(means, ends, styles[method])})
    return traces
