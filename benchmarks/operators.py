"""Where the time of a step goes: kinds of operators, in shares of a vanilla step.

    python benchmarks/operators.py [--quick]

By torch's profiler, for a vanilla step and for one step of the attack inside AdvProp's. What an
attack step spends on convolutions is about two thirds of what training does; the rest of a net
need not follow that rule.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from measuring import Row
from showing import show
from subjects import EFFICIENTNET_B0, RESNET18, Subject, method_of
from torch.profiler import ProfilerActivity, profile

FEW, MANY = 1, 5  # attack steps; the difference is that of MANY - FEW of them
KINDS = {
    "convolution_backward": "convolutions, backward",
    "convolution": "convolutions, forward",
    "norm": "normalisation",
    "silu": "activations",
    "relu": "activations",
    "threshold": "activations",
    "copy_": "copies and fills",
    "fill_": "copies and fills",
    "zero_": "copies and fills",
}
"""By what is in an operator's name, the first that fits."""
OTHERS = "all other"
ALL_KINDS = (*dict.fromkeys(KINDS.values()), OTHERS)


def kind_of(operator: str) -> str:
    """The kind of an operator of the profile."""
    name = operator.lower()
    return next((kind for part, kind in KINDS.items() if part in name), OTHERS)


def milliseconds(step: Callable[[], object]) -> Counter[str]:
    """The processor's time of one step, by kind of operator."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    found: Counter[str] = Counter()
    for event in recorded.key_averages():
        found[kind_of(event.key)] += event.self_cpu_time_total / 1000
    return found


def shares(subject: Subject, repeats: int) -> Iterator[Row]:
    """Rows of the vanilla step and of an attack step, by kind."""
    steps = {
        "vanilla": subject.step(method_of("vanilla")),
        **{count: subject.step(method_of("advprop", count)) for count in (FEW, MANY)},
    }
    for step in steps.values():
        step()
    began = time.perf_counter()
    rounds = [{name: milliseconds(step) for name, step in steps.items()} for _ in range(repeats)]
    spent = (time.perf_counter() - began) / (2 * len(ALL_KINDS))
    for kind in ALL_KINDS:
        own: dict[str, Any] = {
            "case": str(subject),
            "against": "vanilla step",
            "repeats": repeats,
            "seconds": spent,
        }
        training = [times["vanilla"][kind] / times["vanilla"].total() for times in rounds]
        attack = [
            (times[MANY][kind] - times[FEW][kind]) / (MANY - FEW) / times["vanilla"].total()
            for times in rounds
        ]
        yield Row(what=f"vanilla step: {kind}", value=median(training), **own)
        yield Row(what=f"attack step: {kind}", value=median(attack), **own)


def measure(quick: bool) -> Iterator[Row]:
    for subject in (RESNET18, EFFICIENTNET_B0):
        yield from shares(subject.quick() if quick else subject, 1 if quick else 3)


if __name__ == "__main__":
    show(measure)
