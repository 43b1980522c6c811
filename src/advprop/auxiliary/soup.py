"""Plain models between two branches: branch soups (Rebuffi, Croce, Gowal, ICLR 2023)."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from advprop.auxiliary.branches import attack_mode, branch_names, modules_of
from advprop.auxiliary.route import CLEAN
from advprop.auxiliary.running import running_statistics
from advprop.auxiliary.surgery import remove_auxiliary_norms
from advprop.shapes import Images


def mix_branches(
    model: nn.Module, weight: float, *, branch: str | None = None, images: Iterable[Images] = ()
) -> nn.Module:
    """Return a plain copy of `model` with parameters between its clean and another branch.

    Every parameter, class tokens included, is (1 - weight) x that of branch "clean" + weight x that
    of `branch`, by default the first auxiliary one. `weight` is from 0 to 1, so this interpolates
    (Rebuffi, Croce, Gowal, ICLR 2023, arXiv 2210.04886). The model itself stays unchanged.

    Running statistics are not interpolated but estimated, as means over the batches in `images`
    (training images, [N, C, H, W] in [0, 1], on the model's device), each passed once through the
    mixed model without dropout. With `weight` 0 nothing is estimated, and the result is the clean
    branch bit for bit, as `remove_auxiliary_norms` leaves it. With 1 it has the parameters of
    `branch`, but estimated statistics, as with other weights; `remove_auxiliary_norms(keep=...)`
    keeps the branch's own. A model without running statistics needs no `images`.

    Raises ValueError for a weight out of bounds, an unknown branch, a model without branches, or no
    images if statistics have to be estimated.
    """
    check_weight(weight)
    chosen = branch_names(model)[1] if branch is None else branch
    other = remove_auxiliary_norms(copy.deepcopy(model), keep=chosen)
    mixed = remove_auxiliary_norms(copy.deepcopy(model), keep=CLEAN)
    if weight > 0:
        with torch.no_grad():
            for own, theirs in zip(mixed.parameters(), other.parameters(), strict=True):
                own.lerp_(theirs, weight)
        _estimate_statistics(mixed, images)
    return mixed


def check_weight(weight: float) -> None:
    """Raise ValueError for a weight outside [0, 1]."""
    if not 0 <= weight <= 1:
        raise ValueError(
            f"weight={weight}: must be from 0 (the clean branch) to 1 (the auxiliary one)"
        )


@torch.no_grad()
def _estimate_statistics(model: nn.Module, batches: Iterable[Images]) -> None:
    """Set all running statistics to their means over `batches`; raises ValueError without any."""
    layers = [layer for layer in modules_of(model) if running_statistics(layer)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    number = 0
    try:
        with attack_mode(model, statistics="batch", update=True):
            for number, images in enumerate(batches, start=1):
                for layer in layers:
                    layer.momentum = 1 / number  # type: ignore[assignment]  # of any module
                model(images)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    if not number:
        raise ValueError(
            "no images: layers of the model keep running statistics, which a mix needs anew; "
            "give batches of training images, images=[...]"
        )
