"""Results as text: the cells of the tables on the terminal and in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advprop.results.significance import FEWEST_SEEDS, is_significant


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table: a value, its interval (or why there is none) and its p-value."""

    value: str
    interval: str = ""
    p_value: str = ""
    significant: bool = False

    @property
    def text(self) -> str:
        """Return the whole cell on one line."""
        extra = ", ".join(part for part in (self.interval, self.p_value) if part)
        return f"{self.value} ({extra})" if extra else self.value


def accuracy_cell(estimate: Mapping[str, Any] | None) -> Cell:
    """Return a mean accuracy in percent, and its interval cut off at 0 and 100 %."""
    if estimate is None:
        return Cell(value="-")
    ends = [100 * min(max(end, 0.0), 1.0) for end in estimate["ci95"] or ()]
    interval = f"{ends[0]:.1f} to {ends[1]:.1f}" if ends else no_interval(estimate["n"])
    return Cell(value=f"{100 * estimate['mean']:.1f} %", interval=interval)


def no_interval(seeds: int) -> str:
    """Return the reason why a mean over `seeds` seeds has no interval."""
    few = {0: "no seed in common", 1: "one seed", 2: "two seeds"}
    return few[seeds] if seeds < FEWEST_SEEDS else "seeds agree"


def passes_cell(entry: Mapping[str, Any]) -> Cell:
    """Return the passes over each image in the whole training, and how they are made up."""
    parts = entry.get("epochs"), entry.get("passes_per_image")
    made_of = "" if None in parts else f"{number_text(parts[0])} epochs of {number_text(parts[1])}"
    return Cell(value=number_text(entry.get("total_passes")), interval=made_of)


def difference_cell(found: Mapping[str, Any] | None) -> Cell:
    """Return a difference in percentage points with its interval and Holm-corrected p-value."""
    if found is None:
        return Cell(value="-")
    p_value, interval = found["p_holm"], found["ci95"]
    ends = [points_text(min(max(end, -1.0), 1.0)) for end in interval or ()]
    return Cell(
        value=points_text(found["difference"]),
        interval=" to ".join(ends) or no_interval(found["n"]),
        p_value="" if p_value is None else p_text(p_value),
        significant=is_significant(found),
    )


def p_text(p_value: float) -> str:
    """Return a p-value with two significant digits, or "p < 0.001"."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def points_text(difference: float) -> str:
    """Return a difference of fractions in signed percentage points; zero is always "+0.0"."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"


def number_text(value: float | None) -> str:
    """Return a cost with three significant digits, or a dash if it is unknown."""
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"
