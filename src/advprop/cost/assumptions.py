"""The device rate and utilisation behind estimated hours: assumptions that users can replace."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line reads these figures without torch
    from torch import nn

A100_TFLOPS = 312.0
"""The data sheet's rate of an A100 for dense bfloat16 matrix products, in 10^12 FLOPs a second."""

UTILISATION = 0.2
"""The share of that rate which training is assumed to reach; about that of ResNet-50."""

DEPTHWISE_UTILISATION = 0.02
"""The share for nets with depthwise convolutions, which memory limits; that of EfficientNet-B0."""

PUBLISHED = (
    "NVIDIA's published A100 runs reach a utilisation of 19 % with ResNet-50, 3 % with "
    "EfficientNet-B4 and 2 % with B0"
)
"""Images a second in NVIDIA's README of each model, times our FLOPs an image, over 312 TFLOP/s."""


def typical_utilisation(model: nn.Module) -> float:
    """Return the utilisation that published runs of nets like `model` reach."""
    grouped = any(getattr(module, "groups", 1) > 1 for module in model.modules())
    return DEPTHWISE_UTILISATION if grouped else UTILISATION
