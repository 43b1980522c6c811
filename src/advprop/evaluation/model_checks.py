"""Red flags of the model and its images, from the numbers of `advprop.evaluation.probes`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from advprop.evaluation.checks import exceeds, red_flag, rises
from advprop.results.rows import Flag

FRUITLESS = 0.25
"""The largest usual share of images whose margin is not lowered by a step along the gradient."""

_ZERO_RATE = 0.01
_REPEATED, _ALONE = 1e-4, 1e-2
_WITHOUT = 0.1


def check_gradients(numbers: Mapping[str, Any]) -> Iterator[Flag]:
    """Flag gradients that are zero or do not lower the margin."""
    total, zero = numbers["num_images"], numbers["zero_gradients"]
    if exceeds(zero, total, _ZERO_RATE):
        yield red_flag(
            flag="zero_gradients",
            message=f"the gradient of {zero} of {total} images is exactly zero "
            f"({_ZERO_RATE:.0%} may be chance): gradient attacks cannot start; look for saturated "
            "outputs, rounding or detached tensors in the model",
        )
    fruitless = numbers["fruitless_gradients"]
    if exceeds(fruitless, total, FRUITLESS):
        yield red_flag(
            flag="masked_gradients",
            message=f"a step of epsilon / 10 along the gradient does not lower the margin of "
            f"{fruitless} of {total} images (up to {FRUITLESS:.0%} is usual): the gradients do not "
            "show where the model is weak, and accuracy under gradient attacks is too high",
        )


def check_outputs(numbers: Mapping[str, Any]) -> Iterator[Flag]:
    """Flag outputs that are probabilities, or differ between two passes of the same images."""
    if numbers["row_sum_error"] < 1e-3 and numbers["lowest"] >= 0:
        yield red_flag(
            flag="probabilities",
            message="no output is negative and all add up to one, so they are probabilities, not "
            "logits; gradients of the loss vanish where the model is confident; remove the softmax "
            "from the model",
        )
    repeated, alone = numbers["changed_when_repeated"], numbers["changed_when_alone"]
    if repeated > _REPEATED or alone > _ALONE or not math.isfinite(repeated + alone):
        how = "when repeated" if not repeated <= _REPEATED else "without the batch's other images"
        change, bound = (repeated, _REPEATED) if not repeated <= _REPEATED else (alone, _ALONE)
        yield red_flag(
            flag="changing_output",
            message=f"the logits of the same images change {how}, by {change:.2g} of the largest "
            f"(up to {bound:g} is rounding): accuracies depend on chance or on the batch; look for "
            "dropout, noise, or statistics of the batch",
        )


def check_mode(training: Sequence[str]) -> Flag | None:
    """Flag layers in train mode; `training` holds their names."""
    if not training:
        return None
    named = ", ".join(f'"{name}"' for name in training[:3])
    return red_flag(
        flag="train_mode",
        message=f"{len(training)} layers are in train mode (first {named}): dropout is on, and "
        "normalisation uses the batch's statistics; call model.eval() first",
    )


def check_branch(eval_branch: str, exported: str) -> Flag | None:
    """Flag a tested branch that is not the exported one."""
    if eval_branch == exported:
        return None
    return red_flag(
        flag="other_branch",
        message=f'the accuracies are those of branch "{eval_branch}"; an export keeps '
        f'only "{exported}", so these accuracies are not those of the exported model',
    )


def check_standardisation(layers: Sequence[str], numbers: Mapping[str, Any] | None) -> Flag | None:
    """Flag images that are standardised twice; `layers` names the layers that seem to do so."""
    remedy = "feed images in [0, 1], and standardise only in the model's first layer"
    message = None
    if len(layers) > 1:
        message = f"{len(layers)} layers standardise the images ({', '.join(layers)}): {remedy}"
    elif numbers is not None and outside(numbers):
        message = (
            f"the images have values from {numbers['lowest']:.3g} to {numbers['highest']:.3g}, so "
            f"they seem to be standardised before the model does it again: {remedy}"
        )
    elif numbers is not None and numbers["accuracy_without"] - numbers["accuracy"] > _WITHOUT:
        once, twice, count = numbers["accuracy_without"], numbers["accuracy"], numbers["num_images"]
        if rises(twice, once, count):
            message = (
                f"accuracy on {count} images is {once:.1%} without mean and std and {twice:.1%} "
                f"with them: the weights were trained without, or with another mean and std; "
                f"{remedy}"
            )
    return message if message is None else red_flag(flag="double_standardisation", message=message)


def check_seen(suite: str, numbers: Mapping[str, Any]) -> Flag | None:
    """Flag test images that are among the training images, even a single one."""
    if not numbers["found"]:
        return None
    return red_flag(
        flag="seen_in_training",
        suite=suite,
        message=f"{numbers['found']} of {numbers['test_images']} images tested are among "
        f"{numbers['train_images']} training images, equal in every pixel, so the accuracy may be "
        "too high; remove them from one of the two sets",
    )


def outside(numbers: Mapping[str, Any]) -> bool:
    """Return whether image values lie outside [0, 1] by more than rounding."""
    return not (numbers["lowest"] >= -1e-3 and numbers["highest"] <= 1.001)
