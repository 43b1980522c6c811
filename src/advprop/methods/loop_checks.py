"""Checks of a user's own training loop, whose messages name the remedy."""

from __future__ import annotations

import warnings

from torch import nn

from advprop.auxiliary.gradients import branch_parameters
from advprop.auxiliary.route import has_auxiliary_norms
from advprop.shapes import Batch, Images


def check_has_loss(method: str, needs_backward: bool) -> None:
    """Raise ValueError if a method's step uses the gradients of its own backward passes."""
    if needs_backward:
        raise ValueError(
            f"{method} uses the gradients of its own backward passes, so it has no loss to call "
            "backward on: call method.forward_backward, or take a method with an attack, such as "
            "AdvProp"
        )


def refuse_eval_mode() -> None:
    """Raise the ValueError for a model that is in eval mode."""
    raise ValueError(
        "the model is in eval mode, in which neither dropout nor normalisation trains: call "
        "model.train() before; layers that are to keep their statistics may be in eval mode"
    )


def batch_of(model: nn.Module, images: Batch | Images, labels: object) -> Batch:
    """Return a step's arguments as a batch; raises TypeError for missing or unexpected labels."""
    if isinstance(images, Batch):
        if labels is not None:
            raise TypeError("a Batch holds its labels: call (model, batch, context)")
        return images
    if labels is None:
        raise TypeError("labels are missing: call (model, images, labels)")
    warn_of_unknown_branches(model)
    return Batch(images=images, labels=labels)


def warn_of_unknown_branches(model: nn.Module) -> None:
    """Warn if gradients of the last step are left in the branches' own parameters alone.

    The optimiser has zeroed the others' gradients, so it does not contain these parameters.
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
