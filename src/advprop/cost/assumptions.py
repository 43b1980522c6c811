"""The assumptions behind estimated hours, which users can replace: device rate and utilisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line reads these figures without torch
    from torch import nn

A100_TFLOPS = 312.0
"""The data sheet's rate of an A100 for dense bfloat16 matrix products, in 10^12 FLOPs a second."""

UTILISATION = 0.2
"""The share of that rate that training is assumed to reach, about that of ResNet-50."""

DEPTHWISE_UTILISATION = 0.02
"""The share for networks with depthwise convolutions, which memory limits: EfficientNet-B0's."""

PUBLISHED = (
    "NVIDIA's published A100 runs reach a utilisation of 19 % with ResNet-50, 3 % with "
    "EfficientNet-B4 and 2 % with B0"
)
"""The images per second of NVIDIA's READMEs, times FLOPs per image, divided by 312 TFLOP/s."""


def typical_utilisation(model: nn.Module) -> float:
    """Return the utilisation that published runs of networks like `model` reach."""
    grouped = any(getattr(module, "groups", 1) > 1 for module in model.modules())
    return DEPTHWISE_UTILISATION if grouped else UTILISATION
