"""Writes the top of the report: red flags and the conclusion, for one or several groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from advprop.report.answer.conclusion import Conclusion, conclude, highest
from advprop.report.answer.rivals import CLEAN, Entry
from advprop.report.findings import Found
from advprop.results.rows import Flag
from advprop.results.summary import group_of

OTHER_RUNS = "other runs"


def red_flags(runs: Iterable[Mapping[str, Any]], found: Found) -> list[dict[str, Any]]:
    """Return the red flags of all runs, one entry per kind, those of most runs first.

    An entry has the flag's `name` and `page`, its `first` message, the runs that have it (`who`),
    and the (run, message) pairs with another message (`others`).
    """
    raised = [
        (f"{run['method']}, seed {run['seed']}", Flag.model_validate(flag))
        for run in runs
        for flag in run.get("red_flags") or ()
    ]
    raised += [
        (f"{method}, seed {run.seed}", flag)
        for method, findings in found.items()
        for run in findings
        for flag in run.red_flags
    ]
    kinds: dict[tuple[str, str], dict[tuple[str, str], Flag]] = {}
    for who, flag in raised:
        key = (flag.flag or flag.message, flag.suite or "")
        kinds.setdefault(key, {}).setdefault((who, flag.message), flag)
    warned = [_warned(suite, list(flags.items())) for (_, suite), flags in kinds.items()]
    return sorted(warned, key=lambda one: -len(one["who"]))


def _warned(suite: str, flags: Sequence[tuple[tuple[str, str], Flag]]) -> dict[str, Any]:
    (_, message), flag = flags[0]
    name = flag.flag.replace("_", " ").capitalize()
    return {
        "name": f"{name} ({suite})" if name and suite else name,
        "page": flag.page or "",
        "first": message,
        "who": list(dict.fromkeys(who for (who, _), _ in flags)),
        "others": [(who, text) for (who, text), _ in flags if text != message],
    }


def overview(summary: Sequence[Entry], runs: Sequence[Mapping[str, Any]]) -> Conclusion:
    """Return the conclusion of one group, or a joint headline and an answer for each of several."""
    groups: dict[str, list[Entry]] = {}
    for entry in summary:
        groups.setdefault(group_of(entry), []).append(entry)
    if len(groups) < 2:
        return conclude(summary)
    points = tuple((name or OTHER_RUNS, _answer(entries)) for name, entries in groups.items())
    return Conclusion(headline=_across(summary, runs, len(groups)), cost=_APART, points=points)


_APART = (
    "Gains and p-values compare methods only within a group, since groups differ in more than the "
    "method."
)


def _across(summary: Sequence[Entry], runs: Sequence[Mapping[str, Any]], groups: int) -> str:
    measured = [entry for entry in summary if CLEAN in entry]
    if not measured:
        return "No run has been tested yet."
    tested = {str(run.get("tested_on")) for run in runs if run.get(CLEAN) is not None}
    if len(tested) > 1:
        return (
            f"{groups} groups of runs were tested on different images, so accuracies of different "
            "groups cannot be compared."
        )
    leader = max(measured, key=lambda entry: entry[CLEAN]["mean"])
    return f"Among {groups} groups of runs, {highest(measured, leader, leader['method'])}."


def _answer(entries: Sequence[Entry]) -> str:
    found = conclude(entries)
    if not found.points:
        return found.headline
    return f"{found.headline} {found.cost.split('. ')[0]}."
