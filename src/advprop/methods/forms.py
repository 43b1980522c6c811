"""One pass over all kinds of images, or one for each."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn
from torch.nn.parallel import DistributedDataParallel

Form: TypeAlias = Literal["auto", "separate", "joint"]
"""A pass for each kind, one over the concatenated batch, or what the model needs."""


def check_form(form: str) -> None:
    """ValueError for a form that there is not."""
    if form not in ("auto", "separate", "joint"):
        raise ValueError(f'form={form!r}: choose "auto", "separate" or "joint"')


def is_joint(form: Form, model: nn.Module) -> bool:
    """Whether `form` is one pass for this model: "auto" is under DistributedDataParallel.

    Raises ValueError for one pass under DataParallel.
    """
    if form == "joint" and isinstance(model, nn.DataParallel):
        raise ValueError(
            'form="joint" under DataParallel, which would scatter clean and adversarial images '
            'over the wrong branches: use form="separate", or DistributedDataParallel'
        )
    distributed = isinstance(model, DistributedDataParallel)
    return form == "joint" or (form == "auto" and distributed)
