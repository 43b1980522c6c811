"""The running average of a model's weights and statistics."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from timm.utils import ModelEmaV3
from torch import nn

_Place: TypeAlias = tuple[dict[str, Any], dict[str, Any], str]


class WeightAverage(ModelEmaV3):
    """timm's average, which knows where its tensors and the model's are.

    The average itself asks both for their `state_dict`, and copies counters one by one: many times
    as long. A tensor that several modules have is counted in once.
    """

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, **options)
        self._modules_seen: list[nn.Module] = []
        self._places: list[_Place] = []
        self._num_floats = 0

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """Move the average by 1 - `decay` towards `model`; what is no float is copied."""
        modules = [*model.modules()]
        if modules != self._modules_seen:  # tensors may be replaced, modules may not
            self._find_places(modules)
        own = [kept[name] for kept, _, name in self._places]
        present = [values[name] for _, values, name in self._places]
        count = self._num_floats
        if count:
            self._foreach_lerp_(own[:count], present[:count], weight=1.0 - decay)
        if own[count:]:
            torch._foreach_copy_(own[count:], present[count:])

    def _find_places(self, modules: list[nn.Module]) -> None:
        """The tables that hold a tensor of the average and the model's, and its name."""
        found: dict[int, _Place] = {}
        for kept, present in zip(self.module.modules(), modules, strict=True):
            for own, values in zip(_tables(kept), _tables(present), strict=True):
                for name, tensor in own.items():
                    if tensor is not None and name not in kept._non_persistent_buffers_set:
                        found[id(tensor)] = own, values, name
        groups: dict[bool, list[_Place]] = {True: [], False: []}
        for own, values, name in found.values():
            groups[own[name].is_floating_point()].append((own, values, name))
        self._modules_seen, self._places = modules, groups[True] + groups[False]
        self._num_floats = len(groups[True])


def _tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return module._parameters, module._buffers
