"""The choice of a model's branch, and the mode for attacks on a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from advprop.auxiliary.route import Branched, Route, check_one_surgery, check_shares
from advprop.auxiliary.running import has_shared_statistics


@contextmanager
def use_branch(
    model: nn.Module, branch: str | tuple[str, ...], *, shares: Sequence[int] | None = None
) -> Iterator[None]:
    """Run `model` through one branch inside; restore the previous one on exit and on exception.

    A tuple sends consecutive parts of each batch through the named branches: equal parts, or parts
    in proportion to `shares`, such as (4, 1). It works in train and eval mode. With activation
    checkpointing the backward pass belongs inside too, since it runs the layers again. Switching is
    two assignments, whatever the size of the model.

    Raises ValueError for an unknown branch, a model without branches, shares that are not one whole
    number for each branch, or a tuple if the model does not keep the images of a batch apart.
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
    """Return the branches of `model`, "clean" first; raises ValueError if there are none."""
    return route_of(model).branches


def splits_batches(model: nn.Module) -> bool:
    """Return whether a batch can be split over branches, so that `use_branch` takes a tuple."""
    return route_of(model).no_tuple is None


def shares_statistics(model: nn.Module) -> bool:
    """Return whether branches share running statistics; searches each model only once."""
    sharing = route_of(model).sharing
    if model not in sharing:
        sharing[model] = has_shared_statistics(model)
    return sharing[model]


def route_of(model: nn.Module) -> Route:
    """Return the route of the layers of `model`; raises ValueError for none, or several."""
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
def attack_mode(model: nn.Module, *, layers_only: bool = False) -> Iterator[None]:
    """Prepare `model` for an attack inside; restore every mode and flag on exit and on exception.

    Inside, dropout and stochastic depth are off and all parameters are frozen (their `.grad` stays
    untouched, and a compiled backward pass skips them). Normalisation uses its running statistics
    (as in AdvProp; Mei et al. 2022, section 3.2.2). With `layers_only`, modules that hold others
    stay in training mode, without which torchvision's detectors give no losses.
    """
    modules = modules_of(model)
    modes = [module.training for module in modules]
    trainable = [
        parameter
        for module in modules
        for parameter in module._parameters.values()
        if parameter is not None and parameter.requires_grad
    ]
    try:
        _evaluate([m for m in modules if not m._modules] if layers_only else modules)
        for parameter in trainable:
            parameter.requires_grad = False
        yield
    finally:
        _set_modes(modules, modes)
        for parameter in trainable:
            parameter.requires_grad = True


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return all modules in `model`, itself first, each once, outer ones before inner ones.

    It takes a quarter of the time of `Module.modules()`, whose generators are nested. So no list of
    modules needs to be kept, and the model may change at any time.
    """
    found, seen = [model], {model}
    for module in found:  # grows meanwhile
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                found.append(child)
    return found


def _evaluate(modules: Sequence[nn.Module]) -> None:
    """Set eval mode as `model.eval()` does, which takes many times as long."""
    plain = nn.Module.train
    for module in modules:
        if type(module).train is not plain:
            module.train(False)  # LeViT's drops here what it cached of older weights
    _set_modes(modules, [False] * len(modules))


def _set_modes(modules: Sequence[nn.Module], modes: Sequence[bool]) -> None:
    """Set `module.training` of each module, past `Module.__setattr__`, which takes long."""
    for module, training in zip(modules, modes, strict=True):
        own = module.__dict__
        if "training" in own:
            own["training"] = training
        else:  # a scripted module stores it elsewhere
            module.training = training
