"""How long training takes on this machine, by trying it for a second or so."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from advprop.methods.vanilla import Vanilla

_SECONDS = 1.0
_MIN_FLOPS_A_SECOND = 20e9  # of a slow core; a first guess at how many images may be tried
_MOST_SECONDS_AN_IMAGE = 4.0


def this_device() -> torch.device:
    """The accelerator of this machine, else its CPU."""
    if torch.accelerator.is_available():
        return torch.device(str(torch.accelerator.current_accelerator()))
    return torch.device("cpu")


def images_to_try(flops_per_image: float, most: int) -> int:
    """So many images of a step can be tried here in about a second, at most `most`; perhaps 0."""
    rate = _MIN_FLOPS_A_SECOND * (1 if this_device().type == "cpu" else 100)
    if flops_per_image > _MOST_SECONDS_AN_IMAGE * rate:
        return 0
    # statistics of a batch need two images
    return min(most, max(2, int(_SECONDS * rate / max(flops_per_image, 1.0))))


@dataclass(frozen=True, kw_only=True)
class Timed:
    """So many vanilla steps over so many images each, after one that was not counted."""

    device: str
    threads: int
    steps: int
    images: int
    seconds_per_image: float


def time_training(
    model: nn.Module, *, num_images: int, image_shape: tuple[int, int, int], num_classes: int
) -> Timed:
    """Time vanilla steps of `model`, on its device, over `num_images` random images each.

    The gradients that the steps leave are taken away; running statistics change.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(num_images, *image_shape, generator=generator).to(device)
    labels = torch.randint(num_classes, (num_images,), generator=generator).to(device)
    model.train()
    steps, began = -1, 0.0
    while steps < 1 or time.perf_counter() < began + _SECONDS:
        Vanilla().forward_backward(model, images, labels)
        model.zero_grad()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        steps += 1
        if steps == 0:
            began = time.perf_counter()
    seconds = time.perf_counter() - began
    return Timed(
        device="CPU" if device.type == "cpu" else device.type.upper(),
        threads=torch.get_num_threads(),
        steps=steps,
        images=num_images,
        seconds_per_image=seconds / (steps * num_images),
    )
