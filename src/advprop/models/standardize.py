"""Standardisation as the first layer of a model, so that images are in [0, 1] everywhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from advprop.shapes import Images, Logits


class Standardized(nn.Module):
    """`model` behind `(images - mean) / std`; takes images in [0, 1] of shape [batch, C, H, W].

    `mean` and `std` are buffers of shape [C, 1, 1] and part of the state dict; `.model` is the
    model behind them. Create instances by `standardized`. Raises ValueError for a mean or std that
    is not finite, above 1 in size, or not one number for each channel, and a std of 0 or less.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        _check_channels(mean, std)
        self.model = model
        # the buffers have the device and precision of the weights
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        for name, values in (("mean", mean), ("std", std)):
            buffer = torch.tensor(list(values), device=like.device, dtype=like.dtype)
            self.register_buffer(name, buffer.reshape(-1, 1, 1))

    def forward(self, images: Images) -> Logits:
        """Return logits of images in [0, 1], bit-equal to those after timm's standardisation.

        Raises ValueError for another number of channels, and TypeError for images in bytes.
        """
        if images.shape[-3] != self.mean.shape[0]:
            # broadcasting would silently turn one channel into three
            raise ValueError(
                f"images have {images.shape[-3]} channels (shape {tuple(images.shape)}), the model "
                f"takes {self.mean.shape[0]}: convert them, or build it with another in_chans"
            )
        if not images.is_floating_point():
            raise TypeError(
                f"images are {images.dtype}, floating point in [0, 1] is needed: "
                "for bytes, images.float() / 255"
            )
        logits: Logits = self.model((images - self.mean) / self.std)
        return logits

    def extra_repr(self) -> str:
        """Return mean and std as text for `print(model)`."""
        mean, std = (
            tuple(round(v, 4) for v in b.flatten().tolist()) for b in (self.mean, self.std)
        )
        return f"mean={mean}, std={std}"


def standardized(
    model: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Standardized:
    """Return `model` behind `(images - mean) / std`, which takes images in [0, 1].

    `mean` and `std` (one number a channel) default to those of timm's `model.pretrained_cfg`; if
    the model has another number of channels, each channel gets their average. Raises ValueError if
    the model is already standardised, statistics are given in part or out of bounds, or neither
    they nor a `pretrained_cfg` exist.
    """
    if any(isinstance(module, Standardized) for module in model.modules()):
        raise ValueError(
            "the model is standardised already, twice would feed it wrong images: pass the plain "
            "model (`.model` of the standardised one)"
        )
    if (mean is None) != (std is None):
        given, missing = ("mean", "std") if std is None else ("std", "mean")
        raise ValueError(f"{given} is given without {missing}: give both or neither")
    if mean is None or std is None:
        mean, std = _timm_statistics(model)
    return Standardized(model, mean=mean, std=std)


def _timm_statistics(model: nn.Module) -> tuple[list[float], list[float]]:
    settings: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    if "mean" not in settings or "std" not in settings:
        raise ValueError(
            f"{type(model).__name__} has no `pretrained_cfg` to take mean and std from: pass them, "
            "for instance standardized(model, mean=[0.5], std=[0.5]) for grey images, or from the "
            "command line --set model.mean=0.5 --set model.std=0.25"
        )
    # a model may be built for other channels than its weights were
    num_channels = int(cast("int", getattr(model, "in_chans", len(settings["mean"]))))
    return for_channels(settings["mean"], num_channels), for_channels(settings["std"], num_channels)


def for_channels(values: Sequence[float], num_channels: int) -> list[float]:
    """Return `values` if there is one for each channel, else their mean for each channel."""
    if len(values) == num_channels:
        return [float(value) for value in values]
    return [math.fsum(values) / len(values)] * num_channels


def _check_channels(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != len(std) or not len(mean):
        raise ValueError(
            f"mean has {len(mean)} numbers and std {len(std)}: one of each for every channel"
        )
    if not all(math.isfinite(value) for value in (*mean, *std)) or min(std) <= 0:
        raise ValueError(
            f"mean={list(mean)}, std={list(std)}: all must be finite and std above 0, as fractions "
            "of the range [0, 1] of the images"
        )
    if max(map(abs, mean)) > 1 or max(std) > 1:
        raise ValueError(
            f"mean={list(mean)}, std={list(std)}: images are in [0, 1], so neither can exceed 1; "
            "divide values measured on bytes by 255"
        )
