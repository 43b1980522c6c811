"""Figures of branch soups: accuracy over the weight, one panel per suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from advprop.report.answer.estimates import Estimate, estimate
from advprop.report.figures.charts import accuracy_title
from advprop.report.figures.drawing import Panel, axis, figure
from advprop.report.figures.lines import line_traces
from advprop.report.findings import Findings, SoupPoint
from advprop.report.page.styles import MethodStyle

Lines = Mapping[str, Mapping[float, Estimate]]
"""Accuracy by weight for each method."""


def soup_panels(
    found: Mapping[str, Sequence[Findings]], styles: Mapping[str, MethodStyle]
) -> list[Panel]:
    """Return a panel per suite with a line per method: accuracy over the weight, with intervals."""
    return [_panel(suite, lines, styles) for suite, lines in soup_series(found).items()]


def soup_series(found: Mapping[str, Sequence[Findings]]) -> dict[str, Lines]:
    """Return each method's accuracy by weight, for each suite."""
    values: dict[str, dict[str, dict[float, list[SoupPoint]]]] = {}
    for method, runs in found.items():
        for point in (point for run in runs for point in run.mix):
            own = values.setdefault(point.suite, {}).setdefault(method, {})
            own.setdefault(point.weight, []).append(point)
    return {
        suite: {
            method: {weight: _estimate(points[weight]) for weight in sorted(points)}
            for method, points in lines.items()
        }
        for suite, lines in values.items()
    }


def _estimate(points: Sequence[SoupPoint]) -> Estimate:
    """Return the mean over seeds; for a single seed the interval is the one over images."""
    own = estimate([point.accuracy for point in points])
    return replace(own, ends=points[0].ci95) if own.n == 1 else own


def _panel(suite: str, lines: Lines, styles: Mapping[str, MethodStyle]) -> Panel:
    title = accuracy_title(f"{suite}_accuracy")
    ends = ", ".join(
        f"{method} {100 * points[min(points)].mean:.1f} to {100 * points[max(points)].mean:.1f} %"
        for method, points in lines.items()
    )
    drawing = figure(
        line_traces(lines, styles, word="weight"),
        xaxis=axis("weight of the auxiliary branch", range=[-0.04, 1.04]),
        yaxis=axis(ticksuffix=" %"),
    )
    label = f"{title}, accuracy of branch soups over their weight, from first to last: {ends}."
    return Panel(title=title, figure=drawing, label=label, height=260)
