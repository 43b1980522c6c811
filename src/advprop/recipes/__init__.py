"""The registry of recipes, functions that return a complete configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from advprop.config import RunConfig
from advprop.cost.assumptions import A100_TFLOPS, DEPTHWISE_UTILISATION, UTILISATION
from advprop.recipes.builtin import digits, mnist5k
from advprop.recipes.imagenet import (
    EFFICIENTNETS,
    RESNET50_HOURS,
    imagenet_efficientnet,
    imagenet_resnet50,
)
from advprop.recipes.images import finetune, from_scratch


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe's function, the command that runs it, and what to expect.

    `time` states the cost and its assumptions, `result` the expected accuracy and its source.
    """

    build: Callable[[], RunConfig]
    command: str
    time: str
    result: str


def _hours(hours: tuple[int, int], utilisation: float) -> str:
    """Return a text on the device-hours of (vanilla, AdvProp), as `advprop plan` gives them."""
    return (
        f"{hours[1]:,} device-hours (vanilla {hours[0]:,}) by advprop plan, which "
        f"assumes {A100_TFLOPS:g} TFLOP/s a device, of which {utilisation:g} is used"
    )


def _measured(*, seconds: int, hours: float) -> str:
    """Return a text on times for 1,000 images: `seconds` an epoch and `hours` in all."""
    return (
        f"on one CPU thread about {seconds} s an epoch of 1,000 images, {hours:g} h in all "
        "(benchmarks/recipe_seconds.py); the time grows with images x epochs x passes x FLOPs of "
        "a pass, which advprop plan counts"
    )


def _efficientnet(size: int) -> Recipe:
    name = f"imagenet_efficientnet_b{size}"
    row = EFFICIENTNETS[size]
    epsilon, steps = row.attack
    advprop, alone = row.published
    vanilla = f", vanilla {alone} %" if alone else ""
    return Recipe(
        build=partial(imagenet_efficientnet, size),
        command=f"torchrun --nproc_per_node 8 -m advprop train {name} --set data.root=IMAGENET",
        time=f"{steps + 2} passes an image for 350 epochs at {row.image_size} pixels; "
        f"{_hours(row.device_hours, DEPTHWISE_UTILISATION)}",
        result=f"not trained by this project; published: {advprop} % top-1{vanilla}, with "
        "AutoAugment (README of Google's TPU EfficientNet); it is unconfirmed that an attack of "
        f"{epsilon}/255 and {steps} step{'s' * (steps > 1)} suits this size",
    )


RECIPES = {
    "mnist5k": Recipe(
        build=mnist5k,
        command="advprop train mnist5k",
        time="12 s on one CPU core",
        result="about 96 % test accuracy from 500 real MNIST images",
    ),
    "digits": Recipe(
        build=digits,
        command="advprop train digits",
        time="10 s on one CPU core",
        result="about 97 % test accuracy on scikit-learn's 8x8 digits",
    ),
    "from_scratch": Recipe(
        build=from_scratch,
        command="advprop train from_scratch --set data.root=DIR",
        time="3 passes an image for 60 epochs of ResNet-18 at 128 pixels; "
        + _measured(seconds=170, hours=2.8),
        result="depends on the images; measured: 51 % of 14 kinds of emoji in validation (chance "
        "12 %) with 3,666 images at 32 pixels, but a smaller net, vanilla, 20 epochs, one seed "
        "(experiments/README.md); AdvProp's gain has not been measured with this recipe",
    ),
    "finetune": Recipe(
        build=finetune,
        command="advprop train finetune --set data.root=DIR",
        time="3 passes an image for 15 epochs of EfficientNet-B0 at 224 pixels; "
        + _measured(seconds=360, hours=1.5),
        result="depends on the images, from ImageNet weights, which timm downloads; measured: 91 % "
        "of 2,000 digits from 500, with EfficientNet-Lite0 for 3 epochs and 3 seeds, where vanilla "
        "at equal cost had 96 %, a difference that is not significant (examples/README.md)",
    ),
    "imagenet_resnet50": Recipe(
        build=imagenet_resnet50,
        command="torchrun --nproc_per_node 8 -m advprop train imagenet_resnet50 "
        "--set data.root=IMAGENET",
        time="3 passes an image for 105 epochs at 224 pixels; "
        + _hours(RESNET50_HOURS, UTILISATION),
        result="not trained by this project; published: 77.42 % top-1, vanilla 76.67 % (README of "
        "pytorch-classification-advprop, with this attack of 1/255 and 1 step); it is unconfirmed "
        "that it suits this size best",
    ),
    **{f"imagenet_efficientnet_b{size}": _efficientnet(size) for size in EFFICIENTNETS},
}
