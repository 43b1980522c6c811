"""The cost of training on several devices: images per device and bytes exchanged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from advprop.cost.memory import num_bytes
from advprop.training.settings import TrainingSettings


def images_per_device(settings: TrainingSettings, devices: int) -> int:
    """Return the number of images in each forward pass on each of `devices`.

    Raises ValueError if the batch cannot be shared equally.
    """
    if devices < 1:
        raise ValueError(f"devices={devices}: must be at least 1")
    parts = devices * settings.gradient_accumulation
    if settings.batch_size % parts:
        accumulated = (
            f" with gradient_accumulation {settings.gradient_accumulation}"
            if settings.gradient_accumulation > 1
            else ""
        )
        reason = "is smaller than" if settings.batch_size < parts else "cannot be divided by"
        raise ValueError(
            f"batch_size={settings.batch_size} {reason} {devices} devices{accumulated}: it counts "
            f"the images of all of them, take a multiple of {parts} (training.batch_size)"
        )
    return settings.batch_size // parts


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Bytes that devices exchange in a step, independent of the number of devices.

    `gradients` and `running` (running statistics) are exchanged once a step; `gathered` (forward)
    and `summed` (backward) belong to synchronised BatchNorm and cover all parts of a batch.
    """

    gradients: int
    running: int
    gathered: int
    summed: int

    def sent(self, devices: int) -> dict[str, int]:
        """Return the bytes that each of `devices` sends in a step: "gradients", "statistics".

        With ring algorithms on N devices, an all-reduce of n bytes sends 2 n (N - 1) / N, and an
        all-gather of n bytes per device sends n (N - 1).
        """
        ring = 2 * (devices - 1) / devices
        statistics = ring * (self.running + self.summed) + (devices - 1) * self.gathered
        return {"gradients": round(ring * self.gradients), "statistics": round(statistics)}


def exchange(
    model: nn.Module, settings: TrainingSettings, *, synchronised: bool = True
) -> Exchange:
    """Return the bytes of gradients and BatchNorm statistics that training `model` exchanges.

    `synchronised` BatchNorm is usual on GPUs. The layers of each branch are assumed to run once in
    a step.
    """
    channels = [
        layer.num_features
        for layer in model.modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]
    running = (b for name, b in model.named_buffers() if ".running_" in name)
    number, parts = torch.float32.itemsize, settings.gradient_accumulation * synchronised
    return Exchange(
        gradients=num_bytes(p for p in model.parameters() if p.requires_grad),
        running=num_bytes(running),
        # forward: mean, inverse standard deviation and a count; backward: two sums
        gathered=number * parts * sum(2 * count + 1 for count in channels),
        summed=number * parts * sum(2 * count for count in channels),
    )


def check_rates(device_tflops: float, utilisation: float) -> None:
    """Raise ValueError if a rate is not positive and finite, or a utilisation not in (0, 1]."""
    if not 0 < device_tflops < float("inf"):
        raise ValueError(f"device_tflops {device_tflops}: give a number above 0")
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation {utilisation}: give a share above 0, at most 1")
