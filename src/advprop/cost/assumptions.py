"""What hours are reckoned with; both are assumptions, which the user replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line reads these figures without torch
    from torch import nn

A100_TFLOPS = 312.0
"""An A100's dense matrix products in bfloat16, 10^12 FLOPs a second, by its data sheet."""

UTILISATION = 0.2
"""The share of that rate which training is taken to reach, about ResNet-50's."""

DEPTHWISE_UTILISATION = 0.02
"""The same for nets with depthwise convolutions, which wait for memory: EfficientNet-B0's."""

PUBLISHED = (
    "NVIDIA's published A100 runs come to 19 % with ResNet-50, 3 % with EfficientNet-B4, "
    "2 % with B0"
)
"""From its README of each model: images a second times our FLOPs an image, over 312 TFLOP/s."""


def typical_utilisation(model: nn.Module) -> float:
    """What published runs of nets like `model` reach."""
    grouped = any(getattr(module, "groups", 1) > 1 for module in model.modules())
    return DEPTHWISE_UTILISATION if grouped else UTILISATION
