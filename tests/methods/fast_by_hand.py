"""A step of Fast AdvProp as the authors' code computes it, for `tiny_net`.

https://github.com/meijieru/fast_advprop, imagenet.py: losses are summed, each parameter counts the
images that reached it, by their weight, and its gradient is divided by that count at the end.
"""

from __future__ import annotations

from collections import Counter

import torch
from tiny import randomise, tiny_net
from torch import Tensor, nn
from torch.nn import functional as F

NORMS = ("1", "4")


class ByHand:
    """A net for each branch; all but their normalisation layers is shared."""

    def __init__(self, *, adversarial_seed: int | None = None) -> None:
        self.nets = {"clean": tiny_net().train(), "adversarial": tiny_net().train()}
        for name, layer in self.nets["clean"].named_children():
            if name not in NORMS:
                setattr(self.nets["adversarial"], name, layer)
        if adversarial_seed is not None:
            torch.manual_seed(adversarial_seed)
            for name in NORMS:
                randomise(self.nets["adversarial"].get_submodule(name))
        self.counts: Counter[nn.Parameter] = Counter()
        self.losses: dict[str, Tensor] = {}

    def learn(self, kind: str, images: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Add up gradients and counts; returns the gradient with respect to the images."""
        net = self.nets["clean" if kind == "clean" else "adversarial"]
        point = images.clone().requires_grad_()
        loss = F.cross_entropy(net(point), labels, reduction="sum")
        (weight * loss).backward()
        for parameter in net.parameters():
            self.counts[parameter] += weight * len(images)
        self.losses[kind] = loss.detach() / len(images)
        assert point.grad is not None
        return point.grad

    def step(
        self, images: Tensor, labels: Tensor, unit: Tensor, *, epsilon: float, beta: float
    ) -> Tensor:
        """Learn from all three kinds; `unit` are the random start's numbers in [0, 1)."""
        first = len(images) - len(unit)
        self.learn("clean", images[:first], labels[:first], 1.0)
        clean = images[first:]
        low, high = (clean - epsilon).clamp_min(0), (clean + epsilon).clamp_max(1)
        noise = torch.minimum(torch.maximum(clean + epsilon * (2 * unit - 1), low), high)
        gradient = self.learn("noise", noise, labels[first:], 1 - beta)
        moved = noise + epsilon * gradient.sign()
        adversarial = torch.minimum(torch.maximum(moved, low), high)
        self.learn("adversarial", adversarial, labels[first:], beta)
        return adversarial

    def gradients(self, *, every: float | None = None) -> dict[str, Tensor]:
        """By the names of the net with branches, divided by the counts, or all by `every`."""
        found = {}
        for branch, net in self.nets.items():
            for name, parameter in net.named_parameters():
                layer, _, kind = name.partition(".")
                key = f"{layer}.branches.{branch}.{kind}" if layer in NORMS else name
                assert parameter.grad is not None
                found[key] = parameter.grad / (every or self.counts[parameter])
        return found

    def double(self) -> ByHand:
        """The same in float64."""
        for net in self.nets.values():
            net.double()
        return self
