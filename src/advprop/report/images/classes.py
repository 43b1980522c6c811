"""Draws the changes of single classes' accuracy, and tabulates classes and their confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from advprop.report.answer.estimates import Estimate, paired
from advprop.report.figures.drawing import Panel, axis, figure, plot_text, points_range
from advprop.report.findings import Findings, Found

MOST = 20  # classes in a figure: half with the largest gains, half with the largest losses
MOST_CONFUSIONS = 15  # pairs in the table
LONGEST = 22  # characters of a class name on an axis


def class_panels(found: Found, references: Mapping[str, str]) -> list[Panel]:
    """Return a panel per method: the classes that differ most in accuracy from its reference."""
    panels = []
    for method, reference in references.items():
        changes = class_changes(found[method], found[reference])
        if not changes:
            continue
        rows = list(changes.items())
        if len(rows) > MOST:
            rows = [*rows[: MOST // 2], *rows[-(MOST // 2) :]]
        label = (
            f"Accuracy of single classes, {method} minus {reference}, in points: "
            f"{rows[0][0]} {100 * rows[0][1].mean:+.1f} to "
            f"{rows[-1][0]} {100 * rows[-1][1].mean:+.1f}."
        )
        title = f"{method} minus {reference}"
        height = 70 + 21 * len(rows)
        drawing = _figure(method, rows)
        panels.append(Panel(title=title, figure=drawing, label=label, height=height))
    return panels


def class_changes(ours: Sequence[Findings], theirs: Sequence[Findings]) -> dict[str, Estimate]:
    """Return the difference in accuracy of each class that both tested, the largest gain first."""
    mine, others = _by_class(ours), _by_class(theirs)
    changes = {
        name: change
        for name, values in mine.items()
        if (change := paired(values, others.get(name, ()))) is not None
    }
    return dict(sorted(changes.items(), key=lambda item: -item[1].mean))


def class_table(found: Found, references: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the data of the page's table of classes, or None if no class was tested.

    `columns` are methods, references first, with accuracies in percent by class; a value is None
    if the class was not tested. `versus` names the method's reference.
    """
    by_method = {method: _by_class(runs) for method, runs in found.items()}
    by_method = {method: values for method, values in by_method.items() if values}
    if not by_method:
        return None
    held = {m: r for m, r in references.items() if m in by_method and r in by_method}
    order = [*dict.fromkeys([*held.values(), *by_method])]
    classes = list(dict.fromkeys(name for values in by_method.values() for name in values))
    counts = {
        item.name: item.num_images
        for runs in found.values()
        for run in runs
        for item in run.suites.clean.per_class
    }
    return {
        "classes": classes,
        "images": [counts[name] for name in classes],
        "columns": [
            {
                "method": method,
                "versus": held.get(method),
                "values": [_percent(by_method[method].get(name)) for name in classes],
            }
            for method in order
        ],
    }


def _by_class(runs: Sequence[Findings]) -> dict[str, list[tuple[str, float]]]:
    values: dict[str, list[tuple[str, float]]] = {}
    for run in runs:
        for item in run.suites.clean.per_class:
            values.setdefault(item.name, []).append((run.seed, item.accuracy))
    return values


def _percent(values: Sequence[tuple[str, float]] | None) -> float | None:
    return None if not values else round(100 * sum(v for _, v in values) / len(values), 1)


def _figure(method: str, rows: Sequence[tuple[str, Estimate]]) -> dict[str, Any]:
    values = [100 * change.mean for _, change in rows]
    bars = [change.ends or (change.mean, change.mean) for _, change in rows]
    spans = [(change.mean, *(change.ends or ())) for _, change in rows]
    trace = {
        "type": "bar",
        "meta": method,
        "orientation": "h",
        "x": values,
        "y": list(range(len(rows))),
        "marker": {"color": ["var(--good)" if v >= 0 else "var(--bad)" for v in values]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [100 * e[1] - v for e, v in zip(bars, values, strict=True)],
            "arrayminus": [v - 100 * e[0] for e, v in zip(bars, values, strict=True)],
            "color": "var(--ink-soft)",
            "thickness": 1.2,
            "width": 3,
            "visible": any(change.ends for _, change in rows),
        },
        "hoverinfo": "text",
        "hovertext": [f"{plot_text(n)}: {_change_text(c)}" for n, c in rows],
    }
    layout = {
        "xaxis": axis(
            "percentage points",
            range=points_range(spans),
            zeroline=True,
            zerolinecolor="var(--ink)",
        ),
        "yaxis": axis(
            range=[len(rows) - 0.4, -0.6],
            tickvals=list(range(len(rows))),
            ticktext=[plot_text(_short(name)) for name, _ in rows],
            showgrid=False,
        ),
        "bargap": 0.35,
    }
    return figure([trace], **layout)


def _change_text(change: Estimate) -> str:
    text = f"{100 * change.mean:+.1f} points"
    if change.ends:
        text += f" ({100 * change.ends[0]:+.1f} to {100 * change.ends[1]:+.1f})"
    return text


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def confusion_table(found: Found) -> dict[str, Any] | None:
    """Return the pairs of classes that are confused most, or None if none are known.

    A row is (class, predicted as, counts): for each of `methods` the mean count over seeds, as
    text. A pair that a run does not list counts 0.
    """
    by_method = {method: _runs(runs) for method, runs in found.items()}
    by_method = {method: runs for method, runs in by_method.items() if runs}
    means = {
        pair: [fmean(counts.get(pair, 0) for counts in runs) for runs in by_method.values()]
        for pair in dict.fromkeys(
            pair for runs in by_method.values() for counts in runs for pair in counts
        )
    }
    if not means:
        return None
    ranked = sorted(means, key=lambda pair: -sum(means[pair]))
    return {
        "methods": list(by_method),
        "rows": [
            (*pair, [f"{value:.1f}" for value in means[pair]]) for pair in ranked[:MOST_CONFUSIONS]
        ],
    }


def _runs(runs: Sequence[Findings]) -> list[dict[tuple[str, str], int]]:
    """Return each run's counts by (class, predicted)."""
    return [
        {(item.name, item.predicted): item.count for item in run.suites.clean.confusion}
        for run in runs
        if run.suites.clean.confusion
    ]
