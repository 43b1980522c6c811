"""Draws heat maps of accuracy by corruption and severity, and of differences from a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from statistics import fmean
from typing import TypeAlias

from advprop.report.answer.estimates import estimate, paired
from advprop.report.figures.drawing import Panel, axis, figure, plot_text
from advprop.report.findings import Findings, Found

Values: TypeAlias = Mapping[str, Sequence[Sequence[tuple[str, float]]]]
"""The (seed, accuracy) of each run, by corruption and severity."""
Cells: TypeAlias = Mapping[str, Sequence[float | None]]
"""A number for each severity by corruption; None if it is not known."""

# the benchmark's order: noise, blur, weather, digital, then the four held-out corruptions
ORDER = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
)
ACCURACY_SCALE, DIFFERENCE_SCALE = "heat", "change"
COLORS = 5  # number in each scale of report.css


def corruption_panels(found: Found) -> list[Panel]:
    """Return a panel per method with accuracy in percent by corruption and severity."""
    panels = []
    for method, values in _all_values(found).items():
        cells = {
            name: [round(100 * fmean(v for _, v in own), 1) if own else None for own in row]
            for name, row in values.items()
        }
        label = f"Accuracy of {method} by corruption and severity. {_extremes(cells)}"
        panels.append(_panel(method, method, cells, label, ACCURACY_SCALE, (0, 100), "%"))
    return panels


def difference_panels(found: Found, references: Mapping[str, str]) -> list[Panel]:
    """Return a panel per method: differences from its reference in points, all on one scale."""
    values = _all_values(found)
    maps = {
        method: _differences(values[method], values[other])
        for method, other in references.items()
        if method in values and other in values
    }
    limits = (-difference_reach(maps), difference_reach(maps))
    panels = []
    for method, cells in maps.items():
        if cells:
            title = f"{method} minus {references[method]}"
            label = f"{title} by corruption and severity, in points. {_extremes(cells)}"
            panels.append(_panel(method, title, cells, label, DIFFERENCE_SCALE, limits, "points"))
    return panels


def difference_reach(maps: Mapping[str, Cells]) -> float:
    """Return the colour scale's end: the largest difference in points, rounded up to fives."""
    rows = (row for cells in maps.values() for row in cells.values())
    values = [abs(value) for row in rows for value in row if value is not None]
    return 5.0 * max(1, -int(-max(values, default=0) // 5))


def corruption_rows(found: Found) -> list[tuple[str, str, str, str]]:
    """Return table rows (method, mean error, mCE or "-", how the images were made)."""
    rows = []
    for method, runs in found.items():
        suites = [run.suites.corruptions for run in runs]
        shares = [[c.accuracy for c in s.by_corruption.values() if c.accuracy] for s in suites]
        errors = [fmean(1 - fmean(accuracy) for accuracy in own) for own in shares if own]
        if errors:
            suites = [suite for suite in suites if suite.by_corruption]
            mces = [suite.mce for suite in suites if suite.mce is not None]
            mce = "-" if not mces else f"{100 * fmean(mces):.1f}"
            made = ", ".join(sorted({suite.made for suite in suites if suite.made}))
            rows.append((method, estimate(errors).percent, mce, made))
    return rows


def _all_values(found: Found) -> dict[str, Values]:
    every = {method: _values(runs) for method, runs in found.items()}
    return {method: values for method, values in every.items() if values}


def _values(runs: Sequence[Findings]) -> Values:
    suites = [(run.seed, run.suites.corruptions) for run in runs]
    found = [
        (seed, name, corruption.accuracy)
        for seed, suite in suites
        for name, corruption in {**suite.by_corruption, **suite.extra}.items()
        if corruption.accuracy
    ]
    names = dict.fromkeys(name for _, name, _ in found)
    width = max((len(accuracy) for *_, accuracy in found), default=0)
    return {
        name: [
            [(seed, a[level]) for seed, other, a in found if other == name and level < len(a)]
            for level in range(width)
        ]
        for name in (*(n for n in ORDER if n in names), *(n for n in names if n not in ORDER))
    }


def _differences(ours: Values, theirs: Values) -> Cells:
    cells: dict[str, list[float | None]] = {}
    for name in (name for name in ours if name in theirs):
        others = chain(theirs[name], repeat(()))
        found = [paired(mine, other) for mine, other in zip(ours[name], others, strict=False)]
        cells[name] = [None if own is None else round(100 * own.mean, 1) for own in found]
    return cells


def _panel(
    method: str,
    title: str,
    cells: Cells,
    label: str,
    scale: str,
    limits: tuple[float, float],
    unit: str,
) -> Panel:
    signed = "+" if limits[0] < 0 else ""
    columns = [str(level) for level, _ in enumerate(next(iter(cells.values())), start=1)]
    titles = [plot_text(name.replace("_", " ")) for name in cells]
    texts = [
        ["" if v is None else f"{round(v) + 0:{signed}d}".replace("-", "\N{MINUS SIGN}") for v in r]
        for r in cells.values()
    ]
    hover = [
        [
            "" if v is None else f"{name}, severity {column}: {v:{signed}.1f} {unit}"
            for column, v in zip(columns, row, strict=True)
        ]
        for name, row in zip(titles, cells.values(), strict=True)
    ]
    trace = {
        "type": "heatmap",
        "x": columns,
        "y": titles,
        "z": list(cells.values()),
        "text": texts,
        "texttemplate": "%{text}",
        "textfont": {"color": "var(--ink)"},
        "hoverinfo": "text",
        "hovertext": hover,
        "colorscale": [[i / (COLORS - 1), f"var(--{scale}-{i})"] for i in range(COLORS)],
        "zmin": limits[0],
        "zmax": limits[1],
        "xgap": 1,
        "ygap": 1,
        "showscale": False,
        "meta": method,
    }
    axes = {
        "xaxis": axis("severity", type="category", showgrid=False, ticks=""),
        "yaxis": axis(type="category", autorange="reversed", showgrid=False, ticks=""),
    }
    height = 70 + 23 * len(cells)
    return Panel(title=title, figure=figure([trace], **axes), label=label, height=height)


def _extremes(cells: Cells) -> str:
    known = {name: [v for v in row if v is not None] for name, row in cells.items()}
    means = {name: fmean(row) for name, row in known.items() if row}
    if not means:
        return ""
    high, low = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    return (
        f"Highest with {high.replace('_', ' ')} ({means[high]:.1f}), "
        f"lowest with {low.replace('_', ' ')} ({means[low]:.1f}), means over severities."
    )
