"""Warnings about faults of the training that an epoch's metrics show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_SMALLEST_PERTURBATION = 1e-6  # mean change of a value in [0, 1]; weak attacks reach 1e-3


def alarms(means: Mapping[str, Any], *, num_images: int) -> list[str]:
    """Return warnings about an epoch's means (`EpochTotals.means`) over `num_images` images.

    One reports zero perturbations. One reports a label leak, if the accuracy is clearly higher on
    adversarial than on clean images: a model trained on single-step attacks on the true label may
    read it off the perturbation or the batch statistics (Kurakin et al. 2017, Mei et al. 2022
    section 3.2).
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
        found += _label_leak(clean, adversarial, num_images)
    return found


def _label_leak(
    clean_means: Mapping[str, float], adversarial_means: Mapping[str, float], num_images: int
) -> list[str]:
    clean, adversarial = clean_means["accuracy"], adversarial_means["accuracy"]
    numbers = [num_images * means.get("share", 1.0) for means in (clean_means, adversarial_means)]
    variance = max(clean * (1 - clean), 1e-4)
    # 4 standard deviations, not 3: images of a batch are normalised together, so they are not
    # independent samples, least of all while a new network predicts one class for all of them
    chance = 4 * math.sqrt(variance * sum(1 / number for number in numbers))
    if adversarial - clean <= max(0.02, chance):
        return []
    return [
        f"training accuracy on adversarial images ({adversarial:.1%}) exceeds that on clean ones "
        f"({clean:.1%}): the labels leak; aim at random_other_class, attack with a random start, "
        "or see the pitfalls of the method's card"
    ]
