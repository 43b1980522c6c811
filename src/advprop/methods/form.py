"""The form of a step over several kinds of images: a pass for each kind, or one over all."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from torch import nn
from torch.nn.parallel import DistributedDataParallel

Form: TypeAlias = Literal["auto", "separate", "joint"]


def check_form(form: str) -> None:
    """Raise ValueError for a form there is not."""
    if form not in get_args(Form):
        raise ValueError(f'form={form!r}: choose "auto", "separate" or "joint"')


def runs_jointly(form: Form, model: nn.Module) -> bool:
    """Whether one pass goes over all kinds; "auto" does so where `model` is distributed.

    Raises ValueError for the joint form under DataParallel.
    """
    if form == "joint" and isinstance(model, nn.DataParallel):
        raise ValueError(
            'form="joint" under DataParallel, which would scatter clean and adversarial images '
            'over the wrong branches: use form="separate", or DistributedDataParallel'
        )
    distributed = isinstance(model, DistributedDataParallel)
    return form == "joint" or (form == "auto" and distributed)
