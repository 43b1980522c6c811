"""The choice of the branch that a model's layers use, and checks of branches' names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

CLEAN = "clean"
SHARED = "shared"


class Route:
    """The active branch of all layers that got branches in the same call.

    `active` is a branch's name, or one name for each part of a batch. `shares` are the relative
    sizes of the parts of a batch (None: equal). All layers hold the same route, so switching is two
    assignments. It is not thread-local, since CUDA runs the backward pass, and with it
    recomputation, in threads of its own. `no_tuple` is the reason why the model cannot split a
    batch over branches, or None.
    """

    def __init__(self, branches: tuple[str, ...], no_tuple: str | None = None) -> None:
        self.branches = branches
        self.no_tuple = no_tuple
        self.active: str | tuple[str, ...] = CLEAN
        self.shares: tuple[int, ...] | None = None
        self.refused_backward = -1  # the backward pass (graph task) that refuses recomputation
        self.checked: WeakSet[nn.Module] = WeakSet()  # models known to have no other route
        self.sharing: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # shared statistics?

    def __reduce__(self) -> tuple[type[Route], tuple[tuple[str, ...], str | None]]:
        # a copy made inside `use_branch` would never be switched back: it starts at clean
        return Route, (self.branches, self.no_tuple)


class Branched(nn.Module):
    """A module that replaces a part of a model and holds a module for each branch."""

    route: Route
    branches: nn.ModuleDict

    def equals_clean(self, branch: str) -> bool:
        """Return whether `branch` has exactly the clean branch's numbers."""
        clean = self.branches[CLEAN].state_dict()
        own = self.branches[branch].state_dict()
        return all(torch.equal(tensor, clean[name]) for name, tensor in own.items())


def check_branch_chosen(active: str | tuple[str, ...]) -> None:
    """Raise RuntimeError if a module with branches runs inside `no_branch`."""
    if not active:
        raise RuntimeError(
            "activation checkpointing runs layers with branches again in one backward pass over "
            'several branches, and cannot know which it was: use form="separate" or form="joint", '
            "or switch checkpointing off"
        )


def split_batch(
    images: Tensor, names: Sequence[str], shares: Sequence[int] | None = None
) -> tuple[Tensor, ...]:
    """Return consecutive parts of a batch, one for each branch, with sizes in these `shares`.

    Shares are proportions (None: equal), not numbers of images, since dim 0 may also hold windows
    or patches of images. Raises ValueError if the batch cannot be divided so, RuntimeError inside
    `no_branch`.
    """
    check_branch_chosen(tuple(names))
    size = images.shape[0]
    shares = shares or [1] * len(names)
    total = sum(shares)
    if any(size * share % total for share in shares):
        parts = total // math.gcd(*shares)
        raise ValueError(
            f"a batch of {size} cannot be split over {len(names)} branches "
            f"({', '.join(names)}) as {':'.join(map(str, shares))}: concatenate parts of these "
            f"proportions, a multiple of {parts} in all"
        )
    return torch.split(images, [size * share // total for share in shares])


def check_shares(branch: str | tuple[str, ...], shares: tuple[int, ...]) -> None:
    """Raise ValueError unless there is a whole number of at least 1 for each branch."""
    count = 1 if isinstance(branch, str) else len(branch)
    if len(shares) != count or not all(type(share) is int and share > 0 for share in shares):
        raise ValueError(
            f"shares {shares} for branch {branch}: give a whole number of at least 1 for each of "
            f"the {count}, as in shares=(4, 1)"
        )


def has_auxiliary_norms(model: nn.Module) -> bool:
    """Return whether `model` has branches, of normalisation layers or of a class token."""
    return any(isinstance(layer, Branched) for layer in model.modules())


def check_names(auxiliary: Sequence[str]) -> tuple[str, ...]:
    """Return the names of new branches as a tuple; raises ValueError for unusable ones."""
    names = (auxiliary,) if isinstance(auxiliary, str) else tuple(auxiliary)
    if not names:
        raise ValueError('no auxiliary branch named: give at least one, as in ("adversarial",)')
    for name in names:
        if not name.isidentifier():
            raise ValueError(f"branch name {name!r}: letters, digits and underscores, please")
        if name == SHARED or hasattr(nn.ModuleDict(), name):
            raise ValueError(f"branch name {name!r} has a meaning already: choose another")
    if len({CLEAN, *names}) <= len(names):
        raise ValueError(f'branch names {names}: each once, and "clean" is always there')
    return names


def check_known(layer: Branched, branch: str) -> None:
    """Raise ValueError if `layer` has no such branch."""
    if branch not in layer.branches:
        raise ValueError(f'branch "{branch}" unknown, this model has {", ".join(layer.branches)}')


def check_without_branches(model: nn.Module) -> None:
    """Raise ValueError if `model` has branches already, or is in DistributedDataParallel."""
    if isinstance(model, DistributedDataParallel):
        raise ValueError(
            "DistributedDataParallel does not average the gradients of parameters that are added "
            "inside it: add branches first, then wrap the model"
        )
    if has_auxiliary_norms(model):
        raise ValueError(
            "the model has auxiliary branches already: name all of them in one call, "
            "or call remove_auxiliary_norms first"
        )


def check_one_surgery(model: nn.Module, route: Route) -> None:
    """Raise ValueError if a layer of `model` has another route; else remember that none has."""
    for name, layer in model.named_modules():
        if isinstance(layer, Branched) and layer.route is not route:
            raise ValueError(
                f'"{name}" got its branches in another call of add_auxiliary_norms (or is a deep '
                "copy) and would not be switched with the rest: put the model together first, "
                "then call add_auxiliary_norms once"
            )
    route.checked.add(model)
