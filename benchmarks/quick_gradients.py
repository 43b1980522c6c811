"""What an attack gains by layers whose gradient of the images alone is quicker.

    python benchmarks/quick_gradients.py [--quick]

A step of adversarial training, which is an attack of five steps and one pass to learn. Inside
`attack_mode` the first convolution and every BatchNorm have other formulas for the gradient of
their input (`advprop.auxiliary.attacked_layers`); against it stands the same with their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

from measuring import Row, interleaved
from showing import show
from subjects import EFFICIENTNET_B0, LAYOUTS, RESNET18, Subject, method_of

PLAIN, QUICK = "plain layers", "quick gradients"


def without(action: Callable[[], object]) -> Callable[[], object]:
    """The same, in an `attack_mode` that changes no layer."""

    def plain() -> None:
        with patch("advprop.auxiliary.modes.attacked_layers", lambda model: nullcontext()):
            action()

    return plain


def gain(subject: Subject, repeats: int) -> Iterator[Row]:
    """With the other formulas over without."""
    step = subject.step(method_of("adversarial"))
    times = interleaved({QUICK: step, PLAIN: without(step)}, repeats=repeats)
    yield times.ratio(QUICK, PLAIN, f"adversarial, K = 5, {QUICK}", case=str(subject))


def measure(quick: bool) -> Iterator[Row]:
    if quick:
        yield from gain(RESNET18.quick(), 2)
        return
    for subject in (RESNET18, EFFICIENTNET_B0):
        for layout in LAYOUTS:
            yield from gain(replace(subject, layout=layout), 9)


if __name__ == "__main__":
    show(measure)
