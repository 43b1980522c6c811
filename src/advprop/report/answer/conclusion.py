"""Writes the report's conclusion: the method to use, its cost, and the evidence.

A method wins only if it is significantly better, after Holm's correction for the number of
methods, than vanilla training of equal cost, since longer training alone may explain a gain over
vanilla of equal epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advprop.report.answer.rivals import CLEAN, Comparison, Entry, compare_best, named
from advprop.results.cells import points_text
from advprop.results.significance import FEWEST_SEEDS, is_significant
from advprop.results.summary import (
    EQUAL_COST,
    VANILLA,
    difference_of,
    is_baseline,
    kind_of,
)

BASELINE_TITLES = {EQUAL_COST: "vanilla of equal cost", VANILLA: "vanilla of equal epochs"}
OTHER_IMAGES = {"noise_accuracy": "noise", "adversarial_accuracy": "attack"}


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The answer in a sentence, its cost, and evidence as (term, sentence) pairs; plain text."""

    headline: str
    cost: str = ""
    points: tuple[tuple[str, str], ...] = ()


def conclude(summary: Sequence[Entry]) -> Conclusion:
    """Return the conclusion of a comparison, of a single run, or of no tested run."""
    measured = [entry for entry in summary if CLEAN in entry]
    if not measured:
        return Conclusion(headline="No run has been tested yet.")
    leader = max(measured, key=lambda entry: entry[CLEAN]["mean"])
    if len(measured) == 1:
        headline = f"{leader['method']} gets {right(leader)}."
        lonely = "It is the only method run: there is nothing to compare it with."
        return Conclusion(headline=headline, cost=f"{lonely} {_cost(leader, None)}")
    headline, told = _headline(measured, leader)
    points = [("Clean images", text) for text in _clean_evidence(measured)]
    for accuracy, name in OTHER_IMAGES.items():
        points += [(f"Under {name}", text) for text in _robustness(measured, accuracy)]
    points.append(("How sure", _certainty(measured)))
    cost = _cost(told, named(measured, VANILLA))
    return Conclusion(headline=headline, cost=cost, points=tuple(points))


def sternest(summary: Sequence[Entry], accuracy: str) -> Comparison | None:
    """Compare the best method with vanilla of equal cost, or of equal epochs if that is missing."""
    return compare_best(summary, EQUAL_COST, accuracy) or compare_best(summary, VANILLA, accuracy)


def _headline(summary: Sequence[Entry], leader: Entry) -> tuple[str, Entry]:
    """Return the answer, and the method whose cost the conclusion states."""
    first = sternest(summary, CLEAN)
    if first is None:
        return _without_rivals(summary, leader), leader
    longer = named(summary, EQUAL_COST)
    if first.better:
        doubt = "" if longer else " Vanilla of equal cost was not run: it might do as well."
        gain = f"{points_text(first.difference['difference'])} points"
        return (
            f"Use {first.best['method']}: {right(first.best)}, "
            f"{gain} against {BASELINE_TITLES[first.baseline]} ({first.sure}).{doubt}"
        ), first.best
    if longer and (longer is leader or _gains_by_length(longer)) and not first.promising:
        return _train_longer(summary, longer, first), longer
    return _undecided(summary, first)


def _train_longer(summary: Sequence[Entry], longer: Entry, first: Comparison) -> str:
    """Return the answer if vanilla of equal cost leads or no method is distinguishable from it."""
    vanilla = named(summary, VANILLA)
    instead = f" instead of {percent(vanilla)}" if vanilla and CLEAN in vanilla else ""
    return (
        f"Train vanilla longer: {right(longer)}{instead}, where "
        f"{first.best['method']} of the same cost gets {percent(first.best)} ({first.sure})."
    )


def _undecided(summary: Sequence[Entry], first: Comparison) -> tuple[str, Entry]:
    found = (
        f"{first.best['method']} gets {right(first.best)}, "
        f"{points_text(first.difference['difference'])} points against "
        f"{BASELINE_TITLES[first.baseline]} ({first.sure})"
    )
    if first.promising or first.difference["n"] < FEWEST_SEEDS:
        missing = first.seeds_missing
        return f"Too few seeds to tell: {missing} more would be needed. {found}.", first.best
    return (
        f"Stay with vanilla for clean accuracy: no other method is significantly better. {found}."
    ), named(summary, VANILLA) or first.best


def _gains_by_length(longer: Entry) -> bool:
    gain = difference_of(longer, VANILLA, CLEAN)
    return gain is not None and gain["difference"] > 0 and is_significant(gain)


def _without_rivals(summary: Sequence[Entry], leader: Entry) -> str:
    best = f"{_subject(leader)} is highest on clean images, {percent(leader)}"
    if any(not is_baseline(entry) for entry in summary):
        return f"{best}; no vanilla run of the same seeds stands beside it, so its gain is unknown."
    return f"{best}; only vanilla training was run."


def _clean_evidence(summary: Sequence[Entry]) -> list[str]:
    found = [
        comparison
        for baseline in BASELINE_TITLES
        if (comparison := compare_best(summary, baseline, CLEAN)) is not None
    ]
    if not found:
        return []
    texts = [f"{c.text} against {BASELINE_TITLES[c.baseline]}" for c in found]
    return [f"{found[0].best['method']} gets {percent(found[0].best)}: {'; '.join(texts)}."]


def _robustness(summary: Sequence[Entry], accuracy: str) -> list[str]:
    found = sternest(summary, accuracy)
    if found is None:
        return []
    name, reached = found.best["method"], percent(found.best, accuracy)
    baseline = next(entry for entry in summary if kind_of(entry) == found.baseline)
    text = (
        f"{name} keeps {reached} where {baseline['method']} keeps {percent(baseline, accuracy)}: "
        f"{found.text}."
    )
    if found.better:
        text += f" Use {name} where this matters; on clean images it gets {percent(found.best)}."
    return [text]


def _certainty(summary: Sequence[Entry]) -> str:
    seeds = min(entry[CLEAN]["n"] for entry in summary)
    text = f"{seeds} seed{'s' if seeds > 1 else ''} a method, one test set for all."
    found = sternest(summary, CLEAN)
    if found is None:
        return text
    if found.difference["n"] < FEWEST_SEEDS:
        return f"{text} Intervals and p-values need {FEWEST_SEEDS} seeds, and say more with 5."
    if interval := found.difference["ci95"]:
        half = 100 * (interval[1] - interval[0]) / 2
        if half < 50:
            text += f" Clean differences below about {half:.1f} points cannot be seen with them."
        else:
            text += " They differ too much among themselves to show any difference."
    others = f", corrected for {found.rivals} methods (Holm)" if found.rivals > 1 else ""
    return f"{text} Significant is p below 0.05 of the paired t-test{others}."


def _subject(entry: Entry) -> str:
    """Return the method's name for the beginning of a sentence."""
    name = str(entry["method"])
    return name[:1].upper() + name[1:] if is_baseline(entry) else name


def _cost(entry: Entry, vanilla: Entry | None) -> str:
    passes, epochs = entry.get("passes_per_image"), entry.get("epochs")
    if passes is None or epochs is None:
        return f"The cost of {entry['method']} was not recorded."
    seconds = entry.get("train_seconds")
    text = (
        f"{_subject(entry)} takes {_count(passes, 'pass', 'passes')} per image for "
        f"{_count(epochs, 'epoch', 'epochs')}"
    )
    text += "" if seconds is None else f", {_duration(seconds)} a run here"
    if vanilla is not None and vanilla is not entry and vanilla.get("total_passes"):
        text += f"; {entry['total_passes'] / vanilla['total_passes']:.3g} times vanilla's passes"
        if seconds and vanilla.get("train_seconds"):
            text += f", {seconds / vanilla['train_seconds']:.2g} times its seconds"
    return f"{text}. A trained network costs the same to run, whatever the method."


def percent(entry: Entry, accuracy: str = CLEAN) -> str:
    """Return the mean of `accuracy` in percent."""
    return f"{100 * entry[accuracy]['mean']:.1f} %"


def right(entry: Entry) -> str:
    """Return the clean accuracy in words."""
    things = "labels of the clean images" if "clean_auroc" in entry else "clean images"
    return f"{percent(entry)} of the {things} right"


def _count(number: float, one: str, many: str) -> str:
    return f"{number:.3g} {one if number == 1 else many}"


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:,.0f} min"
