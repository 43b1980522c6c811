"""Red flags of attacks: numbers that cast doubt on the reported accuracies.

Each check is a function of numbers and returns at most one flag; docs/red_flags.md has a section
for each flag, with its thresholds and remedies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import binom

from advprop.results.rows import Flag

REACH = 0.5
"""Perturbations with a mean length below this share of epsilon raise a flag."""

_BLACK_BOX_RATE = 0.01
_SQUARE_RATE = 0.002  # auto-attack's own bound
_Z = 1.96


def red_flag(*, flag: str, message: str, suite: str | None = None) -> Flag:
    """Return a red flag with its page; `message` has the finding, the usual value, the remedy."""
    page = f"docs/red_flags.md#{flag.replace('_', '-')}"
    return Flag(flag=flag, suite=suite, message=message, page=page)


def check_perturbation(suite: str, numbers: Mapping[str, Any]) -> Flag | None:
    """Flag perturbations that are much shorter than the threat model allows."""
    reached = numbers.get("reached")
    if reached is None or reached >= REACH:
        return None
    return red_flag(
        flag="small_perturbation",
        suite=suite,
        message=f"the perturbations reach {reached:.2g} of epsilon {numbers['epsilon']:.4g} on "
        f"average, at least {REACH:g} is usual: the attack is too weak; check step_size and "
        "num_steps (their product should exceed epsilon; epsilon and step_size are fractions of "
        "[0, 1])",
    )


def check_curve(suite: str, points: Sequence[Mapping[str, Any]], *, num_images: int) -> Flag | None:
    """Flag an accuracy that rises as epsilon grows, within a threat model."""
    worst: dict[str, Mapping[str, Any]] = {}
    for point in sorted(points, key=lambda point: (point["threat_model"], point["epsilon"])):
        least = worst.setdefault(point["threat_model"], point)
        if point["accuracy"] < least["accuracy"]:
            worst[point["threat_model"]] = point
        elif rises(least["accuracy"], point["accuracy"], num_images):
            return red_flag(
                flag="rising_accuracy",
                suite=suite,
                message=f"accuracy rises from {least['accuracy']:.1%} at {point['threat_model']} "
                f"epsilon {least['epsilon']:.4g} to {point['accuracy']:.1%} at "
                f"{point['epsilon']:.4g}, more than chance explains with {num_images} images: a "
                "larger threat model contains the smaller one, so the attack is too weak; give it "
                "more steps or restarts",
            )
    return None


def check_black_box(suite: str, numbers: Mapping[str, Any]) -> Flag | None:
    """Flag a random search that finds adversarial images which the white-box attack missed."""
    count, total = numbers["black_box_only"], numbers["num_images"]
    if not exceeds(count, total, _BLACK_BOX_RATE):
        return None
    return red_flag(
        flag="black_box_beats_white_box",
        suite=suite,
        message=f"of {total} attacked images, a random search of {numbers['num_queries']} queries "
        f"fools {count} that the attack did not ({_BLACK_BOX_RATE:.0%} may be chance): gradients "
        "mislead the attack, or it goes through another branch; the suite autoattack is the "
        "stronger test",
    )


def check_square(suite: str, after: Mapping[str, float], *, num_images: int) -> Flag | None:
    """Flag a Square attack that fools images which AutoAttack's white-box attacks did not."""
    white = [accuracy for name, accuracy in after.items() if name != "square"]
    if "square" not in after or not white:
        return None
    count = round((min(white) - after["square"]) * num_images)
    if not exceeds(count, num_images, _SQUARE_RATE):
        return None
    return red_flag(
        flag="black_box_beats_white_box",
        suite=suite,
        message=f"of {num_images} images, Square, which sees no gradients, fools {count} that the "
        f"white-box attacks of AutoAttack did not ({_SQUARE_RATE:.1%} may be chance): gradients "
        "are masked, and the true accuracy is lower still",
    )


def check_transfer(
    transfer: Mapping[str, Any], adversarial: Mapping[str, Any] | None
) -> Flag | None:
    """Flag another model's adversarial images that fool more often than those for this model."""
    same = ("threat_model", "epsilon", "num_images", "images", "eval_branch")
    if adversarial is None or any(transfer.get(key) != adversarial.get(key) for key in same):
        return None
    black, white = transfer["transfer_accuracy"], adversarial["adversarial_accuracy"]
    if not rises(black, white, transfer["num_images"]):
        return None
    return red_flag(
        flag="black_box_beats_white_box",
        suite="transfer",
        message=f"accuracy is {black:.1%} on images made for {transfer['source']} and {white:.1%} "
        "on images made for this model itself: an attack that knows the model should be the "
        "stronger one; its gradients are masked, or it goes through another branch",
    )


def rises(low: float, high: float, count: int) -> bool:
    """Return whether the rise exceeds the 95 % interval for independent shares of `count` images.

    It must also be two images at least. Both shares are measured on the same images, so chance is
    smaller and the check conservative.
    """
    spread = math.sqrt((low * (1 - low) + high * (1 - high)) / max(count, 1))
    return high - low > max(_Z * spread, 1.5 / max(count, 1))


def exceeds(count: int, total: int, rate: float) -> bool:
    """Return whether `count` of `total` exceeds the share `rate` (one-sided binomial p < 0.025)."""
    return count > 0 and total > 0 and float(binom.sf(count - 1, total, rate)) < 0.025
