"""Recipes: functions that return a complete configuration, and the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from advprop.config import RunConfig
from advprop.recipes.builtin import digits, mnist5k
from advprop.recipes.imagenet import EFFICIENTNETS, imagenet_efficientnet, imagenet_resnet50
from advprop.recipes.images import finetune, from_scratch


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe's function with what its user wants to know first."""

    build: Callable[[], RunConfig]
    command: str
    time: str
    result: str


def _efficientnet(size: int) -> Recipe:
    name = f"imagenet_efficientnet_b{size}"
    row = EFFICIENTNETS[size]
    passes = row.attack[1] + 2
    return Recipe(
        build=partial(imagenet_efficientnet, size),
        command=f"torchrun --nproc_per_node 8 -m advprop train {name} --set data.root=IMAGENET",
        time=f"{passes} passes an image for 350 epochs at {row.image_size} pixels; "
        f"advprop plan {name} tells hours",
        result=f"published: {row.published} % top-1 (README of Google's TPU EfficientNet); "
        "not trained by this project",
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
        time="depends on the images: three ResNet-18 passes an image, in each of 60 epochs",
        result="a classifier for the folder's classes; what it reaches depends on the images",
    ),
    "finetune": Recipe(
        build=finetune,
        command="advprop train finetune --set data.root=DIR",
        time="depends on the images: three EfficientNet-B0 passes an image, in each of 15 epochs",
        result="a classifier for the folder's classes from ImageNet weights, which timm downloads",
    ),
    "imagenet_resnet50": Recipe(
        build=imagenet_resnet50,
        command="torchrun --nproc_per_node 8 -m advprop train imagenet_resnet50 "
        "--set data.root=IMAGENET",
        time="3 passes an image for 105 epochs; advprop plan imagenet_resnet50 tells hours",
        result="published: 76.67 % vanilla, 77.42 % AdvProp (README of "
        "pytorch-classification-advprop); not trained by this project",
    ),
    **{f"imagenet_efficientnet_b{size}": _efficientnet(size) for size in EFFICIENTNETS},
}
