"""Writes the report's conclusion: the method to use, its cost, and the evidence.

A method wins only if it is significantly better, after Holm's correction for the number of methods,
than the better of two baselines: vanilla training at equal cost, since longer training alone may
explain a gain, and vanilla at equal epochs. If several methods are better, the one of highest
accuracy wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from advprop.report.answer.rivals import CLEAN, Comparison, Entry, compare_all, named
from advprop.results.cells import points_text
from advprop.results.significance import FEWEST_SEEDS, is_significant
from advprop.results.summary import EQUAL_COST, VANILLA, difference_of, is_baseline, kind_of

BASELINE_TITLES = {EQUAL_COST: "vanilla at equal cost", VANILLA: "vanilla at equal epochs"}
OTHER_IMAGES = {"noise_accuracy": "noise", "adversarial_accuracy": "attack"}


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The answer in a sentence, its cost, and the evidence as (term, sentence) pairs."""

    headline: str
    cost: str = ""
    points: tuple[tuple[str, str], ...] = ()


def conclude(summary: Sequence[Entry]) -> Conclusion:
    """Return the conclusion about the methods of one group; untested ones are ignored."""
    measured = [entry for entry in summary if CLEAN in entry]
    if not measured:
        return Conclusion(headline="No run has been tested yet.")
    leader = max(measured, key=lambda entry: entry[CLEAN]["mean"])
    if len(measured) == 1:
        headline = f"{leader['method']} reaches {reached(leader)}."
        lonely = "Only this method was run, so there is nothing to compare it with."
        return Conclusion(headline=headline, cost=f"{lonely} {_cost(leader, None)}")
    comparisons = sternest(measured, CLEAN)
    headline, told = _headline(measured, leader, comparisons)
    points = [("Clean images", text) for text in _clean_evidence(measured, comparisons)]
    for accuracy, name in OTHER_IMAGES.items():
        points += [(f"Under {name}", text) for text in _robustness(measured, accuracy)]
    points.append(("Certainty", _certainty(measured, comparisons)))
    cost = _cost(told, named(measured, VANILLA))
    return Conclusion(headline=headline, cost=cost, points=tuple(points))


def sternest(summary: Sequence[Entry], accuracy: str) -> list[Comparison]:
    """Return the comparisons of all methods with the better of the two baselines, the best first.

    If both baselines are equally accurate, it is vanilla at equal cost. If no method can be
    compared with the better one, it is the other; returns [] if there is nothing to compare.
    """
    baselines = [entry for kind in BASELINE_TITLES if (entry := named(summary, kind))]
    measured = [entry for entry in baselines if accuracy in entry]
    measured.sort(key=lambda entry: -entry[accuracy]["mean"])
    every = (compare_all(summary, kind_of(entry), accuracy) for entry in measured)
    return next((comparisons for comparisons in every if comparisons), [])


def _headline(
    summary: Sequence[Entry], leader: Entry, comparisons: Sequence[Comparison]
) -> tuple[str, Entry]:
    """Return the answer, and the method whose cost the conclusion states."""
    if not comparisons:
        return _without_rivals(summary, leader), leader
    first = comparisons[0]
    longer = named(summary, EQUAL_COST)
    if first.better:
        doubt = "" if longer else " Vanilla at equal cost was not run; it might reach the same."
        gain = f"{points_text(first.difference['difference'])} points"
        return (
            f"Use {first.method['method']}: {reached(first.method)}, "
            f"{gain} compared with {BASELINE_TITLES[first.baseline]} ({first.sure}).{doubt}"
        ), first.method
    if longer and _pays(longer, leader) and not first.promising:
        return _train_longer(summary, longer, first), longer
    return _undecided(summary, first)


def _train_longer(summary: Sequence[Entry], longer: Entry, first: Comparison) -> str:
    """Return the answer that recommends vanilla at equal cost."""
    vanilla = named(summary, VANILLA)
    instead = f" instead of {percent(vanilla)}" if vanilla and CLEAN in vanilla else ""
    advice = "Train vanilla longer" if instead else "Train vanilla"  # at equal time there is one
    return (
        f"{advice}: {reached(longer)}{instead}. At the same cost or less, "
        f"{first.method['method']} reaches {percent(first.method)} ({first.sure})."
    )


def _undecided(summary: Sequence[Entry], first: Comparison) -> tuple[str, Entry]:
    found = (
        f"{first.method['method']} reaches {reached(first.method)}, "
        f"{points_text(first.difference['difference'])} points compared with "
        f"{BASELINE_TITLES[first.baseline]} ({first.sure})"
    )
    if first.promising or first.difference["n"] < FEWEST_SEEDS:
        missing = first.seeds_missing
        return f"Too few seeds to tell: {missing} more would be needed. {found}.", first.method
    return (
        f"Stay with vanilla for clean accuracy: no other method is significantly better. {found}."
    ), named(summary, VANILLA) or named(summary, EQUAL_COST) or first.method


def _pays(longer: Entry, leader: Entry) -> bool:
    """Return whether vanilla at equal cost is significantly better than at equal epochs.

    If that cannot be tested, return whether it has the highest accuracy of all.
    """
    gain = difference_of(longer, VANILLA, CLEAN)
    if gain is None or gain["p_holm"] is None:
        return longer is leader
    return gain["difference"] > 0 and is_significant(gain)


def _without_rivals(summary: Sequence[Entry], leader: Entry) -> str:
    best = highest(summary, leader, _subject(leader))
    if any(not is_baseline(entry) for entry in summary):
        return f"{best}; its gain is unknown, because no vanilla run has the same seeds."
    return f"{best}; only vanilla training was run."


def highest(summary: Sequence[Entry], leader: Entry, name: str) -> str:
    """Return that `leader`, called `name`, has the highest accuracy, or that several share it."""
    mean = leader[CLEAN]["mean"]
    shared = sum(math.isclose(entry[CLEAN]["mean"], mean) for entry in summary) > 1
    who = "several runs share" if shared else f"{name} has"
    return f"{who} the highest accuracy on clean images, {percent(leader)}"


def _clean_evidence(summary: Sequence[Entry], comparisons: Sequence[Comparison]) -> list[str]:
    if not comparisons:
        return []
    first, *others = comparisons
    name = first.method["method"]
    texts = [
        f"{c.text} compared with {title}"
        for baseline, title in BASELINE_TITLES.items()
        for c in compare_all(summary, baseline, CLEAN)
        if c.method is first.method
    ]
    found = [f"Accuracy with {name} is {percent(first.method)}: {'; '.join(texts)}."]
    if better := [f"{c.method['method']} {percent(c.method)}" for c in others if c.better]:
        title = BASELINE_TITLES[first.baseline]
        found.append(f"Also significantly better than {title}: {', '.join(better)}.")
    higher = [c.method for c in others if c.method[CLEAN]["mean"] > first.method[CLEAN]["mean"]]
    found += [
        f"{e['method']} has a higher mean, {percent(e)}, but its difference from "
        f"{BASELINE_TITLES[first.baseline]} is not significant."
        for e in higher
    ]
    return found


def _robustness(summary: Sequence[Entry], accuracy: str) -> list[str]:
    comparisons = sternest(summary, accuracy)
    if not comparisons:
        return []
    found = comparisons[0]
    name = found.method["method"]
    baseline = next(entry for entry in summary if kind_of(entry) == found.baseline)
    text = (
        f"Accuracy is {percent(found.method, accuracy)} with {name} and "
        f"{percent(baseline, accuracy)} with {baseline['method']}: {found.text}."
    )
    if found.better:
        text += f" Use {name} if this matters; on clean images it reaches {percent(found.method)}."
    return [text]


def _certainty(summary: Sequence[Entry], comparisons: Sequence[Comparison]) -> str:
    seeds = min(entry[CLEAN]["n"] for entry in summary)
    text = f"{seeds} seed{'s' if seeds > 1 else ''} per method, and one test set for all."
    if not comparisons:
        return text
    found = comparisons[0]
    if found.difference["n"] < FEWEST_SEEDS:
        return f"{text} Intervals and p-values need at least {FEWEST_SEEDS} seeds; 5 are better."
    if interval := found.difference["ci95"]:
        half = 100 * (interval[1] - interval[0]) / 2
        if half < 50:
            text += (
                f" Differences in clean accuracy below about {half:.1f} points cannot be detected."
            )
        else:
            text += " The seeds differ too much to show any difference between methods."
    others = f" with Holm's correction for {found.rivals} methods" if found.rivals > 1 else ""
    return f"{text} Significant means p below 0.05 in the paired t-test{others}."


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
        f"{_subject(entry)} takes {_count(epochs, 'epoch', 'epochs')} of "
        f"{_count(passes, 'pass', 'passes')} per image"
    )
    text += "" if seconds is None else f", {_duration(seconds)} per run"
    if vanilla is not None and vanilla is not entry and vanilla.get("total_passes"):
        text += f"; {entry['total_passes'] / vanilla['total_passes']:.3g} times vanilla's passes"
        if seconds and vanilla.get("train_seconds"):
            text += f" and {seconds / vanilla['train_seconds']:.2g} times its training time"
    return f"{text}. The trained network costs the same at inference, whatever the method."


def percent(entry: Entry, accuracy: str = CLEAN) -> str:
    """Return the mean of `accuracy` in percent."""
    return f"{100 * entry[accuracy]['mean']:.1f} %"


def reached(entry: Entry) -> str:
    """Return the clean accuracy in words."""
    each = " per label" if "clean_auroc" in entry else ""
    return f"{percent(entry)} accuracy{each} on clean images"


def _count(number: float, one: str, many: str) -> str:
    return f"{number:.3g} {one if number == 1 else many}"


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:,.0f} min"
