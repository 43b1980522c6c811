"""What a step of each method costs, in vanilla steps of the same net, layout and batch.

    python benchmarks/steps.py [--quick]

Every method that is registered is measured on ResNet-18, with the paper's attack in K = 5 steps.
AdvProp's bound is 2 + 2 K / 3: two training passes, and attack passes without the third of the work
that makes the weights' gradients. The target is 3 % above it; 4.6 for EfficientNet-B0 with K = 5.
For `fast`, whose default attacks a fifth of the images, it is 1.25: an epoch has vanilla's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from measuring import Row, interleaved
from showing import show
from subjects import EFFICIENTNET_B0, RESNET18, Subject, method_of, steps_that_run

from advprop.config.methods import METHODS
from advprop.methods.base import Method

VANILLA = "vanilla"
EFFICIENTNET_TARGET = 4.6


def bound(training_passes: int, attack_passes: int) -> float:
    """Vanilla steps at least, where all work were convolutions."""
    return training_passes + 2 / 3 * attack_passes


TARGETS = {
    f"{name}, K = {steps}": 1.03 * bound(passes, steps)
    for name, passes in (("adversarial", 1), ("mixed", 2), ("advprop", 2), ("advprop joint", 2))
    for steps in (1, 5)
} | {"fast, 1.2 passes": 1.25}
"""By the name of a row; other methods have no bound here."""


def advprop() -> dict[str, Method]:
    """At both lengths of attack, by the rows' names."""
    return {f"advprop, K = {steps}": method_of("advprop", steps) for steps in (1, 5)}


def others() -> dict[str, Method]:
    """AdvProp in its joint form, and everything else that is registered, by the rows' names.

    Those names tell the attack's steps, or else the passes an image that the method counts.
    """
    joint: Any = method_of("advprop")
    found: dict[str, Method] = {"advprop joint, K = 5": replace(joint, form="joint")}
    for name in METHODS:
        method = method_of(name)
        known = f"{name}, K = 5"
        what = known if known in TARGETS else f"{name}, {method.passes_per_image:g} passes"
        if name not in (VANILLA, "advprop"):
            found[what] = method
    return found


def against_vanilla(
    subject: Subject, chosen: dict[str, Method], repeats: int, kind: str = ""
) -> Iterator[Row]:
    """A row for each method."""
    case = f"{subject}{kind}"
    makers: dict[str, Callable[[], Callable[[], object]]] = {
        name: partial(subject.step, method)
        for name, method in {VANILLA: method_of(VANILLA), **chosen}.items()
    }
    skipped: list[Row] = []
    actions = steps_that_run(makers, skipped)
    times = interleaved(actions, repeats=repeats, warm=True)
    yield times.absolute(VANILLA, case=case)
    for name in actions:
        if name != VANILLA:
            yield times.ratio(name, VANILLA, case=case, target=target(subject, name))
    yield from (replace(row, case=case) for row in skipped)


def target(subject: Subject, name: str) -> float | None:
    """What the ratio should not exceed, if the method has a bound."""
    if subject.architecture == EFFICIENTNET_B0.architecture and name == "advprop, K = 5":
        return EFFICIENTNET_TARGET
    return TARGETS.get(name)


def layouts(subject: Subject, repeats: int) -> Row:
    """Why the trainer takes channels_last."""
    names = ("channels_last", "NCHW")
    actions = {name: replace(subject, layout=name).step(method_of(VANILLA)) for name in names}
    times = interleaved(actions, repeats=repeats)
    return times.ratio(*names, f"{VANILLA} in channels_last", case=str(subject))


def measure(quick: bool) -> Iterator[Row]:
    repeats = 2 if quick else 7
    for subject in (RESNET18, EFFICIENTNET_B0):
        subject = subject.quick() if quick else subject
        yield from against_vanilla(subject, advprop(), repeats)
        if subject.architecture == RESNET18.architecture:
            yield from against_vanilla(subject, others(), 1 if quick else 3, ", other methods")
        yield layouts(subject, repeats)


if __name__ == "__main__":
    show(measure)
