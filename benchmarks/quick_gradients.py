"""What an attack gains by layers whose gradient of the images alone is quicker.

    python benchmarks/quick_gradients.py [--quick]

A step of adversarial training, which is an attack of two steps and one pass to learn. Inside
`attack_mode` the first convolution and every BatchNorm have other formulas for the gradient of
their input (`advprop.auxiliary.attacked_layers`); against it stands the same with their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

from measuring import Row, interleaved
from showing import show
from subjects import EFFICIENTNET_B0, RESNET18, Subject, method_of
from torch.nn import functional as F

MODES, LAYERS = "advprop.auxiliary.modes", "advprop.auxiliary.attacked_layers"
PLAIN = "plain layers"
LEFT_OUT: dict[str, Any] = {"first convolution": F.batch_norm, "norms": F.conv2d}
"""What keeps torch's formula where only these layers have a quicker one."""


def plain(action: Callable[[], object]) -> None:
    """In an `attack_mode` that changes no layer."""
    with patch(f"{MODES}.attacked_layers", lambda model: nullcontext()):
        action()


def without(function: Any, action: Callable[[], object]) -> None:
    """With torch's own gradient of `function`."""
    with patch.dict(f"{LAYERS}._QUICKER", {function: function}):
        action()


def gain(subject: Subject, repeats: int) -> Iterator[Row]:
    """With the other formulas over without."""
    step = subject.step(method_of("adversarial", 2))
    actions: dict[str, Callable[[], object]] = {PLAIN: partial(plain, step), "both": step}
    for layers, function in LEFT_OUT.items():
        actions[layers] = partial(without, function, step)
    times = interleaved(actions, repeats=repeats)
    for layers in ("both", *LEFT_OUT):
        what = f"adversarial, K = 2, quick gradients: {layers}"
        yield times.ratio(layers, PLAIN, what, case=str(subject))


def measure(quick: bool) -> Iterator[Row]:
    if quick:
        yield from gain(RESNET18.quick(), 2)
        return
    yield from gain(RESNET18, 7)
    yield from gain(EFFICIENTNET_B0, 5)


if __name__ == "__main__":
    show(measure)
