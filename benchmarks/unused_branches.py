"""What branches cost that are added and not used: nothing, or at most 1 %.

    python benchmarks/unused_branches.py [--quick]

A forward pass in eval mode, and a vanilla training step, of a net with branches against the same
net without. What is added is one call of Python for each normalisation layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from measuring import Row, interleaved
from showing import show
from subjects import EFFICIENTNET_B0, RESNET18, Subject
from torch import nn
from torch.nn import functional as F

TARGET = 1.01
PLAIN, BRANCHED = "the plain net", "with branches"


def forward(model: nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        model(images)


def train(model: nn.Module, images: torch.Tensor) -> None:
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.int64)).backward()


def compared(
    subject: Subject, action: Callable[[nn.Module, torch.Tensor], None], repeats: int
) -> Row:
    """The net with branches over the one without."""
    images = subject.images()
    nets = {PLAIN: subject.model(), BRANCHED: subject.model(("adversarial",))}
    for net in nets.values():
        net.train(action is train)
    actions = {name: partial(action, net, images) for name, net in nets.items()}
    times = interleaved(actions, repeats=repeats)
    what = {forward: "forward in eval mode", train: "vanilla step"}[action]
    return times.ratio(BRANCHED, PLAIN, f"{what}, {BRANCHED}", case=str(subject), target=TARGET)


def measure(quick: bool) -> Iterator[Row]:
    for subject in (RESNET18, EFFICIENTNET_B0):
        subject = subject.quick(16) if quick else subject
        yield compared(subject, forward, 5 if quick else 25)
        yield compared(subject, train, 3 if quick else 9)


if __name__ == "__main__":
    show(measure)
