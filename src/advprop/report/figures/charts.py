"""Draws accuracies over cost, and their differences from a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from advprop.report.answer.conclusion import BASELINE_TITLES
from advprop.report.figures.drawing import (
    Entry,
    Panel,
    axis,
    error_bar,
    figure,
    hover,
    mark,
    plot_text,
    points_range,
    scatter,
)
from advprop.report.page.styles import MethodStyle, Styles
from advprop.results.cells import accuracy_cell, difference_cell
from advprop.results.summary import (
    ACCURACIES,
    LABEL_MEASURES,
    accuracy_names,
    difference_of,
    is_baseline,
)

TITLES = {
    **dict(zip(ACCURACIES, ("Clean images", "Under noise", "Under attack"), strict=True)),
    "autoattack_accuracy": "Under AutoAttack",
    "corruptions_accuracy": "Under corruptions",
    "imagenet_a_accuracy": "ImageNet-A",
    "imagenet_r_accuracy": "ImageNet-R",
    "imagenet_v2_accuracy": "ImageNet-V2",
    "objectnet_accuracy": "ObjectNet",
    "real_accuracy": "ImageNet-ReaL",
    "sketch_accuracy": "ImageNet-Sketch",
    "stylized_accuracy": "Stylized-ImageNet",
    "transfer_accuracy": "Under a transfer attack",
}
STEP = 0.03  # distance between marks at equal cost, as a share of the largest cost
MOST_APART = 0.1  # largest spread of all marks at equal cost, as a share of the largest cost
COST_TITLES = {
    "total_passes": "passes per image in the whole training",
    "train_seconds": "seconds of training",
}


def accuracy_title(accuracy: str) -> str:
    """Return the heading of an accuracy or measure; unknown suites get theirs from the name."""
    for measure, words in LABEL_MEASURES.items():
        if accuracy.endswith(f"_{measure}"):
            suite = accuracy.removesuffix(f"_{measure}")
            return f"{accuracy_title(f'{suite}_accuracy')}: {words}"
    return TITLES.get(accuracy) or accuracy.removesuffix("_accuracy").replace("_", " ").capitalize()


def cost_panels(
    summary: Sequence[Entry], runs: Sequence[Entry], styles: Styles, cost: str
) -> list[Panel]:
    """Return a panel per accuracy, drawn over `cost`: means with intervals, and seeds as dots."""
    panels = []
    for accuracy in accuracy_names(summary):
        title = accuracy_title(accuracy)
        entries = [entry for entry in summary if accuracy in entry and cost in entry]
        if not entries:
            continue
        places = _side_by_side([(entry["method"], entry[cost]) for entry in entries])
        traces = [
            trace
            for entry in entries
            for trace in _cost_traces(entry, runs, styles[entry["method"]], accuracy, cost, places)
        ]
        widest = max(places.values())
        axes = {
            "xaxis": axis(COST_TITLES[cost], range=[0, 1.1 * widest or 1]),
            "yaxis": axis(ticksuffix=" %", range=_of_accuracies(entries, runs, accuracy)),
        }
        reached = ", ".join(f"{e['method']} {accuracy_cell(e[accuracy]).value}" for e in entries)
        label = f"{title}: accuracy against {COST_TITLES[cost]}. {reached}."
        panels.append(Panel(title=title, figure=figure(traces, **axes), label=label))
    return panels


def _of_accuracies(entries: Sequence[Entry], runs: Iterable[Entry], accuracy: str) -> list[float]:
    """Return a range in percent that includes all seeds and intervals, within -2 to 102."""
    shown = {entry["method"] for entry in entries}
    values = [run[accuracy] for run in runs if run["method"] in shown and accuracy in run]
    values = [100 * value for value in values if value is not None]
    for entry in entries:
        values += [100 * end for end in (entry[accuracy]["mean"], *(entry[accuracy]["ci95"] or ()))]
    air = 0.08 * (max(values) - min(values)) or 1.0
    return [max(min(values) - air, -2.0), min(max(values) + air, 102.0)]


def _side_by_side(costs: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return the x position of each method; equal costs are spread so that no mark hides another.

    The spread is bounded by `MOST_APART`, however many methods have that cost.
    """
    widest = max(cost for _, cost in costs)
    places: dict[str, float] = {}
    for method, cost in costs:
        group = [name for name, other in costs if abs(other - cost) < STEP * widest]
        step = min(STEP, MOST_APART / len(group)) * widest
        places[method] = max(0.0, cost + (group.index(method) - (len(group) - 1) / 2) * step)
    return places


def _cost_traces(
    entry: Entry,
    runs: Iterable[Entry],
    style: MethodStyle,
    accuracy: str,
    cost: str,
    places: Mapping[str, float],
) -> list[dict[str, Any]]:
    place, aside = places[entry["method"]], 0.4 * STEP * max(places.values())
    mean, cell = 100 * entry[accuracy]["mean"], accuracy_cell(entry[accuracy])
    values = [
        100 * run[accuracy]
        for run in runs
        if run["method"] == entry["method"] and run.get(accuracy) is not None
    ]
    ends = [min(max(100 * end, 0), 100) for end in entry[accuracy]["ci95"] or ()]
    text = f"{cell.text}<br>{entry[cost]:,.4g} {COST_TITLES[cost]}"
    dot = {"color": style.color, "size": 4, "opacity": 0.7}
    return [
        scatter(
            entry["method"], [place - aside] * len(values), values, marker=dot, hoverinfo="skip"
        ),
        scatter(
            entry["method"],
            [place],
            [mean],
            error_y=error_bar([mean], [ends], style),
            marker=mark(style),
            **hover(entry["method"], text),
        ),
    ]


def difference_panels(summary: Sequence[Entry], styles: Styles, baseline: str) -> list[Panel]:
    """Return a panel per accuracy: differences from `baseline`, paired by seed, with intervals."""
    panels = []
    for accuracy in accuracy_names(summary):
        title = accuracy_title(accuracy)
        found = {
            entry["method"]: difference
            for entry in summary
            if not is_baseline(entry)
            and (difference := difference_of(entry, baseline, accuracy)) is not None
        }
        if not found:
            continue
        traces = [_difference_trace(name, d, styles[name]) for name, d in found.items()]
        axes = {
            "xaxis": axis(
                "percentage points",
                range=points_range((d["difference"], *(d["ci95"] or ())) for d in found.values()),
                zeroline=True,
                zerolinecolor="var(--ink)",
                zerolinewidth=1.5,
            ),
            "yaxis": axis(autorange="reversed", type="category", showgrid=False),
        }
        values = ", ".join(f"{m} {difference_cell(d).text}" for m, d in found.items())
        label = (
            f"{title}: difference from {BASELINE_TITLES[baseline]} in percentage points. {values}."
        )
        height = 90 + 38 * len(found)
        panels.append(Panel(title=title, figure=figure(traces, **axes), label=label, height=height))
    return panels


def _difference_trace(method: str, difference: Entry, style: MethodStyle) -> dict[str, Any]:
    value = 100 * difference["difference"]
    return scatter(
        method,
        [value],
        [plot_text(method)],
        error_x=error_bar([value], [[100 * end for end in difference["ci95"] or ()]], style),
        marker=mark(style),
        **hover(method, difference_cell(difference).text),
    )
