"""What a training loop of one's own may get wrong, said at once and in words."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from advprop.auxiliary.branches import branch_parameters, has_auxiliary_norms
from advprop.auxiliary.modes import attack_mode
from advprop.shapes import Images


def warn_of_unknown_branches(model: nn.Module) -> None:
    """Warn where gradients of the last step are left in the branches' own parameters alone.

    The optimiser, which has zeroed the others, does not know of these.
    """
    empty = [parameter.grad is None for parameter in model.parameters() if parameter.requires_grad]
    if all(empty) or not any(empty) or not has_auxiliary_norms(model):
        return
    shared, *branches = (
        [parameter.grad is not None for parameter in group if parameter.requires_grad]
        for group in branch_parameters(model).values()
    )
    left = sum(map(sum, branches))
    if left and shared and not any(shared):
        warnings.warn(
            f"gradients of the last step are left in {left} parameters of auxiliary branches, and "
            "nowhere else: an optimiser made before add_auxiliary_norms does not train them; make "
            "it from model.parameters() afterwards",
            stacklevel=3,
        )


def check_logits(model: nn.Module, images: Images, error: Exception) -> None:
    """Raise TypeError where `error` comes from a model that returns something else than logits."""
    with torch.no_grad(), attack_mode(model):
        found = model(images[:1])
    if not isinstance(found, Tensor):
        raise TypeError(
            f"the model returns a {type(found).__name__}, where logits are needed, a tensor of "
            "(batch, classes): wrap it in a module whose forward returns them, as in "
            "self.model(images).logits"
        ) from error
