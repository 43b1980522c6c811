"""AdvProp's step against one written with timm's SplitBatchNorm2d, in one process.

    python benchmarks/split_batchnorm.py [--quick]

timm's layer splits a batch in training mode: the first half goes through the main BatchNorm, the
second through an auxiliary one. In eval mode everything goes through the main one. So the attack of
such a loop, which must run in eval mode to leave the statistics alone, attacks the clean branch:
not what AdvProp is, where the images are to fool the branch that learns from them. The loop below
costs what a right one would; a right one cannot be written with that layer, short of reaching into
every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from measuring import Row, interleaved
from showing import show
from subjects import NUM_CLASSES, RESNET18, Subject, method_of
from timm.layers import convert_splitbn_model
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON, STEP_SIZE, STEPS = 4 / 255, 1 / 255, 5
THEIRS = "SplitBatchNorm2d loop"


def attacked(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """PGD as in most loops of one's own, towards random classes."""
    targets = (labels + torch.randint(1, NUM_CLASSES, labels.shape)) % NUM_CLASSES
    adversarial = images + torch.empty_like(images).uniform_(-EPSILON, EPSILON)
    adversarial = adversarial.clamp(0, 1)
    for _ in range(STEPS):
        adversarial.requires_grad_()
        loss = F.cross_entropy(model(adversarial), targets)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        adversarial = adversarial.detach() - STEP_SIZE * gradient.sign()
        adversarial = images + (adversarial - images).clamp(-EPSILON, EPSILON)
        adversarial = adversarial.clamp(0, 1)
    return adversarial


def split_step(subject: Subject) -> Callable[[], object]:
    model, images = subject.model(), subject.images()
    model = convert_splitbn_model(model, num_splits=2)
    labels = torch.arange(subject.batch_size) % NUM_CLASSES

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model.eval()
        adversarial = attacked(model, images, labels)
        model.train()
        clean, other = model(torch.cat([images, adversarial])).chunk(2)
        (F.cross_entropy(clean, labels) + F.cross_entropy(other, labels)).backward()

    return step


def measure(quick: bool) -> Iterator[Row]:
    subject = RESNET18.quick() if quick else RESNET18
    method: Any = method_of("advprop", STEPS)
    actions = {
        THEIRS: split_step(subject),
        "separate passes": subject.step(replace(method, form="separate")),
        "joint": subject.step(replace(method, form="joint")),
    }
    times = interleaved(actions, repeats=2 if quick else 5)
    yield times.absolute(THEIRS, case=str(subject))
    for form in ("separate passes", "joint"):
        what = f"advprop, K = {STEPS}, {form}"
        yield times.ratio(form, THEIRS, what, case=str(subject))


if __name__ == "__main__":
    show(measure)
