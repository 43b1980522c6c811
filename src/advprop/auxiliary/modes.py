"""The modes of all modules of a model, and the state that it is in while it is attacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

from torch import nn

from advprop.auxiliary.running import frozen_statistics, running_statistics


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
