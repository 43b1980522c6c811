"""What a step asks of the host beside its passes: milliseconds of one core, and operators.

    python benchmarks/host.py [--quick]

On a GPU the host must give out work faster than it is done, so these times bound the step. Every
weight and image is cut down to one value, and the foreach operators do nothing, so that what is
left is the host's: walks over the model, and calls of operators. `operators` counts the latter, a
foreach one once, whatever the number of its tensors.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from measuring import Row, Times, interleaved
from showing import show
from torch import Tensor, nn

import advprop
from advprop.attacks.objectives import random_other_class
from advprop.auxiliary.gradients import branch_parameters, scaled_gradients
from advprop.methods.kept.encoding import Encoding
from advprop.methods.kept.store import PerturbationStore
from advprop.models.build import build_model
from advprop.randomness import ImageStreams, derive_seed, hashed, uniform
from advprop.training.engine import build_average
from advprop.training.processes import average_statistics
from advprop.training.settings import TrainingSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny import Operations

ARCHITECTURES = ("resnet50", "efficientnet_b0", "efficientnet_b7")
BRANCHES = ("clean", "adversarial")
NUM_IMAGES = 256
IMAGE_SIZE = 224
TARGET = 0.3  # milliseconds, on ResNet-50
NO_TARGET = {"average_statistics", "perturbation reads", "perturbation writes"}
FOREACH = ("_foreach_lerp_", "_foreach_copy_", "_foreach_mul_", "_foreach_add_")


def hollow(architecture: str) -> nn.Module:
    """The net with an auxiliary branch, every tensor of one value."""
    with torch.device("meta"):
        model = advprop.add_auxiliary_norms(build_model(architecture, num_classes=10, in_chans=3))
    for layer in model.modules():
        for tensors in (layer._parameters, layer._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    small = torch.ones(1, dtype=tensor.dtype)
                    kept = isinstance(tensor, nn.Parameter)
                    tensors[name] = nn.Parameter(small) if kept else small
    return model.train()


def attack(model: nn.Module) -> None:
    with advprop.attack_mode(model):
        pass


class OfOnes(torch.autograd.Function):
    """Its backward pass makes a gradient for each parameter, as a layer's does."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.count = len(parameters)
        return torch.ones(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.ones(1) for _ in range(ctx.count))


def backward(owned: list[nn.Parameter], model: nn.Module | None) -> None:
    """Gradients of the branches' own parameters, scaled where a model is given."""
    for parameter in owned:
        parameter.grad = None
    factors = {"clean": 1.25, "adversarial": 5.0}
    with contextlib.nullcontext() if model is None else scaled_gradients(model, factors):
        OfOnes.apply(*owned).backward()


class OnGPU(ImageStreams):
    """Draws as on a GPU, though on the CPU."""

    def draw(self, shape: Sequence[int], purpose: str, **_: Any) -> Tensor:
        seeds = self._seeds ^ derive_seed(purpose)
        return hashed(seeds, math.prod(shape[1:]), normal=False).view(*shape)


def streams() -> ImageStreams:
    return OnGPU.for_batch(0, 0, torch.arange(NUM_IMAGES))


def items(model: nn.Module) -> dict[str, Callable[[], object]]:
    """What surrounds the passes, by the rows' names."""
    average = build_average(model, TrainingSettings(batch_size=2, num_epochs=1, ema_decay=0.99))
    assert average is not None
    owned = [p for branch in BRANCHES for p in branch_parameters(model)[branch]]
    several: Any = SimpleNamespace(num_processes=2)
    return {
        "attack_mode": partial(attack, model),
        "average of weights": lambda: average.update(model, step=1000),
        "(backward)": partial(backward, owned, None),
        "scaled_gradients": partial(backward, owned, model),
        "average_statistics": lambda: average_statistics(several, model),
    }


def draws() -> dict[str, Callable[[], object]]:
    """What is drawn for each image of a batch."""
    labels, logits = torch.zeros(NUM_IMAGES, dtype=torch.int64), torch.zeros(NUM_IMAGES, 2)
    column = torch.zeros(NUM_IMAGES, 1)
    return {
        "random starts": lambda: uniform(column, streams(), purpose="random start"),
        "targets": lambda: random_other_class(labels, logits, streams()),
    }


def keeping() -> dict[str, Callable[[], object]]:
    """What `advprop_lean` reads and writes for a batch, in memory; a GPU has encoded it."""
    shape = (3, IMAGE_SIZE, IMAGE_SIZE)
    store = PerturbationStore(num_images=NUM_IMAGES, shape=shape, epsilon=4 / 255)
    indices, sent = torch.arange(NUM_IMAGES), torch.ones(NUM_IMAGES, *shape, dtype=torch.int8)

    def write() -> None:
        with mock.patch.object(Encoding, "encoded", lambda _, values: values):
            store.write(indices, sent, 1)

    store.write(indices, sent.float(), 0)
    return {"perturbation reads": lambda: store.read(indices, 1), "perturbation writes": write}


def nothing(*_: object, **__: object) -> None:
    """Stands in for an operator; a mock would keep the tensors that it is called with."""


@contextlib.contextmanager
def without_arithmetic() -> Iterator[None]:
    """Foreach operators and exchanges between processes do nothing inside."""
    with contextlib.ExitStack() as stack:
        for name in FOREACH:
            stack.enter_context(mock.patch.object(torch, name, nothing))
        stack.enter_context(mock.patch.object(torch.distributed, "all_reduce", nothing))
        yield


def counted(action: Callable[[], object]) -> int:
    with mock.patch.object(torch.distributed, "all_reduce"), Operations() as found:
        action()
    return len(found.names)


def rows(case: str, actions: dict[str, Callable[[], object]], repeats: int) -> Iterator[Row]:
    with without_arithmetic():
        times = interleaved(actions, repeats=repeats)
    for name, action in actions.items():
        if name.startswith("("):
            continue
        target = None if name in NO_TARGET or "efficientnet" in case else TARGET
        shown = less(times, name, "(backward)") if name == "scaled_gradients" else times
        yield shown.absolute(name, scale=1e3, unit="ms", case=case, target=target)
        count = counted(action) - (
            counted(actions["(backward)"]) if name == "scaled_gradients" else 0
        )
        yield Row(what=f"{name}: operators", case=case, value=float(count), unit="")


def less(times: Times, of: str, without: str) -> Times:
    """The same times of `of`, less those of `without` in the same round."""
    pairs = zip(times.seconds[of], times.seconds[without], strict=True)
    return Times({of: [upper - lower for upper, lower in pairs]}, times.spent)


def measure(quick: bool) -> Iterator[Row]:
    repeats = 10 if quick else 100
    yield from rows(f"{NUM_IMAGES} images", draws(), repeats)
    yield from rows(f"{NUM_IMAGES} images of {IMAGE_SIZE} pixels", keeping(), repeats // 5)
    for architecture in ARCHITECTURES[:1] if quick else ARCHITECTURES:
        yield from rows(architecture, items(hollow(architecture)), repeats)


if __name__ == "__main__":
    show(measure)
