"""How long a step takes on this machine, by trying it for a second or so."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import nn

from advprop.cost.step import facts_of
from advprop.methods.base import Method
from advprop.shapes import Batch

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


def seconds_per_image(
    model: nn.Module,
    method: Method,
    *,
    num_images: int,
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> float:
    """Seconds of one image's share of a step over `num_images` random ones, attack included.

    A first step is not counted. `model`, on its device, is trained by it.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(num_images, *image_shape, generator=generator).to(device)
    labels = torch.randint(num_classes, (num_images,), generator=generator).to(device)
    batch = Batch(images=images, labels=labels, indices=torch.arange(num_images))
    batch = replace(batch, views=dict.fromkeys(method.views, images))
    method.prepare(facts_of(batch))
    model.train()
    steps, began = -1, 0.0
    while steps < 1 or time.perf_counter() < began + _SECONDS:
        method.forward_backward(model, batch)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        steps += 1
        if steps == 0:
            began = time.perf_counter()
    return (time.perf_counter() - began) / (steps * num_images)
