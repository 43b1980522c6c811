"""The text that `advprop evaluate` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, cast

Numbers = Mapping[str, Any]


def result_lines(result: Numbers) -> Iterator[str]:
    """Yield a line about the tested model, and some lines for each suite."""
    yield f"{result['run']}: branch {result['branch']}, weights {result['weights']}"
    for name, numbers in result["suites"].items():
        first, *more = _lines(name, numbers)
        yield f"  {name}: {first}"
        yield from (f"    {line}" for line in more)
    yield from _soup_lines(result.get("mix", ()))


def flag_lines(result: Numbers) -> Iterator[str]:
    """Yield a line for each red flag."""
    for flag in result["red_flags"]:
        suite = f" ({flag['suite']})" if flag["suite"] else ""
        yield f"RED FLAG {flag['flag']}{suite}: {flag['message']}; see {flag['page']}"


def _lines(suite: str, numbers: Numbers) -> Iterator[str]:
    """Yield a line with the results, and one for each point of a curve and pair of branches."""
    low, high = numbers["ci95"]
    accuracy = cast("float", numbers[f"{suite}_accuracy"])
    text = f"{accuracy:.2%} [{low:.1%}, {high:.1%}]"
    text += f" of {numbers['num_images']} images ({numbers['images']})"
    yield text + _labels(suite, numbers) + _DETAILS.get(suite, _protocol)(numbers)
    for name, after in numbers.get("after", {}).items():
        yield f"after {name}: {after:.2%}"
    for point in numbers.get("curve", ()):
        yield f"{point['threat_model']} epsilon {point['epsilon']:.4g}: {point['accuracy']:.2%}"
    for pair in numbers.get("pairs", ()):
        branches = f"attacked {pair['attack_branch']}, tested {pair['eval_branch']}"
        yield f"{branches}: {pair['accuracy']:.2%}"


def _soup_lines(points: Sequence[Numbers]) -> Iterator[str]:
    """Yield a line per weight, with its accuracy in each suite."""
    for weight, own in groupby(points, key=lambda point: point["weight"]):
        found = list(own)
        accuracies = ", ".join(f"{point['suite']} {point['accuracy']:.2%}" for point in found)
        yield f"  weight {weight:g} towards {found[0]['branch']}: {accuracies}"


def _protocol(numbers: Numbers) -> str:
    return f": {numbers['protocol']}" if "protocol" in numbers else ""


def _labels(suite: str, numbers: Numbers) -> str:
    """Return the measures of several labels, if an image has them."""
    from advprop.results.summary import LABEL_MEASURES

    found = [(words, numbers.get(f"{suite}_{name}")) for name, words in LABEL_MEASURES.items()]
    return "".join(f", {words} {value:.3f}" for words, value in found if value is not None)


def _clean(numbers: Numbers) -> str:
    from advprop.suites.imagenet.classes import described

    worst = min(numbers["per_class"], key=lambda entry: entry["accuracy"])
    top5 = f", top 5 {numbers['top5_accuracy']:.2%}" if "top5_accuracy" in numbers else ""
    return (
        f"{top5}, calibration error {numbers['calibration']['ece']:.2%}, "
        f"lowest class {described([worst['class']])} {worst['accuracy']:.1%}"
    )


def _noise(numbers: Numbers) -> str:
    return f", standard deviation {numbers['standard_deviation']:g}"


def _attack(numbers: Numbers) -> str:
    text = ""
    if "source" in numbers:
        text += f", made for {numbers['source']} ({numbers['source_accuracy']:.2%} there)"
    text += f", {numbers['threat_model']} epsilon {numbers['epsilon']:.4g}"
    if "num_steps" in numbers:
        text += f", {numbers['num_steps']} steps"
    if numbers.get("restarts", 1) > 1:
        text += f", {numbers['restarts']} restarts"
    return f"{text}, attacked branch {numbers['attack_branch']}"


def _corruptions(numbers: Numbers) -> str:
    found = numbers["by_corruption"]
    worst = max(found, key=lambda name: cast("float", found[name]["mean_error"]))
    mce = f", mCE {100 * numbers['mce']:.1f}" if "mce" in numbers else ""
    return (
        f", mean error {numbers['mean_error']:.2%}{mce}, {len(found)} corruptions at severity "
        f"{', '.join(map(str, numbers['severities']))}, "
        f"hardest {worst} {1 - found[worst]['mean_error']:.1%}; {numbers['made']}"
    )


_DETAILS = {
    "clean": _clean,
    "noise": _noise,
    **dict.fromkeys(("adversarial", "autoattack", "transfer"), _attack),
    "corruptions": _corruptions,
}
