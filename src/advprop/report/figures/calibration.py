"""Draws reliability diagrams and calibration errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from advprop.report.answer.estimates import Estimate, estimate
from advprop.report.figures.drawing import Panel, axis, error_bar, figure, mark, plot_text
from advprop.report.findings import Bin, Calibration, Findings
from advprop.report.page.styles import MethodStyle

Found = Mapping[str, Sequence[Findings]]
FEWEST = 10  # bins with fewer answers are too uncertain to draw
SMALLEST, LARGEST = 4, 15  # sizes of marks, by the share of a method's images in the bin


def calibration_panels(found: Found, styles: Mapping[str, MethodStyle]) -> list[Panel]:
    """Return the reliability diagram of all methods, and their calibration errors."""
    parts = {method: calibrations(runs) for method, runs in found.items()}
    parts = {method: own for method, own in parts.items() if own}
    if not parts:
        return []
    errors = {method: estimate([c.ece for c in own]) for method, own in parts.items()}
    every = {m: [b for b in pooled(own) if b.num_images >= FEWEST] for m, own in parts.items()}
    binned = {method: bins for method, bins in every.items() if bins}
    panels = [_reliability(binned, styles)] if binned else []
    return [*panels, _errors(errors, styles)]


def calibrations(runs: Sequence[Findings]) -> list[Calibration]:
    """Return the calibrations of the runs that have one."""
    return [run.suites.clean.calibration for run in runs if run.suites.clean.calibration]


def pooled(parts: Sequence[Calibration]) -> list[Bin]:
    """Merge the bins of several seeds; each image of each seed counts once."""
    groups: dict[tuple[float, float], list[Bin]] = {}
    for part in parts:
        for found in part.bins:
            groups.setdefault((round(found.low, 9), round(found.high, 9)), []).append(found)
    bins = []
    for (low, high), own in sorted(groups.items()):
        count = sum(b.num_images for b in own)
        confidence = sum(b.confidence * b.num_images for b in own) / count
        accuracy = sum(b.accuracy * b.num_images for b in own) / count
        values = {"low": low, "high": high, "confidence": confidence, "accuracy": accuracy}
        bins.append(Bin(**values, num_images=count))
    return bins


def _reliability(binned: Mapping[str, list[Bin]], styles: Mapping[str, MethodStyle]) -> Panel:
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 100],
        "y": [0, 100],
        "line": {"color": "var(--axis)", "width": 1.5, "dash": "dash"},
        "hoverinfo": "skip",
    }
    traces = [diagonal, *(_line(m, bins, styles[m]) for m, bins in binned.items())]
    axes = {
        "xaxis": axis("confidence", range=[0, 103], ticksuffix=" %"),
        "yaxis": axis("images right", range=[0, 103], ticksuffix=" %"),
    }
    label = "Reliability: share of images right over confidence, " + "; ".join(
        f"{m} {100 * bins[-1].accuracy:.0f} % right at {100 * bins[-1].confidence:.0f} %"
        for m, bins in binned.items()
    )
    return Panel(title="Reliability", figure=figure(traces, **axes), label=label, height=360)


def _line(method: str, bins: Sequence[Bin], style: MethodStyle) -> dict[str, Any]:
    total = sum(b.num_images for b in bins)
    sizes = [SMALLEST + (LARGEST - SMALLEST) * sqrt(b.num_images / total) for b in bins]
    return {
        "type": "scatter",
        "meta": method,
        "mode": "lines+markers",
        "x": [round(100 * b.confidence, 2) for b in bins],
        "y": [round(100 * b.accuracy, 2) for b in bins],
        "line": {"color": style.color, "width": 1.2},
        "marker": {**mark(style), "size": [round(size, 1) for size in sizes]},
        "hoverinfo": "text",
        "hovertext": [
            f"<b>{plot_text(method)}</b><br>{100 * b.accuracy:.1f} % right at "
            f"{100 * b.confidence:.1f} % confidence<br>{b.num_images:,} answers"
            for b in bins
        ],
    }


def _errors(errors: Mapping[str, Estimate], styles: Mapping[str, MethodStyle]) -> Panel:
    traces = []
    for method, found in errors.items():
        ends = [[100 * max(end, 0.0) for end in found.ends or ()]]
        trace = {
            "type": "scatter",
            "meta": method,
            "mode": "markers",
            "x": [100 * found.mean],
            "y": [plot_text(method)],
            "marker": mark(styles[method]),
            "error_x": error_bar([100 * found.mean], ends, styles[method]),
            "hoverinfo": "text",
            "hovertext": [f"<b>{plot_text(method)}</b><br>{found.percent()}"],
        }
        traces.append(trace)
    axes = {
        "xaxis": axis("percentage points", rangemode="tozero"),
        "yaxis": axis(type="category", autorange="reversed", showgrid=False),
    }
    values = ", ".join(f"{method} {found.percent()}" for method, found in errors.items())
    return Panel(
        title="Expected calibration error",
        figure=figure(traces, **axes),
        label=f"Expected calibration error, less is better: {values}.",
        height=max(200, 90 + 26 * len(errors)),
    )
