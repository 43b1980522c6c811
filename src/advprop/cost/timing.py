"""How long a training pass takes on this machine, measured over a few steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

_FIRST, _MOST_STEPS = 8, 20
_SECONDS = 2.0  # that the timed steps take together, unless one alone takes longer


@dataclass(frozen=True, kw_only=True)
class Timed:
    """So many steps of so many images each, after one that was not counted."""

    device: str
    threads: int
    steps: int
    images: int
    seconds_per_image: float


def time_training(
    model: nn.Module, *, image_shape: tuple[int, int, int], num_classes: int, batch_size: int
) -> Timed:
    """Time forward and backward passes of `model`, which is moved to the GPU where there is one.

    A whole batch is taken where it fits into the time, else eight images of it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    count = max(2, min(_FIRST, batch_size))  # BatchNorm wants two
    first = _step(model, image_shape, num_classes, count, device)
    if first / count * batch_size < _SECONDS and count < batch_size:
        count = batch_size
        _step(model, image_shape, num_classes, count, device)
    steps, spent = 0, 0.0
    while steps == 0 or (spent < _SECONDS and steps < _MOST_STEPS):
        spent += _step(model, image_shape, num_classes, count, device)
        steps += 1
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return Timed(
        device=name,
        threads=torch.get_num_threads(),
        steps=steps,
        images=count,
        seconds_per_image=spent / steps / count,
    )


def _step(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int,
    count: int,
    device: torch.device,
) -> float:
    images = torch.rand(count, *image_shape, device=device)
    labels = torch.randint(0, num_classes, (count,), device=device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    cross_entropy(model(images), labels).backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - began
