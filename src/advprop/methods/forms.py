"""One pass over all kinds of images, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
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


def check_one_backward(form: str, auxiliary: Sequence[str], *, instead: str) -> None:
    """ValueError where `form` has a backward pass for each branch, on several processes."""
    if form == "separate" and auxiliary:
        raise ValueError(
            'form="separate" on several processes: each backward pass reaches one branch alone, '
            "and DistributedDataParallel waits for the gradients of all; set method.form to "
            f"{instead}, or train in one process"
        )


def form_for(
    model: nn.Module,
    form: TwoPassForm,
    *,
    distributed: TwoPassForm | None = None,
    prefers_joint: bool = False,
) -> TwoPassForm:
    """The form that `form` is for this model: "auto" is `distributed` for a distributed one.

    None is "joint", or "summed" where a batch cannot be split over branches. On one process "auto"
    is "separate", but "joint" where branches share running statistics: each kind of images by
    itself would be normalised by its own batch, and tested with statistics of all. `prefers_joint`
    makes it "joint" wherever a batch can be split: for batches in which no image comes twice, which
    cost a pass for each kind more. Raises ValueError for one pass under DataParallel.
    """
    if form == "joint" and isinstance(model, nn.DataParallel):
        raise ValueError(
            'form="joint" under DataParallel, which would scatter clean and adversarial images '
            'over the wrong branches: use form="separate", or DistributedDataParallel'
        )
    if form != "auto":
        return form
    if isinstance(model, nn.DataParallel):
        return "separate"
    module = attacked_module(model)
    several = distributed or ("joint" if splits_batches(module) else "summed")
    if isinstance(model, DistributedDataParallel):
        return several
    is_joint = several == "joint" and (prefers_joint or shares_statistics(module))
    return "joint" if is_joint else "separate"
