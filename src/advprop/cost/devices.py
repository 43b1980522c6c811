"""Several devices: their share of a batch, what they exchange, how long they take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from advprop.cost.memory import num_bytes
from advprop.training.settings import TrainingSettings


def images_per_device(settings: TrainingSettings, devices: int) -> int:
    """The images that go through the model at once on each of `devices`.

    Raises ValueError where the batch cannot be shared.
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
    """What devices send each other in a step, before it is known how many there are.

    Bytes of all gradients, once a step; of all running statistics, once a step; of the sums that
    synchronised BatchNorm gathers forward and adds up backward, in every part of a batch.
    """

    gradients: int
    running: int
    gathered: int
    summed: int

    def sent(self, devices: int) -> dict[str, int]:
        """Bytes that each of `devices` sends in a step, in rings: "gradients", "statistics".

        Adding up n bytes over N devices takes 2 (N - 1) / N of them, gathering n bytes from each
        takes N - 1 times n.
        """
        ring = 2 * (devices - 1) / devices
        statistics = ring * (self.running + self.summed) + (devices - 1) * self.gathered
        return {"gradients": round(ring * self.gradients), "statistics": round(statistics)}


def exchange(
    model: nn.Module, settings: TrainingSettings, *, synchronised: bool = True
) -> Exchange:
    """What training `model` exchanges: its gradients, and the statistics of every BatchNorm.

    BatchNorm is taken to be `synchronised`, as it is on GPUs with most methods; each branch's
    layers run once a step.
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
        # mean, inverse deviation and a count; then two sums for the gradient
        gathered=number * parts * sum(2 * count + 1 for count in channels),
        summed=number * parts * sum(2 * count for count in channels),
    )


def hours(flops: float, *, devices: int, device_tflops: float, utilisation: float) -> float:
    """Hours for `flops` on `devices` that each reach `utilisation` of `device_tflops`."""
    return flops / (devices * device_tflops * 1e12 * utilisation) / 3600


def check_rates(device_tflops: float, utilisation: float) -> None:
    """Raise ValueError for an assumption that is out of bounds."""
    if not 0 < device_tflops < float("inf"):
        raise ValueError(f"device_tflops {device_tflops}: give a number above 0")
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation {utilisation}: give a share above 0, at most 1")
