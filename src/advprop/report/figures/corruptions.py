"""Draws heat maps of accuracy by corruption and severity, and of differences to a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from advprop.report.answer.estimates import estimate, paired
from advprop.report.figures.drawing import Panel, axis, figure, heat_map, plot_text
from advprop.report.findings import Corruption, Findings

Found = Mapping[str, Sequence[Findings]]
Values = Mapping[str, Mapping[int, list[tuple[str, float]]]]
# the benchmark's order: noise, blur, weather, digital, then the four held-out corruptions
ORDER = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
)
ACCURACY_SCALE, DIFFERENCE_SCALE = "heat", "change"


@dataclass(frozen=True, kw_only=True)
class CorruptionRow:
    """One method in the table: mean error over the corruptions, and mCE or "-"."""

    method: str
    mean_error: str
    mce: str
    made: str


def corruption_panels(found: Found) -> list[Panel]:
    """Return a panel per method with accuracy in percent by corruption and severity."""
    panels = []
    for method, values in _all_values(found).items():
        names, width = _rows(values), _width(values)
        cells = [[_mean(values[name].get(level)) for level in range(width)] for name in names]
        label = f"Accuracy of {method} by corruption and severity. {_extremes(names, cells)}"
        panels.append(_panel(method, names, cells, label, ACCURACY_SCALE, (0, 100), "%"))
    return panels


def difference_panels(found: Found, references: Mapping[str, str]) -> list[Panel]:
    """Return a panel per method with differences to its reference in points, on one scale."""
    values = _all_values(found)
    maps = {
        method: _differences(values[method], values[other])
        for method, other in references.items()
        if method in values and other in values
    }
    reach = difference_reach(maps)
    panels = []
    for method, (names, cells) in maps.items():
        if not names:
            continue
        other = references[method]
        label = f"{method} minus {other} by corruption and severity, in points. "
        label += _extremes(names, cells)
        title = f"{method} minus {other}"
        limits = (-reach, reach)
        panels.append(_panel(method, names, cells, label, DIFFERENCE_SCALE, limits, "points"))
        panels[-1] = Panel(
            title=title, figure=panels[-1].figure, label=label, height=panels[-1].height
        )
    return panels


Map = tuple[list[str], list[list[float | None]]]


def difference_reach(maps: Mapping[str, Map]) -> float:
    """Return the end of the colour scale: the largest difference, rounded up to five points."""
    values = [abs(v) for _, cells in maps.values() for row in cells for v in row if v is not None]
    return 5.0 * max(1, -int(-max(values, default=0) // 5))


def corruption_rows(found: Found) -> list[CorruptionRow]:
    """Return the rows of the table next to the maps."""
    rows = []
    for method, runs in found.items():
        suites = [run.suites.corruptions for run in runs if run.suites.corruptions.by_corruption]
        errors = [fmean(_errors(s.by_corruption)) for s in suites if _errors(s.by_corruption)]
        if not errors:
            continue
        mces = [s.mce for s in suites if s.mce is not None]
        rows.append(
            CorruptionRow(
                method=method,
                mean_error=estimate(errors).percent(),
                mce="-" if not mces else f"{100 * fmean(mces):.1f}",
                made=", ".join(sorted({s.made for s in suites if s.made})),
            )
        )
    return rows


def _errors(by_corruption: Mapping[str, Corruption]) -> list[float]:
    return [1 - fmean(c.accuracy) for c in by_corruption.values() if c.accuracy]


def _all_values(found: Found) -> dict[str, Values]:
    every = {method: _values(runs) for method, runs in found.items()}
    return {method: values for method, values in every.items() if values}


def _values(runs: Sequence[Findings]) -> Values:
    """Return (seed, accuracy) of each run by corruption and severity, counted from 0."""
    values: dict[str, dict[int, list[tuple[str, float]]]] = {}
    for run in runs:
        suite = run.suites.corruptions
        for name, corruption in {**suite.by_corruption, **suite.extra}.items():
            for level, accuracy in enumerate(corruption.accuracy):
                values.setdefault(name, {}).setdefault(level, []).append((run.seed, accuracy))
    return values


def _rows(values: Values) -> list[str]:
    known = [name for name in ORDER if name in values]
    return [*known, *(name for name in values if name not in ORDER)]


def _width(values: Values) -> int:
    return max(max(levels) + 1 for levels in values.values())


def _mean(values: Sequence[tuple[str, float]] | None) -> float | None:
    return None if not values else round(100 * fmean(value for _, value in values), 1)


def _differences(ours: Values, theirs: Values) -> Map:
    names = [name for name in _rows(ours) if name in theirs]
    cells: list[list[float | None]] = []
    for name in names:
        row = []
        for level in range(_width(ours)):
            found = paired(ours[name].get(level, ()), theirs[name].get(level, ()))
            row.append(None if found is None else round(100 * found.mean, 1))
        cells.append(row)
    return names, cells


def _panel(
    method: str,
    names: Sequence[str],
    cells: Sequence[Sequence[float | None]],
    label: str,
    scale: str,
    limits: tuple[float, float],
    unit: str,
) -> Panel:
    signed = "+" if limits[0] < 0 else ""
    columns = [str(level + 1) for level in range(len(cells[0]))]
    titles = [name.replace("_", " ") for name in names]
    texts = [
        ["" if v is None else f"{round(v) + 0:{signed}d}".replace("-", "\N{MINUS SIGN}") for v in r]
        for r in cells
    ]
    hover = [
        [
            "" if v is None else f"{plot_text(title)}, severity {column}: {v:{signed}.1f} {unit}"
            for column, v in zip(columns, row, strict=True)
        ]
        for title, row in zip(titles, cells, strict=True)
    ]
    trace = heat_map(titles, columns, cells, texts, hover, scale=scale, limits=limits)
    axes = {
        "xaxis": axis("severity", type="category", showgrid=False, ticks=""),
        "yaxis": axis(type="category", autorange="reversed", showgrid=False, ticks=""),
    }
    drawing = figure([{**trace, "meta": method}], **axes)
    return Panel(title=method, figure=drawing, label=label, height=70 + 23 * len(names))


def _extremes(names: Sequence[str], cells: Sequence[Sequence[float | None]]) -> str:
    means = {
        name: fmean(v for v in row if v is not None)
        for name, row in zip(names, cells, strict=True)
        if any(v is not None for v in row)
    }
    if not means:
        return ""
    high, low = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    return (
        f"Highest with {high.replace('_', ' ')} ({means[high]:.1f}), "
        f"lowest with {low.replace('_', ' ')} ({means[low]:.1f}), means over severities."
    )
