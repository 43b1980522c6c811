"""Draws accuracy over the strength of the attack, a figure for each threat model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from advprop.report.answer.estimates import Estimate, estimate
from advprop.report.figures.drawing import Panel, axis, figure
from advprop.report.figures.lines import line_traces
from advprop.report.findings import Findings
from advprop.report.page.styles import MethodStyle

Found = Mapping[str, Sequence[Findings]]
LOG_RATIO = 16  # the axis is logarithmic from this ratio of strongest to weakest attack
MOST_TICKS = 7


def robustness_panels(found: Found, styles: Mapping[str, MethodStyle]) -> list[Panel]:
    """Return a panel per threat model: accuracy over epsilon, a line with intervals per method."""
    names = dict.fromkeys(
        point.threat_model
        for runs in found.values()
        for run in runs
        for point in run.suites.adversarial.curve
    )
    return [_panel(name, found, styles) for name in sorted(names, key=lambda n: n != "Linf")]


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
    """Return a function from epsilon to its x position, and the axis; logarithmic for a wide range.

    On a logarithmic axis, epsilon 0 (clean images) is one step before the smallest epsilon.
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
    unit = "in 1/255" if grid and positive else "of the range [0, 1]"
    kind = ", logarithmic" if logarithmic else ""
    air = 0.04 * (place(max(epsilons)) - place(min(epsilons))) or 0.1
    return place, axis(
        f"epsilon, {unit}{kind}",
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


def _panel(name: str, found: Found, styles: Mapping[str, MethodStyle]) -> Panel:
    lines = {method: series(runs, name) for method, runs in found.items()}
    lines = {method: points for method, points in lines.items() if points}
    epsilons = [epsilon for points in lines.values() for epsilon in points]
    place, xaxis = epsilon_scale(epsilons, name)
    traces = line_traces(lines, styles, place=place, word="epsilon")
    reached = ", ".join(
        f"{method} {100 * points[max(points)].mean:.1f} %" for method, points in lines.items()
    )
    drawing = figure(traces, xaxis=xaxis, yaxis=axis(range=[0, 102], ticksuffix=" %"))
    label = f"Accuracy under {name} attacks over epsilon. At the strongest: {reached}."
    return Panel(title=f"{name} attacks", figure=drawing, label=label, height=340)


def series(runs: Sequence[Findings], name: str) -> dict[float, Estimate]:
    """Return the accuracy by epsilon under attacks of one threat model."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for point in run.suites.adversarial.curve:
            if point.threat_model == name:
                values.setdefault(round(point.epsilon, 9), []).append(point.accuracy)
    counts = {run.suites.adversarial.num_images for run in runs}
    count = counts.pop() if len(counts) == 1 else None
    return {e: estimate(values[e], num_images=count) for e in sorted(values)}
