"""One pass over all kinds of images, or one for each."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from advprop.auxiliary.branches import shares_statistics, splits_batches
from advprop.methods.base import attacked_module

Form: TypeAlias = Literal["auto", "separate", "joint"]
"""A pass for each kind, one over the concatenated batch, or what the model needs."""

TwoPassForm: TypeAlias = Literal["auto", "separate", "joint", "summed"]
"""The same, or a forward pass for each kind and one backward pass over both."""


def check_form(form: str, forms: object = Form) -> None:
    """ValueError for a form that is none of `forms`."""
    known = get_args(forms)
    if form not in known:
        *others, last = (f'"{name}"' for name in known)
        raise ValueError(f"form={form!r}: choose {', '.join(others)} or {last}")


def form_for(
    model: nn.Module, form: TwoPassForm, *, distributed: TwoPassForm = "joint"
) -> TwoPassForm:
    """The form that `form` is for this model: "auto" is `distributed` for a distributed one.

    On one process "auto" is "separate", but "joint" where branches share running statistics: each
    kind of images by itself would be normalised by its own batch, and tested with statistics of
    all. Raises ValueError for one pass under DataParallel.
    """
    if form == "joint" and isinstance(model, nn.DataParallel):
        raise ValueError(
            'form="joint" under DataParallel, which would scatter clean and adversarial images '
            'over the wrong branches: use form="separate", or DistributedDataParallel'
        )
    if form != "auto":
        return form
    if isinstance(model, DistributedDataParallel):
        return distributed
    return "joint" if distributed == "joint" and _needs_joint(model) else "separate"


def is_joint(form: Form, model: nn.Module, *, prefers_joint: bool = False) -> bool:
    """Whether `form` is one pass for this model. Raises ValueError as `form_for`.

    `prefers_joint` has "auto" be one pass wherever `model` can send parts of a batch through their
    own branches: for batches in which no image comes twice, which cost a pass for each kind more.
    """
    if form == "auto" and prefers_joint and not isinstance(model, nn.DataParallel):
        return splits_batches(attacked_module(model))
    return form_for(model, form) == "joint"


def _needs_joint(model: nn.Module) -> bool:
    if isinstance(model, nn.DataParallel):
        return False
    return splits_batches(model) and shares_statistics(model)
