"""What an epoch's numbers give away about training that does not do what it should."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_SMALLEST_PERTURBATION = 1e-6  # mean change of a value in [0, 1]; the weakest attack has 1e-3


def alarms(means: Mapping[str, Any], *, num_images: int) -> list[str]:
    """Warnings about an epoch's means (`EpochTotals.means`) over `num_images` images.

    Label leak (trained on single-step images of the true label, a net may read it off the
    perturbation or off batch statistics: Kurakin et al. 2017, Mei et al. 2022 section 3.2) shows as
    more accuracy on adversarial than on clean images; a broken attack as no perturbation.
    """
    found = []
    perturbation = means.get("perturbation")
    if perturbation is not None and perturbation < _SMALLEST_PERTURBATION:
        found.append(
            f"the mean perturbation is {perturbation:.1e}: the attack does nothing; look at "
            "epsilon and step size (fractions of [0, 1]), and at mixed_precision"
        )
    clean, adversarial = means.get("clean"), means.get("adversarial")
    if clean and adversarial:
        found += _label_leak(clean["accuracy"], adversarial["accuracy"], num_images)
    return found


def _label_leak(clean: float, adversarial: float, num_images: int) -> list[str]:
    chance = 3 * math.sqrt(2 * max(clean * (1 - clean), 1e-4) / num_images)
    if adversarial - clean <= max(0.02, chance):
        return []
    return [
        f"training accuracy on adversarial images ({adversarial:.1%}) exceeds that on clean ones "
        f"({clean:.1%}): the labels leak; aim at random_other_class, or attack with a random start"
    ]
