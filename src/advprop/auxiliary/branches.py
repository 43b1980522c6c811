"""Choosing a branch of a model, and readying a model for an attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

from torch import nn

from advprop.auxiliary.route import Branched, Route, check_one_surgery, check_shares
from advprop.auxiliary.running import frozen_statistics, has_shared_statistics, running_statistics


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
    route = route_of(model)
    _check_branch(route, branch)
    if shares is not None:
        shares = tuple(shares)
        check_shares(branch, shares)
    previous = route.active, route.shares
    route.active, route.shares = branch, shares
    try:
        yield
    finally:
        route.active, route.shares = previous


def branch_names(model: nn.Module) -> tuple[str, ...]:
    """The branches of `model`, "clean" first. Raises ValueError where there are none."""
    return route_of(model).branches


def splits_batches(model: nn.Module) -> bool:
    """Whether `use_branch` takes a tuple for this model: parts of a batch, each its own branch."""
    return route_of(model).no_tuple is None


def shares_statistics(model: nn.Module) -> bool:
    """Whether several branches use one layer's running statistics; all modules are asked once."""
    sharing = route_of(model).sharing
    if model not in sharing:
        sharing[model] = has_shared_statistics(model)
    return sharing[model]


def route_of(model: nn.Module) -> Route:
    """The route of the layers of `model`. Raises ValueError where they have none, or several."""
    # stops at the first such layer: in practice a few modules from the root
    for layer in model.modules():
        if isinstance(layer, Branched):
            if model not in layer.route.checked:
                check_one_surgery(model, layer.route)
            return layer.route
    raise ValueError("the model has no auxiliary branches: call add_auxiliary_norms(model) first")


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


@contextmanager
def attack_mode(
    model: nn.Module,
    *,
    statistics: Literal["running", "batch"] = "running",
    update: bool = False,
    layers_only: bool = False,
) -> Iterator[None]:
    """Ready `model` for an attack, and restore every mode and flag on exit and on exception.

    Inside, dropout and stochastic depth are off and all parameters are frozen (their `.grad`
    stays untouched, and a compiled backward skips them). Normalisation takes its "running"
    statistics (as AdvProp does; Mei et al. 2022, section 3.2.2) or those of the "batch", which
    reach the running ones only with `update=True`. With `layers_only` modules that hold others stay
    in training mode: torchvision's detectors give losses in no other.

    Raises ValueError where `update` could have no effect.
    """
    if statistics not in ("running", "batch"):
        raise ValueError(f'statistics={statistics!r}: choose "running" or "batch"')
    if update and statistics == "running":
        raise ValueError('update=True has no effect on running statistics: use statistics="batch"')
    modules = modules_of(model)
    modes = [module.training for module in modules]
    trainable = [
        parameter
        for module in modules
        for parameter in module._parameters.values()
        if parameter is not None and parameter.requires_grad
    ]
    with ExitStack() as stack:
        stack.callback(_restore, modules, modes, trainable)
        _evaluate([m for m in modules if not m._modules] if layers_only else modules)
        for parameter in trainable:
            parameter.requires_grad = False
        if statistics == "batch":
            norms = [module for module in modules if running_statistics(module)]
            _set_modes(norms, [True] * len(norms))
            if not update:
                stack.enter_context(frozen_statistics(model))
        yield


def modules_of(model: nn.Module) -> list[nn.Module]:
    """All modules in `model`, itself first, each once; those near it before those further in.

    A quarter of the time of `Module.modules()`, which asks one generator inside another for each.
    So nothing need be remembered of a model, which may change at any time.
    """
    found, seen = [model], {model}
    for module in found:  # grows meanwhile
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                found.append(child)
    return found


def _evaluate(modules: Sequence[nn.Module]) -> None:
    """As `model.eval()`, which takes many times as long."""
    plain = nn.Module.train
    for module in modules:
        if type(module).train is not plain:
            module.train(False)  # LeViT's forgets here what it keeps of older weights
    _set_modes(modules, [False] * len(modules))


def _set_modes(modules: Sequence[nn.Module], modes: Sequence[bool]) -> None:
    """As `module.training = training` for each, which looks through all that a module has."""
    for module, training in zip(modules, modes, strict=True):
        own = module.__dict__
        if "training" in own:
            own["training"] = training
        else:  # a scripted module keeps it elsewhere
            module.training = training


def _restore(
    modules: Sequence[nn.Module], modes: Sequence[bool], trainable: Sequence[nn.Parameter]
) -> None:
    _set_modes(modules, modes)
    for parameter in trainable:
        parameter.requires_grad = True
