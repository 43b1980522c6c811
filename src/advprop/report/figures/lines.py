"""Draws accuracy over the strength of the attack, a figure for each threat model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from advprop.report.answer.estimates import Estimate, estimate
from advprop.report.figures.drawing import Panel, axis, error_bar, figure, hover, mark, scatter
from advprop.report.findings import Found
from advprop.report.page.styles import Styles

Lines: TypeAlias = Mapping[str, Mapping[float, Estimate]]
"""The accuracy of each method by epsilon."""

LOG_RATIO = 16  # the axis is logarithmic from this ratio of strongest to weakest attack
MOST_TICKS = 7
MOST_BANDS = 6  # with more methods, bands would overlap, so intervals are bars


def robustness_panels(found: Found, styles: Styles) -> list[Panel]:
    """Return a panel per threat model: accuracy over epsilon, a line with intervals per method."""
    lines = curve_series(found)
    names = sorted(lines, key=lambda name: name != "Linf")
    return [_curve_panel(name, lines[name], styles) for name in names]


def curve_series(found: Found) -> dict[str, Lines]:
    """Return each method's accuracy by epsilon, for each threat model."""
    values: dict[str, dict[str, dict[float, list[float]]]] = {}
    for method, runs in found.items():
        for point in (point for run in runs for point in run.suites.adversarial.curve):
            own = values.setdefault(point.threat_model, {}).setdefault(method, {})
            own.setdefault(round(point.epsilon, 9), []).append(point.accuracy)
    counts = {m: {run.suites.adversarial.num_images for run in runs} for m, runs in found.items()}
    sizes = {m: count.pop() if len(count) == 1 else None for m, count in counts.items()}
    return {
        name: {
            method: {e: estimate(own[e], num_images=sizes[method]) for e in sorted(own)}
            for method, own in lines.items()
        }
        for name, lines in values.items()
    }


def strengths(found: Found) -> list[str]:
    """Return a phrase for each combination of steps and restarts in the curves' attacks."""
    points = [p for runs in found.values() for run in runs for p in run.suites.adversarial.curve]
    settings = sorted({(p.num_steps or 0, p.restarts or 0) for p in points if p.epsilon > 0})
    return [
        ", ".join(
            f"{number} {word}{'s' if number > 1 else ''}"
            for number, word in ((steps, "step"), (restarts, "restart"))
            if number
        )
        for steps, restarts in settings
        if steps or restarts
    ]


def epsilon_scale(
    epsilons: Sequence[float], name: str
) -> tuple[Callable[[float], float], dict[str, Any]]:
    """Return a function from epsilon to its x position, and the axis.

    The axis is logarithmic for a wide range; epsilon 0 (clean images) is then one step before the
    smallest other epsilon.
    """
    positive = [e for e in sorted(set(epsilons)) if e > 0]
    logarithmic = len(positive) > 2 and positive[-1] / positive[0] >= LOG_RATIO
    step = math.log2(positive[-1] / positive[0]) / (len(positive) - 1) if logarithmic else 0.0

    def place(epsilon: float) -> float:
        if not logarithmic:
            return epsilon
        return math.log2(epsilon) if epsilon > 0 else math.log2(positive[0]) - step

    grid = all(abs(e * 255 - round(e * 255)) < 1e-3 for e in positive) and name == "Linf"
    ticks = _ticks(sorted(set(epsilons)), place)
    unit = "in 1/255" if grid and positive else "for pixel values in [0, 1]"
    kind = ", logarithmic" if logarithmic else ""
    air = 0.04 * (place(max(epsilons)) - place(min(epsilons))) or 0.1
    return place, axis(
        f"epsilon {unit}{kind}",
        tickvals=[place(e) for e in ticks],
        ticktext=[f"{e * 255:.0f}" if grid else f"{e:.3g}" for e in ticks],
        range=[place(min(epsilons)) - air, place(max(epsilons)) + air],
    )


def _ticks(epsilons: Sequence[float], place: Callable[[float], float]) -> list[float]:
    """Return the epsilons with a tick: as many as are readable, including the first and last."""
    least = (place(epsilons[-1]) - place(epsilons[0])) / MOST_TICKS
    kept = [epsilons[0]]
    for epsilon in epsilons[1:]:
        if place(epsilon) - place(kept[-1]) >= 0.999 * least:
            kept.append(epsilon)
    if kept[-1] != epsilons[-1]:
        kept = [*(kept[:-1] or kept), epsilons[-1]]
    return kept


def _curve_panel(name: str, lines: Lines, styles: Styles) -> Panel:
    place, xaxis = epsilon_scale([epsilon for points in lines.values() for epsilon in points], name)
    traces = _traces(lines, styles, place)
    reached = ", ".join(
        f"{method} {100 * points[max(points)].mean:.1f} %" for method, points in lines.items()
    )
    drawing = figure(traces, xaxis=xaxis, yaxis=axis(range=[0, 102], ticksuffix=" %"))
    label = f"Accuracy under {name} attacks over epsilon. At the strongest: {reached}."
    return Panel(title=f"{name} attacks", figure=drawing, label=label, height=340)


def _traces(lines: Lines, styles: Styles, place: Callable[[float], float]) -> list[dict[str, Any]]:
    """Return a line per method in percent; `place` gives the x of an epsilon."""
    traces: list[dict[str, Any]] = []
    for method, points in lines.items():
        style, x = styles[method], [place(value) for value in points]
        means = [100 * point.mean for point in points.values()]
        ends = [
            tuple(min(max(100 * end, 0.0), 100.0) for end in point.ends or (point.mean, point.mean))
            for point in points.values()
        ]
        line = scatter(
            method,
            x,
            means,
            "lines+markers",
            line={"color": style.color, "width": 2},
            marker={**mark(style), "size": 8},
            **hover(method, *(f"epsilon {e:.4g}: {p.percent}" for e, p in points.items())),
        )
        if len(lines) <= MOST_BANDS:
            area = scatter(
                method,
                [*x, *reversed(x)],
                [*(pair[1] for pair in ends), *(pair[0] for pair in reversed(ends))],
                "lines",
                fill="toself",
                fillcolor=style.color,
                line={"width": 0, "color": style.color},
                opacity=0.12,
                hoverinfo="skip",
            )
            traces += [area, line]
        else:
            traces.append({**line, "error_y": error_bar(means, ends, style)})
    return traces
