"""PGD of foolbox and of torchattacks, and ours, on the same net: seconds, in one process.

    python benchmarks/attack_libraries.py [--quick]

ResNet-18 in eval mode, images in [0, 1], five untargeted steps from a random start, epsilon 4/255.
Each is called as its documentation says. foolbox's backward pass makes the gradients of the weights
too, which an attack has no use for.

torchattacks 3.5.1 (October 2023) pins requests to 2.25 of 2020, which it uses for nothing in an
attack, and its wheel has a copy of another project (robustbench) beside it. It is therefore in no
extra: `make bench` installs it without its dependencies, all of which ours has besides.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import torch
from measuring import Row, interleaved
from showing import show
from subjects import NUM_CLASSES, RESNET18
from torch import Tensor, nn

import advprop

EPSILON, STEP_SIZE, STEPS = 4 / 255, 1 / 255, 5
OURS = "advprop's PGD"


def ours(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    attack = advprop.PGD(
        threat_model=advprop.Linf(EPSILON),
        num_steps=STEPS,
        step_size=STEP_SIZE,
        targets=advprop.untargeted,
    )

    def run() -> Tensor:
        with advprop.attack_mode(model):
            return attack(model, images, labels)

    return run


def foolbox(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    library = importlib.import_module("foolbox")
    wrapped = library.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = library.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=True)
    goal = library.criteria.Misclassification(labels)
    # calling the attack itself would look at the result once more
    return lambda: attack.run(wrapped, images, goal, epsilon=EPSILON)


def torchattacks(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    library = importlib.import_module("torchattacks")
    attack = library.PGD(model, eps=EPSILON, alpha=STEP_SIZE, steps=STEPS, random_start=True)
    return lambda: attack(images, labels)


def measure(quick: bool) -> Iterator[Row]:
    subject = RESNET18.quick() if quick else RESNET18
    model, images = subject.model().eval(), subject.images()
    labels = torch.arange(subject.batch_size) % NUM_CLASSES
    actions = {OURS: ours(model, images, labels)}
    for library in (foolbox, torchattacks):
        try:
            actions[library.__name__] = library(model, images, labels)
        except ImportError as error:
            yield Row(what=f"{OURS} against {library.__name__}", note=f"not run: {error}")
    times = interleaved(actions, repeats=2 if quick else 5)
    yield times.absolute(OURS, f"{OURS}, {STEPS} steps", case=str(subject))
    for name in list(actions)[1:]:
        yield times.ratio(OURS, name, case=str(subject))


if __name__ == "__main__":
    show(measure)
