"""The branch of layers that activation checkpointing runs again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from advprop.auxiliary.branches import route_of
from advprop.auxiliary.route import Route


@contextmanager
def no_branch(model: nn.Module) -> Iterator[None]:
    """Make layers with branches raise RuntimeError inside.

    It is for a backward pass over forward passes through several branches, where activation
    checkpointing would run layers again through a wrong branch.
    """
    route = route_of(model)
    previous, route.active = route.active, ()
    try:
        yield
    finally:
        route.active = previous


def refuse_recomputation(model: nn.Module, loss: Tensor) -> None:
    """Make layers with branches raise RuntimeError if the backward pass of `loss` runs them again.

    It runs outside `use_branch`, where activation checkpointing would take a wrong branch.
    """
    route = route_of(model)

    def begin(_: Tensor) -> None:
        route.refused_backward = torch._C._current_graph_task_id()

    loss.register_hook(begin)


def check_recomputation(route: Route) -> None:
    """Raise RuntimeError if a layer with branches, which is about to run again, must not do so.

    It must not in checkpointing's reentrant form, which cannot give the gradients with respect to
    images that attacks need, nor in a backward pass that `refuse_recomputation` marked.
    """
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        raise RuntimeError(
            "a normalisation layer with branches runs inside a backward pass that is not "
            "non-reentrant checkpointing: use torch.utils.checkpoint(..., use_reentrant=False)"
        )
    if route.refused_backward == torch._C._current_graph_task_id():
        raise RuntimeError(
            "activation checkpointing runs layers with branches again in the backward pass of "
            "method.loss, and cannot know which branch it was: call method.forward_backward, or "
            "switch checkpointing off"
        )
