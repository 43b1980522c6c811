"""The parameters that a single branch uses, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from advprop.auxiliary.branches import branch_names, modules_of
from advprop.auxiliary.route import SHARED, Branched


def branch_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return each parameter of `model` once, under its only branch's name, else "shared"."""
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in (SHARED, *branch_names(model))}
    owners = owned_parameters(model)
    for parameter in model.parameters():
        owner, _ = owners.get(id(parameter), (SHARED, parameter))
        groups[owner].append(parameter)
    return groups


def owned_parameters(model: nn.Module) -> dict[int, tuple[str, nn.Parameter]]:
    """Return the parameters in branches, by id, each with its only branch's name, or "shared".

    They are searched anew each time, since checking that the model is unchanged would take as long.
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
    """Return all modules that branches consist of, each with its branch's name."""
    found: list[tuple[nn.Module, str]] = []
    for module in modules_of(model):
        if isinstance(module, Branched):
            branches: Any = module._modules["branches"]
            for name, branch in branches._modules.items():
                found.append((branch, name))
                if branch._modules:
                    found += [(inner, name) for inner in modules_of(branch)[1:]]
    return found


@contextmanager
def scaled_gradients(
    model: nn.Module, factors: Mapping[str, float], *, reduced: bool = False
) -> Iterator[None]:
    """Multiply the gradients of each branch's own parameters, made inside, by the branch's factor.

    Gradients that were in `.grad` before are kept, and those made inside are added to them.
    Gradients of branches without a factor, or with factor 1, keep their bits. All of a branch are
    multiplied at once on exit. With `reduced` a tensor hook multiplies each, at the cost of a call:
    needed if DistributedDataParallel adds up the gradients of all processes before the exit.
    """
    owned: dict[float, list[nn.Parameter]] = {}
    for branch, parameter in owned_parameters(model).values():
        factor = factors.get(branch, 1)
        if factor != 1 and parameter.requires_grad:
            owned.setdefault(factor, []).append(parameter)
    with ExitStack() as stack:
        for factor, parameters in owned.items():
            if reduced:
                for parameter in parameters:
                    hook = parameter.register_hook(_multiplication(factor))
                    stack.callback(hook.remove)
            else:
                before = [parameter.grad for parameter in parameters]
                stack.callback(_multiply, parameters, before, factor)
                for parameter in parameters:
                    parameter.grad = None
        yield


def _multiplication(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda gradient: factor * gradient


@torch.no_grad()
def _multiply(
    parameters: Sequence[nn.Parameter], before: Sequence[Tensor | None], factor: float
) -> None:
    """Multiply each `.grad` by `factor`, and add it to the gradient `before`."""
    made = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if made:
        torch._foreach_mul_(made, factor)
    sums, summands = [], []
    for parameter, old in zip(parameters, before, strict=True):
        if old is not None:
            if parameter.grad is not None:
                sums.append(old)
                summands.append(parameter.grad)
            parameter.grad = old
    if sums:
        torch._foreach_add_(sums, summands)
