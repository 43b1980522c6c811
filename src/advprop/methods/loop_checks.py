"""What a training loop of one's own may get wrong, said at once and in words."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from advprop.auxiliary.branches import branch_parameters, has_auxiliary_norms
from advprop.auxiliary.modes import attack_mode
from advprop.shapes import Batch, Images


def check_has_loss(method: str, needs_backward: bool) -> None:
    """Raise ValueError for a method whose step cannot leave its backward passes to the caller."""
    if needs_backward:
        raise ValueError(
            f"{method} uses the gradients of its own backward passes, so it has no loss to call "
            "backward on: call method.forward_backward, or take a method with an attack, such as "
            "AdvProp"
        )


def check_training(model: nn.Module) -> None:
    """Raise ValueError for a model that is in eval mode."""
    if not model.training:
        raise ValueError(
            "the model is in eval mode, in which neither dropout nor normalisation trains: call "
            "model.train() before; layers that are to keep their statistics may be in eval mode"
        )


def batch_of(model: nn.Module, images: Batch | Images, labels: object) -> Batch:
    """What a step was given, as a batch; raises TypeError for missing or unexpected labels."""
    if isinstance(images, Batch):
        if isinstance(labels, Tensor):
            raise TypeError("a Batch holds its labels: call (model, batch, context)")
        return images
    if not isinstance(labels, Tensor):
        raise TypeError("labels are missing: call (model, images, labels)")
    warn_of_unknown_branches(model)
    return Batch(images=images, labels=labels)


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
            stacklevel=4,
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
