"""What DataParallel and DistributedDataParallel cannot do for a method that has branches."""

from __future__ import annotations

from typing import NoReturn

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def refuse_scattering() -> NoReturn:
    """Raise ValueError for one pass through branches under DataParallel."""
    raise ValueError(
        'form="joint" under DataParallel, which would scatter clean and adversarial images '
        'over the wrong branches: use form="separate", or DistributedDataParallel'
    )


def refuse_matched_masks() -> NoReturn:
    """Raise ValueError for the same masks in two passes under DataParallel."""
    raise ValueError(
        "matched_masks under DataParallel, whose devices draw masks each for itself: use "
        "DistributedDataParallel, or matched_masks=False"
    )


def refuse_separate(instead: str) -> NoReturn:
    """Raise ValueError for a backward pass for each branch under DistributedDataParallel."""
    raise ValueError(
        'form="separate" on several processes: each backward pass reaches one branch '
        "alone, and DistributedDataParallel waits for the gradients of all; set "
        f"method.form to {instead}, or train in one process"
    )


def keep_statistics(model: nn.Module) -> None:
    """Have DistributedDataParallel broadcast no buffers before its next forward pass.

    It did so before the first one, whose backward pass would fail on their change (torch 2.6 to
    2.10, pytorch/pytorch#175024).
    """
    if isinstance(model, DistributedDataParallel):
        model.require_forward_param_sync = False
