"""The distance between the running statistics of two branches, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from advprop.auxiliary.norm import AuxiliaryNorm
from advprop.auxiliary.route import CLEAN, Branched


@dataclass(frozen=True, kw_only=True)
class BranchDistance:
    """One layer's distance between the clean and another branch, averaged over its channels.

    `mean_distance` is the difference of the running means in clean standard deviations.
    `variance_ratio` is the geometric mean of the larger running variance over the smaller, so 1
    means equal in every channel. `weight_distance` and `bias_distance` are the differences of the
    affine parameters, None if the layer has none.
    """

    layer: str
    mean_distance: float
    variance_ratio: float
    weight_distance: float | None
    bias_distance: float | None


def branch_distances(model: nn.Module, branch: str) -> list[BranchDistance]:
    """Return distances of `branch` from the clean one for each layer that keeps running statistics.

    They are in the order of the model's modules; the list is empty if no layer keeps any.
    """
    found = []
    for name, layer in model.named_modules():
        if isinstance(layer, AuxiliaryNorm):
            clean, other = layer.branches[CLEAN], layer.branches[branch]
            if isinstance(getattr(clean, "running_mean", None), Tensor):
                found.append(_distance(name, clean, other))
    return found


def equals_clean(model: nn.Module, branch: str) -> bool:
    """Return whether `branch` has exactly the clean branch's numbers in every layer."""
    layers = (layer for layer in model.modules() if isinstance(layer, Branched))
    return all(layer.equals_clean(branch) for layer in layers)


def _distance(name: str, clean: Any, other: Any) -> BranchDistance:
    variance = clean.running_var.double() + clean.eps
    shift = (other.running_mean.double() - clean.running_mean.double()).abs() / variance.sqrt()
    ratio = (other.running_var.double() + clean.eps) / variance
    return BranchDistance(
        layer=name,
        mean_distance=shift.mean().item(),
        variance_ratio=ratio.log().abs().mean().exp().item(),
        weight_distance=_mean_difference(clean.weight, other.weight),
        bias_distance=_mean_difference(clean.bias, other.bias),
    )


def _mean_difference(clean: Tensor | None, other: Tensor | None) -> float | None:
    if clean is None or other is None:
        return None
    return (other.detach() - clean.detach()).abs().mean().item()
