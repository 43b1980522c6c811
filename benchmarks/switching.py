"""What choosing a branch costs: microseconds of a switch there and back.

    python benchmarks/switching.py [--quick]

The target on EfficientNet-B0 is 20 microseconds; a walk over its modules is shown for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from measuring import Row, interleaved
from showing import show
from subjects import EFFICIENTNET_B0
from torch import nn

import advprop

TARGET = 20.0
SWITCHES = 50


def switch(model: nn.Module) -> None:
    with advprop.use_branch(model, "adversarial"):
        pass


def switch_to_tuple(model: nn.Module) -> None:
    with advprop.use_branch(model, ("clean", "adversarial")):
        pass


def switch_to_shares(model: nn.Module) -> None:
    with advprop.use_branch(model, ("clean", "adversarial"), shares=(4, 1)):
        pass


def walk(model: nn.Module) -> None:
    for _ in model.modules():
        pass


def many(action: Callable[[nn.Module], None], model: nn.Module) -> None:
    for _ in range(SWITCHES):
        action(model)


def measure(quick: bool) -> Iterator[Row]:
    model = EFFICIENTNET_B0.model(("adversarial",))
    actions = {
        "one branch": switch,
        "a tuple of two": switch_to_tuple,
        "a tuple as 4 to 1": switch_to_shares,
        "(walk over all modules)": walk,
    }
    times = interleaved(
        {name: partial(many, action, model) for name, action in actions.items()},
        repeats=20 if quick else 50,
    )
    for name, action in actions.items():
        fields = {"case": EFFICIENTNET_B0.architecture, "unit": "us"}
        target = None if action is walk else TARGET
        yield times.absolute(name, scale=1e6 / SWITCHES, target=target, **fields)


if __name__ == "__main__":
    show(measure)
