"""From finished runs to a summary: means, 95 % intervals, differences paired by seed.

Everything here is plain Python on the dictionaries of `results.json` (see docs/results.md), so
that the command line, the report and a notebook read the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtr, stdtrit

Run = Mapping[str, Any]

VANILLA, EQUAL_COST = "vanilla", "vanilla_equal_cost"
BASELINES = (VANILLA, EQUAL_COST)
ACCURACIES = ("clean_accuracy", "noise_accuracy", "adversarial_accuracy")
COSTS = ("epochs", "passes_per_image", "total_passes", "train_seconds")
# Accuracies are multiples of one over the number of images: a spread below this is rounding.
NO_SPREAD = 1e-9


def summarise(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The `summary` of `results.json`: one entry a method, vanilla first.

    Intervals are Student t over seeds, differences are paired by seed; `ci95` and `p_value` are
    null where fewer than two seeds, or seeds without any spread, leave nothing to estimate.
    Raises `ValueError` for an accuracy outside 0 to 1 and for two runs of one method and seed.
    """
    by_method = _by_method(runs)
    return [
        {
            "method": method,
            "seeds": sorted(by_seed),
            **_accuracies(list(by_seed.values())),
            **_costs(list(by_seed.values())),
            "versus": {
                baseline: _versus(by_seed, by_method[baseline])
                for baseline in BASELINES
                if baseline in by_method and baseline != method
            },
        }
        for method, by_seed in by_method.items()
    ]


def mean_interval(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """Mean of `values` and its 95 % Student t interval, None where it cannot be estimated."""
    mean = fmean(values)
    if len(values) < 2 or (spread := stdev(values)) < NO_SPREAD:
        return mean, None
    half = float(stdtrit(len(values) - 1, 0.975)) * spread / math.sqrt(len(values))
    return mean, [mean - half, mean + half]


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Mean of `ours - theirs`, its 95 % interval, two-sided p of the paired t-test, pairs `n`."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    if not differences:
        return {"difference": None, "ci95": None, "p_value": None, "n": 0}
    mean, interval = mean_interval(differences)
    p_value = None
    if interval is not None:
        t = mean / (stdev(differences) / math.sqrt(len(differences)))
        p_value = 2 * float(stdtr(len(differences) - 1, -abs(t)))
    return {"difference": mean, "ci95": interval, "p_value": p_value, "n": len(differences)}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction of `p_values` for their number; None stays None and does not count."""
    ranked = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - rank)))
        corrected[i] = highest
    return corrected


def _by_method(runs: Iterable[Run]) -> dict[str, dict[Any, Run]]:
    found: dict[str, dict[Any, Run]] = {}
    for run in runs:
        method, seed = run["method"], run["seed"]
        for key in ACCURACIES:
            _check_fraction(run.get(key), f"{key} of {method}, seed {seed}")
        if seed in found.setdefault(method, {}):
            raise ValueError(
                f"two runs of method {method} and seed {seed}: one for each is allowed, "
                "remove one or give it another seed"
            )
        found[method][seed] = run
    first = [method for method in BASELINES if method in found]
    return {method: found[method] for method in dict.fromkeys([*first, *found])}


def _check_fraction(value: Any, what: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(
            f"{what} is {value!r}: accuracies are fractions from 0 to 1, divide percentages by 100"
        )


def _accuracies(runs: Sequence[Run]) -> dict[str, Any]:
    found = {}
    for key in ACCURACIES:
        values = [float(run[key]) for run in runs if run.get(key) is not None]
        if values:
            mean, interval = mean_interval(values)
            found[key] = {"mean": mean, "ci95": interval, "n": len(values)}
    return found


def _costs(runs: Sequence[Run]) -> dict[str, float]:
    costs = {key: [_cost(run, key) for run in runs] for key in COSTS}
    known = {key: [v for v in values if v is not None] for key, values in costs.items()}
    return {key: fmean(values) for key, values in known.items() if values}


def _cost(run: Run, key: str) -> float | None:
    if key == "total_passes" and run.get(key) is None:
        parts = run.get("epochs"), run.get("passes_per_image")
        return None if None in parts else float(parts[0] * parts[1])  # type: ignore[operator]
    value = run.get(key)
    return None if value is None else float(value)


def _versus(ours: Mapping[Any, Run], theirs: Mapping[Any, Run]) -> dict[str, Any]:
    """Differences by accuracy; those of the clean one stand at the top level."""
    shared = [seed for seed in ours if seed in theirs]
    found: dict[str, Any] = {}
    for key in ACCURACIES:
        pairs = [(ours[seed].get(key), theirs[seed].get(key)) for seed in shared]
        whole = [(a, b) for a, b in pairs if a is not None and b is not None]
        found[key] = paired_difference([a for a, _ in whole], [b for _, b in whole])
    clean = found.pop("clean_accuracy")
    return {**clean, **{key: value for key, value in found.items() if value["n"]}}


def difference_of(entry: Mapping[str, Any], baseline: str, accuracy: str) -> dict[str, Any] | None:
    """The comparison of one summary entry with `baseline` in `accuracy`; None if not measured."""
    versus = entry.get("versus", {}).get(baseline)
    found = versus if versus is None or accuracy == "clean_accuracy" else versus.get(accuracy)
    return None if found is None or found.get("difference") is None else dict(found)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table: the value, below it its interval and p-value (may be empty)."""

    value: str
    interval: str = ""
    p_value: str = ""
    significant: bool = False

    @property
    def text(self) -> str:
        """The whole cell on one line."""
        extra = ", ".join(part for part in (self.interval, self.p_value) if part)
        return f"{self.value} ({extra})" if extra else self.value


@dataclass(frozen=True, kw_only=True)
class ResultsTable:
    """A table as text: column titles, and as many cells in each row; the first is the method."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def results_table(summary: Sequence[Mapping[str, Any]]) -> ResultsTable:
    """Accuracies with intervals, cost, and clean differences to the baselines, of each method."""
    titles = (
        *("method", "clean", "noise", "adversarial", "passes", "seconds"),
        *(f"clean vs {baseline}" for baseline in BASELINES),
    )
    rows = tuple(
        (
            Cell(value=str(entry["method"])),
            *(accuracy_cell(entry.get(key)) for key in ACCURACIES),
            passes_cell(entry),
            Cell(value=_number(entry.get("train_seconds"))),
            *(difference_cell(difference_of(entry, name, ACCURACIES[0])) for name in BASELINES),
        )
        for entry in summary
    )
    return ResultsTable(columns=titles, rows=rows)


def accuracy_cell(estimate: Mapping[str, Any] | None) -> Cell:
    """A mean in percent with its interval, cut to what is possible: 0 to 100."""
    if estimate is None:
        return Cell(value="-")
    ends = [100 * min(max(end, 0.0), 1.0) for end in estimate["ci95"] or ()]
    interval = f"{ends[0]:.1f} to {ends[1]:.1f}" if ends else ""
    return Cell(value=f"{100 * estimate['mean']:.1f} %", interval=interval)


def passes_cell(entry: Mapping[str, Any]) -> Cell:
    """Passes per image over the whole training, and what they are made of."""
    parts = entry.get("epochs"), entry.get("passes_per_image")
    made_of = "" if None in parts else f"{_number(parts[0])} epochs of {_number(parts[1])}"
    return Cell(value=_number(entry.get("total_passes")), interval=made_of)


def difference_cell(found: Mapping[str, Any] | None) -> Cell:
    """A difference in percentage points with its interval and p-value."""
    if found is None:
        return Cell(value="-")
    p_value, interval = found["p_value"], found["ci95"]
    return Cell(
        value=points_text(found["difference"]),
        interval=" to ".join(points_text(end) for end in interval or ()),
        p_value="" if p_value is None else p_text(p_value),
        significant=p_value is not None and p_value < 0.05,
    )


def p_text(p_value: float) -> str:
    """A p-value as papers print it: two significant digits, never zero."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def points_text(difference: float) -> str:
    """A difference of fractions in percentage points with its sign; zero never has a minus."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"
