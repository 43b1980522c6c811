"""Arranges the figures of each section in groups for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advprop.report.answer.conclusion import BASELINE_TITLES
from advprop.report.answer.estimates import references
from advprop.report.figures import calibration, charts, corruptions
from advprop.report.figures.curves import curve_panels, statistics_panels
from advprop.report.figures.drawing import Panel
from advprop.report.figures.robustness import robustness_panels, strengths
from advprop.report.figures.soups import soup_panels
from advprop.report.findings import Findings
from advprop.report.images import classes
from advprop.report.images.confusions import confusion_table
from advprop.report.page.styles import MethodStyle

Json = Mapping[str, Any]
Found = Mapping[str, Sequence[Findings]]
Styles = Mapping[str, MethodStyle]
MOST_PANELS = 9  # visible panels of a group; the others are folded


@dataclass(frozen=True, kw_only=True)
class PanelGroup:
    """Panels under one heading, in up to `columns` columns."""

    title: str
    panels: tuple[Panel, ...]
    columns: int = 3

    @property
    def shown(self) -> tuple[Panel, ...]:
        """The panels that are visible at first."""
        return self.panels[:MOST_PANELS]

    @property
    def folded(self) -> tuple[Panel, ...]:
        """The panels that the reader can unfold."""
        return self.panels[MOST_PANELS:]


@dataclass(frozen=True, kw_only=True)
class View:
    """One of several views between which the reader switches; `scale` names its colour scale."""

    title: str
    groups: tuple[PanelGroup, ...]
    scale: str = ""
    low: str = ""
    high: str = ""


def suite_sections(
    summary: Sequence[Json], runs: Sequence[Json], found: Found, styles: Styles
) -> dict[str, Any]:
    """Return the figures of the test results."""
    held = references(found, summary)
    return {
        "difference_groups": _difference_groups(summary, styles),
        "cost_groups": _cost_groups(summary, runs, styles),
        "robustness_groups": _groups(("", robustness_panels(found, styles), 2)),
        "strengths": strengths(found),
        "soup_groups": _groups(("", soup_panels(found, styles), 2)),
        "corruption_views": _corruption_views(found, held),
        "corruption_rows": corruptions.corruption_rows(found),
        "class_groups": _groups(("", classes.class_panels(found, held), 3)),
        "class_table": classes.class_table(found, held),
        "confusion_table": confusion_table(found),
        "calibration_groups": _groups(("", calibration.calibration_panels(found, styles), 2)),
    }


def training_sections(
    curves: Sequence[Json], records: Sequence[Json], styles: Styles
) -> dict[str, Any]:
    """Return the figures of the training."""
    return {
        "curve_groups": _groups(("", curve_panels(curves, styles), 3)),
        "statistics_methods": list(
            dict.fromkeys(str(record["method"]) for record in records if record.get("statistics"))
        ),
        "statistics_groups": _groups(("", statistics_panels(records, styles), 2)),
    }


def _groups(*candidates: tuple[str, list[Panel], int]) -> list[PanelGroup]:
    return [
        PanelGroup(title=title, panels=tuple(panels), columns=2 if len(panels) == 4 else columns)
        for title, panels, columns in candidates
        if panels
    ]


def _cost_groups(summary: Sequence[Json], runs: Sequence[Json], styles: Styles) -> list[PanelGroup]:
    if sum("clean_accuracy" in entry for entry in summary) < 2:
        return []
    titles = {"total_passes": "Cost in passes", "train_seconds": "Cost in seconds"}
    return _groups(
        *(
            (title, charts.cost_panels(summary, runs, styles, cost), 3)
            for cost, title in titles.items()
        )
    )


def _difference_groups(summary: Sequence[Json], styles: Styles) -> list[PanelGroup]:
    """Return the differences to vanilla of equal cost, or else to vanilla; tables have both."""
    return _groups(
        *(
            (f"Difference from {title}", charts.difference_panels(summary, styles, baseline), 3)
            for baseline, title in BASELINE_TITLES.items()
        )
    )[:1]


def _corruption_views(found: Found, held: Mapping[str, str]) -> list[View]:
    views = []
    if panels := corruptions.corruption_panels(found):
        groups = tuple(_groups(("", panels, 3)))
        scale = corruptions.ACCURACY_SCALE
        views.append(View(title="Accuracy", groups=groups, scale=scale, low="0 %", high="100 %"))
    if panels := corruptions.difference_panels(found, held):
        end = panels[0].figure["data"][0]["zmax"]
        views.append(
            View(
                title="Difference",
                groups=tuple(_groups(("", panels, 3))),
                scale=corruptions.DIFFERENCE_SCALE,
                low=f"\N{MINUS SIGN}{end:g} points",
                high=f"+{end:g} points",
            )
        )
    return views
