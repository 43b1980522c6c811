"""What choosing a branch costs: microseconds of a switch there and back, as the median of many.

    python benchmarks/switching.py

The limit on EfficientNet-B0 is 20 microseconds; a walk over its modules is shown for comparison.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import nn

import advprop

LIMIT = 20.0
REPEATS = 200
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


def microseconds(action: Callable[[nn.Module], None], model: nn.Module) -> float:
    """Median over rounds: other programs on the machine make the mean useless."""
    action(model)
    rounds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(SWITCHES):
            action(model)
        rounds.append((time.perf_counter() - start) / SWITCHES)
    return 1e6 * statistics.median(rounds)


def main() -> None:
    model = timm.create_model("efficientnet_b0")
    model = advprop.add_auxiliary_norms(advprop.standardized(model))
    print(f"EfficientNet-B0, torch {torch.__version__}, timm {timm.__version__}")
    for name, action in {
        "one branch": switch,
        "a tuple of two": switch_to_tuple,
        "a tuple as 4 to 1": switch_to_shares,
        "(walk over all modules)": walk,
    }.items():
        print(f"{name:24s} {microseconds(action, model):7.1f} microseconds")
    if microseconds(switch, model) > LIMIT:
        raise SystemExit(f"switching takes more than {LIMIT:.0f} microseconds")


if __name__ == "__main__":
    main()
