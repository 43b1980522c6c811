"""Limits of DataParallel and DistributedDataParallel for methods that have branches."""

from __future__ import annotations

from typing import NoReturn

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def refuse_scattering() -> NoReturn:
    """Raise ValueError: DataParallel cannot run one pass through several branches."""
    raise ValueError(
        'form="joint" under DataParallel, which would scatter clean and adversarial images '
        'over the wrong branches: use form="separate", or DistributedDataParallel'
    )


def refuse_matched_masks() -> NoReturn:
    """Raise ValueError: DataParallel cannot draw the same masks in two passes."""
    raise ValueError(
        "matched_masks under DataParallel, whose devices draw masks each for itself: use "
        "DistributedDataParallel, or matched_masks=False"
    )


def refuse_separate(instead: str) -> NoReturn:
    """Raise ValueError: DistributedDataParallel cannot run a backward pass for each branch."""
    raise ValueError(
        'form="separate" on several processes: each backward pass reaches one branch '
        "alone, and DistributedDataParallel waits for the gradients of all; set "
        f"method.form to {instead}, or train in one process"
    )


def keep_statistics(model: nn.Module) -> None:
    """Keep DistributedDataParallel from broadcasting buffers before its next forward pass.

    It has broadcast them before the step's first pass, whose backward pass would fail if they
    changed (torch 2.6 to 2.10, pytorch/pytorch#175024).
    """
    if isinstance(model, DistributedDataParallel):
        model.require_forward_param_sync = False
