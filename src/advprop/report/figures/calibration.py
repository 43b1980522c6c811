"""Draws reliability diagrams and calibration errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from advprop.report.answer.estimates import Estimate, estimate
from advprop.report.figures.drawing import (
    Panel,
    axis,
    error_bar,
    figure,
    hover,
    mark,
    plot_text,
    scatter,
)
from advprop.report.findings import Bin, Calibration, Found
from advprop.report.page.styles import MethodStyle, Styles

FEWEST = 10  # bins with fewer predictions are too uncertain to draw
SMALLEST, LARGEST = 4, 15  # sizes of marks, by the share of a method's images in the bin


def calibration_panels(found: Found, styles: Styles) -> list[Panel]:
    """Return the panels of the reliability diagram and of the calibration errors of all methods."""
    every = {m: [run.suites.clean.calibration for run in runs] for m, runs in found.items()}
    parts = {m: kept for m, own in every.items() if (kept := [c for c in own if c is not None])}
    if not parts:
        return []
    errors = {method: estimate([c.ece for c in own]) for method, own in parts.items()}
    large = {m: [b for b in pooled(own) if b.num_images >= FEWEST] for m, own in parts.items()}
    binned = {method: bins for method, bins in large.items() if bins}
    panels = [_reliability(binned, styles)] if binned else []
    return [*panels, _errors(errors, styles)]


def pooled(parts: Sequence[Calibration]) -> list[Bin]:
    """Return the bins of several seeds merged; each image of each seed counts once."""
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


def _reliability(binned: Mapping[str, list[Bin]], styles: Styles) -> Panel:
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
        "yaxis": axis("accuracy", range=[0, 103], ticksuffix=" %"),
    }
    label = "Reliability: accuracy over confidence, " + "; ".join(
        f"{m} {100 * bins[-1].accuracy:.0f} % accuracy at {100 * bins[-1].confidence:.0f} %"
        for m, bins in binned.items()
    )
    return Panel(
        title="Reliability diagram", figure=figure(traces, **axes), label=label, height=360
    )


def _line(method: str, bins: Sequence[Bin], style: MethodStyle) -> dict[str, Any]:
    total = sum(b.num_images for b in bins)
    sizes = [SMALLEST + (LARGEST - SMALLEST) * sqrt(b.num_images / total) for b in bins]
    texts = (
        f"{100 * b.accuracy:.1f} % accuracy at {100 * b.confidence:.1f} % confidence<br>"
        f"{b.num_images:,} predictions"
        for b in bins
    )
    return scatter(
        method,
        [round(100 * b.confidence, 2) for b in bins],
        [round(100 * b.accuracy, 2) for b in bins],
        "lines+markers",
        line={"color": style.color, "width": 1.2},
        marker={**mark(style), "size": [round(size, 1) for size in sizes]},
        **hover(method, *texts),
    )


def _errors(errors: Mapping[str, Estimate], styles: Styles) -> Panel:
    traces = []
    for method, found in errors.items():
        ends = [[100 * max(end, 0.0) for end in found.ends or ()]]
        bar = error_bar([100 * found.mean], ends, styles[method])
        x, y, marker = [100 * found.mean], [plot_text(method)], mark(styles[method])
        text = hover(method, found.percent)
        traces.append(scatter(method, x, y, marker=marker, error_x=bar, **text))
    axes = {
        "xaxis": axis("percentage points", rangemode="tozero"),
        "yaxis": axis(type="category", autorange="reversed", showgrid=False),
    }
    values = ", ".join(f"{method} {found.percent}" for method, found in errors.items())
    return Panel(
        title="Expected calibration error",
        figure=figure(traces, **axes),
        label=f"Expected calibration error, less is better: {values}.",
        height=max(200, 90 + 26 * len(errors)),
    )
