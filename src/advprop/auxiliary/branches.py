"""Choosing a branch, and telling whose parameters are whose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from advprop.auxiliary.modes import modules_of
from advprop.auxiliary.route import CLEAN, Branched, Route
from advprop.auxiliary.running import running_statistics

SHARED = "shared"


@contextmanager
def use_branch(
    model: nn.Module, branch: str | tuple[str, ...], *, shares: Sequence[int] | None = None
) -> Iterator[None]:
    """Run `model` through one branch inside; the previous one is back on exit and on exception.

    A tuple sends consecutive parts of each batch through the branches named: equal parts, or parts
    in proportion to `shares`, as in (4, 1). Independent of train and eval mode. With activation
    checkpointing the backward pass belongs inside too, since it runs the layers again. Two
    assignments, whatever the size of the model.

    Raises ValueError for an unknown branch, a model without branches, shares that are not one whole
    number for each branch, or a tuple where the model does not keep the images of a batch apart.
    """
    route = _route(model)
    _check_branch(route, branch)
    if shares is not None:
        shares = tuple(shares)
        _check_shares(branch, shares)
    previous = route.active, route.shares
    route.active, route.shares = branch, shares
    try:
        yield
    finally:
        route.active, route.shares = previous


@contextmanager
def no_branch(model: nn.Module) -> Iterator[None]:
    """Makes layers with branches raise RuntimeError inside.

    For a backward pass over forwards through several branches: activation checkpointing would run
    layers again, and through a wrong branch.
    """
    route = _route(model)
    previous, route.active = route.active, ()
    try:
        yield
    finally:
        route.active = previous


def refuse_recomputation(model: nn.Module, loss: Tensor) -> None:
    """Makes layers with branches raise RuntimeError if the backward pass of `loss` runs them again.

    It runs outside `use_branch`, where activation checkpointing would take a wrong branch.
    """
    route = _route(model)

    def begin(_: Tensor) -> None:
        route.refused_backward = torch._C._current_graph_task_id()

    loss.register_hook(begin)


def branch_names(model: nn.Module) -> tuple[str, ...]:
    """The branches of `model`, "clean" first. Raises ValueError where there are none."""
    return _route(model).branches


def has_auxiliary_norms(model: nn.Module) -> bool:
    """Whether `add_auxiliary_norms` or `add_auxiliary_tokens` has given `model` branches."""
    return any(isinstance(layer, Branched) for layer in model.modules())


def splits_batches(model: nn.Module) -> bool:
    """Whether `use_branch` takes a tuple for this model: parts of a batch, each its own branch."""
    return _route(model).no_tuple is None


def shares_statistics(model: nn.Module) -> bool:
    """Whether several branches use one layer's running statistics; all modules are asked once."""
    sharing = _route(model).sharing
    if model not in sharing:
        sharing[model] = _shares_statistics(model)
    return sharing[model]


def branch_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """All parameters of `model`, once each: "shared", and those that each branch alone owns."""
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in (SHARED, *branch_names(model))}
    owners = owned_parameters(model)
    for parameter in model.parameters():
        owner, _ = owners.get(id(parameter), (SHARED, parameter))
        groups[owner].append(parameter)
    return groups


def owned_parameters(model: nn.Module) -> dict[int, tuple[str, nn.Parameter]]:
    """The parameters in branches, by id, each with the branch that alone uses it, or "shared".

    Found anew each time: to tell that a model has not changed would take as long.
    """
    owners: dict[int, tuple[str, nn.Parameter]] = {}
    for module, branch in _modules_in_branches(model):
        for parameter in module._parameters.values():
            if parameter is not None:
                known, _ = owners.setdefault(id(parameter), (branch, parameter))
                if known != branch:
                    owners[id(parameter)] = (SHARED, parameter)
    return owners


def _modules_in_branches(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """All modules that a branch consists of, with its name."""
    found: list[tuple[nn.Module, str]] = []
    for module in modules_of(model):
        if isinstance(module, Branched):
            branches: Any = module._modules["branches"]
            for name, branch in branches._modules.items():
                found.append((branch, name))
                if branch._modules:
                    found += [(inner, name) for inner in modules_of(branch)[1:]]
    return found


def check_names(auxiliary: Sequence[str]) -> tuple[str, ...]:
    """The names of new branches; raises ValueError for unusable ones."""
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
    """Raise ValueError for a branch that `layer` has not."""
    if branch not in layer.branches:
        raise ValueError(f'branch "{branch}" unknown, this model has {", ".join(layer.branches)}')


def check_without_branches(model: nn.Module) -> None:
    """Raise ValueError where a model has branches already."""
    if has_auxiliary_norms(model):
        raise ValueError(
            "the model has auxiliary branches already: name all of them in one call, "
            "or call remove_auxiliary_norms first"
        )


def _route(model: nn.Module) -> Route:
    # stops at the first such layer: in practice a few modules from the root
    for layer in model.modules():
        if isinstance(layer, Branched):
            if model not in layer.route.checked:
                _check_one_surgery(model, layer.route)
            return layer.route
    raise ValueError("the model has no auxiliary branches: call add_auxiliary_norms(model) first")


def _check_one_surgery(model: nn.Module, route: Route) -> None:
    for name, layer in model.named_modules():
        if isinstance(layer, Branched) and layer.route is not route:
            raise ValueError(
                f'"{name}" got its branches in another call of add_auxiliary_norms (or is a deep '
                "copy) and would not be switched with the rest: put the model together first, "
                "then call add_auxiliary_norms once"
            )
    route.checked.add(model)


def _shares_statistics(model: nn.Module) -> bool:
    users: dict[Tensor, set[str]] = {}
    for layer in model.modules():
        if isinstance(layer, Branched):
            for name, branch in layer.branches.items():
                for statistic in _statistics(branch):
                    users.setdefault(statistic, set()).add(name)
    return any(len(users.get(statistic, ())) != 1 for statistic in _statistics(model))


def _statistics(module: nn.Module) -> Iterator[Tensor]:
    for layer in module.modules():
        yield from running_statistics(layer).values()


def _check_branch(route: Route, branch: str | tuple[str, ...]) -> None:
    names = (branch,) if isinstance(branch, str) else branch
    if not names:
        raise ValueError(f"no branch named: choose from {', '.join(route.branches)}")
    for name in names:
        if name not in route.branches:
            known = ", ".join(route.branches)
            raise ValueError(f'branch "{name}" unknown, this model has {known}')
    if route.no_tuple is not None and not isinstance(branch, str):
        raise ValueError(f"{route.no_tuple}: use one branch at a time, not {branch}")


def _check_shares(branch: str | tuple[str, ...], shares: tuple[int, ...]) -> None:
    count = 1 if isinstance(branch, str) else len(branch)
    if len(shares) != count or not all(type(share) is int and share > 0 for share in shares):
        raise ValueError(
            f"shares {shares} for branch {branch}: give a whole number of at least 1 for each of "
            f"the {count}, as in shares=(4, 1)"
        )
