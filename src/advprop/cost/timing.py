"""Estimates how long training takes on this machine, from about a second of steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from advprop.config.run import RunConfig
from advprop.cost.planning import VANILLA, DataSizes
from advprop.methods.vanilla import Vanilla
from advprop.models.trial import RUN_ERRORS
from advprop.training.engine import prepare_model

_SECONDS = 1.0
_MIN_FLOPS_A_SECOND = 20e9  # rate of a slow core; bounds the number of images in a trial step
_MOST_SECONDS_AN_IMAGE = 4.0


def this_device() -> torch.device:
    """Return the accelerator of this machine, or its CPU if there is none."""
    if torch.accelerator.is_available():
        return torch.device(str(torch.accelerator.current_accelerator()))
    return torch.device("cpu")


def images_to_try(flops_per_image: float, most: int) -> int:
    """Return how many images, at most `most`, a step of about a second can process here.

    Returns 0 if a single image may take more than four seconds.
    """
    rate = _MIN_FLOPS_A_SECOND * (1 if this_device().type == "cpu" else 100)
    if flops_per_image > _MOST_SECONDS_AN_IMAGE * rate:
        return 0
    # BatchNorm needs at least two images
    return min(most, max(2, int(_SECONDS * rate / max(flops_per_image, 1.0))))


def time_training(
    model: nn.Module, *, num_images: int, image_shape: tuple[int, int, int], num_classes: int
) -> dict[str, Any]:
    """Return the time of vanilla steps of `model`, on its device, over `num_images` random images.

    The result has the device, the numbers of threads, timed steps and images in each, and the
    seconds per image; the first step is not timed. Deletes gradients, changes running statistics.
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
    return {
        "device": device.type.upper(),
        "threads": torch.get_num_threads(),
        "steps": steps,
        "images": num_images,
        "seconds_per_image": seconds / (steps * num_images),
    }


def minutes_here(config: RunConfig, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return `timed_here`, the time of vanilla steps, and `minutes_here`, the minutes by method.

    `plan` is the result of `plan` for `config`. Vanilla's time is multiplied by each method's FLOPs
    relative to vanilla; reading images and validation are not included. Both are None if a step
    would take too long to try or cannot be run.
    """
    sizes, batch = DataSizes(**plan["data"]), plan["images_per_device"]
    count = images_to_try(plan["methods"][VANILLA]["flops"]["per_image"], batch)
    if not count:
        return {"timed_here": None, "minutes_here": None}
    shape, classes = sizes.image_shape, sizes.num_classes
    with torch.random.fork_rng(devices=[]):
        model = config.model.without_weights().build(num_classes=classes, image_shape=shape)
    placed = prepare_model(model, config.training, this_device())
    try:
        timed = time_training(placed, num_images=count, image_shape=shape, num_classes=classes)
    except RUN_ERRORS:
        return {"timed_here": None, "minutes_here": None}
    images = plan["steps"] * plan["batch_size"]
    minutes = {
        name: timed["seconds_per_image"] * images * cost["times_vanilla"] / 60
        for name, cost in plan["methods"].items()
    }
    return {"timed_here": timed, "minutes_here": minutes}
