"""Recipes: functions that return a complete configuration, and the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from advprop.config import RunConfig
from advprop.recipes.builtin import digits, mnist5k
from advprop.recipes.images import from_scratch


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe's function with what its user wants to know first."""

    build: Callable[[], RunConfig]
    command: str
    time: str
    result: str


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
}
