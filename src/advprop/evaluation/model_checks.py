"""Red flags of the model and its images, from the numbers of `advprop.evaluation.probes`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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


def check_branch(eval_branch: str, exported: str) -> Flag | None:
    """Flag a tested branch that is not the exported one."""
    if eval_branch == exported:
        return None
    return red_flag(
        flag="other_branch",
        message=f'the accuracies are those of branch "{eval_branch}"; an export keeps '
        f'only "{exported}", so these accuracies are not those of the exported model',
    )


def check_finished(finished: bool) -> Flag | None:
    """Flag the weights of a run whose training has not ended."""
    if finished:
        return None
    return red_flag(
        flag="unfinished_training",
        message="the training of this run has not ended, and these are its weights so far: "
        "advprop train ... --resume continues it",
    )


def check_standardisation(numbers: Mapping[str, Any]) -> Flag | None:
    """Flag an accuracy that is much higher without the model's first layer, mean and std."""
    without, accuracy, count = (
        numbers[key] for key in ("accuracy_without", "accuracy", "num_images")
    )
    if without - accuracy <= _WITHOUT or not rises(accuracy, without, count):
        return None
    return red_flag(
        flag="double_standardisation",
        message=f"accuracy on {count} images is {without:.1%} without mean and std and "
        f"{accuracy:.1%} with them: the weights were trained without, or with another mean and "
        "std; feed images in [0, 1], and standardise only in the model's first layer",
    )


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
