"""Draws training curves and the statistics of normalisation layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, groupby
from math import isfinite
from statistics import fmean
from typing import Any

from advprop.report.figures.drawing import Panel, axis, figure, plot_text, scatter
from advprop.report.page.styles import MethodStyle, Styles
from advprop.report.records import Record

Curve = Mapping[str, Any]
# Dashes of training by branch, clean first; validation is a solid, thicker line. The page's
# legend uses the same dashes.
DASHES = ("dot", "dash", "longdash", "dashdot")
VALIDATION = "validation"
MOST_POINTS = 300  # the most in one line
ALL_POINTS = 60_000  # the most in all lines together, half a megabyte
LAYERS_HEIGHT = 210  # the same for any number of layers
# heading, axis title, and the value for branches that do not differ, by key
DISTANCES = {
    "mean_distance": ("Running means", "difference in clean standard deviations", 0.0),
    "variance_ratio": ("Running variances", "larger divided by smaller", 1.0),
    "weight_distance": ("Scale parameters (weight)", "absolute difference", 0.0),
    "bias_distance": ("Shift parameters (bias)", "absolute difference", 0.0),
}


def branch_names(curves: Sequence[Curve]) -> list[str]:
    """Return the branches for which any curve has training values, clean first."""
    found = dict.fromkeys(
        name for curve in curves for point in curve["points"] for name in point.get("train") or {}
    )
    return sorted(found, key=lambda name: name != "clean")


def curve_panels(curves: Sequence[Curve], styles: Styles) -> list[Panel]:
    """Return a panel per method: accuracy and loss over passes, a line per seed and branch.

    If a curve does not know its passes, all are drawn over epochs.
    """
    curves = [curve for curve in curves if curve.get("points")]
    branches = branch_names(curves)
    unit = "passes" if all("passes" in p for c in curves for p in c["points"]) else "epoch"
    furthest = max((p[unit] for c in curves for p in c["points"]), default=1)
    most = max(20, min(MOST_POINTS, ALL_POINTS // (5 * len(curves) or 1)))
    losses = [v for c in curves for b in branches for _, v in _series(c, unit, b, "loss")]
    order = list(styles)
    curves = sorted(curves, key=lambda curve: order.index(curve["method"]))
    panels = []
    for method, own in groupby(curves, key=lambda curve: str(curve["method"])):
        traces = [t for c in own for t in _curve_traces(c, unit, branches, styles[method], most)]
        title = "passes per image" if unit == "passes" else "epoch"
        layout = {
            "xaxis": axis(title, range=[0, 1.02 * furthest], anchor="y2"),
            "yaxis": axis("accuracy", domain=[0.42, 1], range=[0, 102], ticksuffix=" %"),
            "yaxis2": axis("loss", domain=[0, 0.33], range=[0, 1.05 * max(losses, default=1)]),
        }
        label = f"Training curves of {method}: accuracy and loss of each branch over training."
        panels.append(Panel(title=method, figure=figure(traces, **layout), label=label, height=380))
    return panels


def _series(curve: Curve, unit: str, branch: str, key: str) -> Iterator[tuple[float, float]]:
    for point in curve["points"]:
        values = point if branch == VALIDATION else (point.get("train") or {}).get(branch) or {}
        if (value := values.get(key)) is not None and isfinite(value):
            yield point[unit], value


def _curve_traces(
    curve: Curve, unit: str, branches: Sequence[str], style: MethodStyle, most: int
) -> list[dict[str, Any]]:
    traces = []
    for branch, dash in zip(branches, cycle(DASHES), strict=False):
        for key, scale, plane in (("accuracy", 100, "y"), ("loss", 1, "y2")):
            points = [(x, scale * y) for x, y in _series(curve, unit, branch, key)]
            name = f"{plot_text(branch)}, training {key}"
            line = {"color": style.color, "dash": dash}
            traces.append(_line(thinned(points, most), plane, name, curve, line))
    points = [(x, 100 * y) for x, y in _series(curve, unit, VALIDATION, "validation_accuracy")]
    solid = {"color": style.color, "width": 2.2}
    traces.append(_line(thinned(points, most), "y", "validation accuracy", curve, solid))
    return [trace for trace in traces if trace["x"]]


def thinned(points: Sequence[tuple[float, float]], most: int) -> Sequence[tuple[float, float]]:
    """Return at most `most` of `points`, evenly spaced."""
    return points[:: -(-len(points) // most) or 1]


def _line(
    kept: Sequence[tuple[float, float]],
    plane: str,
    name: str,
    curve: Curve,
    line: Mapping[str, Any],
) -> dict[str, Any]:
    text = f"<b>{plot_text(curve['method'])}</b>, seed {plot_text(curve['seed'])}<br>{name}"
    return scatter(
        str(curve["method"]),
        [round(x, 4) for x, _ in kept],
        [round(y, 4) for _, y in kept],
        "lines" if len(kept) > 1 else "markers",
        yaxis=plane,
        line={"width": 1.6, **line},
        opacity=0.85,
        hovertemplate=f"{text} %{{y:.3g}}<extra></extra>",
    )


def statistics_panels(records: Sequence[Record], styles: Styles) -> list[Panel]:
    """Return a panel per kind of distance between two branches: its value in each layer."""
    layers = list(dict.fromkeys(layer.layer for r in records for layer in r.statistics or ()))
    panels = []
    for key, (title, unit, neutral) in DISTANCES.items():
        traces = [t for r in records for t in _layer_traces(r, key, styles[r.method])]
        if not traces:
            continue
        axes = {
            "xaxis": axis(
                "layers, first to last",
                type="category",
                categoryorder="array",
                categoryarray=[plot_text(layer) for layer in layers],
                showticklabels=False,
                showgrid=False,
            ),
            "yaxis": axis(unit, range=_around(traces, neutral)),
        }
        label = f"{title}, clean and adversarial: {unit}, by layer. {_extremes(records, key)}"
        line = {"color": "var(--ink)", "width": 1.5}
        neutral_line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "line": line}
        shapes = [{**neutral_line, "y0": neutral, "y1": neutral, "layer": "below"}]
        drawing = figure(traces, shapes=shapes, **axes)
        panels.append(Panel(title=title, figure=drawing, label=label, height=LAYERS_HEIGHT))
    return panels


def _around(traces: Sequence[Mapping[str, Any]], neutral: float) -> list[float]:
    """Return a range that includes all values and `neutral`, with a margin."""
    values = [neutral, *(y for trace in traces for y in trace["y"])]
    air = 0.06 * (max(values) - min(values)) or 0.1
    return [min(values) - air, max(values) + air]


def _layer_traces(record: Record, key: str, style: MethodStyle) -> list[dict[str, Any]]:
    values = [(row.layer, getattr(row, key)) for row in record.statistics or ()]
    known = [(layer, value) for layer, value in values if value is not None]
    if not known:
        return []
    head = f"<b>{plot_text(record.method)}</b>, seed {plot_text(record.seed)}"
    trace = scatter(
        record.method,
        [plot_text(layer) for layer, _ in known],
        [float(f"{value:.4g}") for _, value in known],
        "lines+markers",
        line={"color": style.color, "width": 1},
        marker={"color": style.color, "symbol": style.symbol, "size": 5},
        opacity=0.85,
        hovertemplate=f"{head}<br>%{{x}}: %{{y:.3g}}<extra></extra>",
    )
    return [trace]


def _extremes(records: Sequence[Record], key: str) -> str:
    """Return a sentence with the layers of highest and lowest mean over records."""
    values: dict[str, list[float]] = {}
    for row in (row for record in records for row in record.statistics or ()):
        if (value := getattr(row, key)) is not None:
            values.setdefault(row.layer, []).append(value)
    means = {layer: fmean(found) for layer, found in values.items()}
    high, low = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    return f"Highest in {high} ({means[high]:.3g}), lowest in {low} ({means[low]:.3g})."
