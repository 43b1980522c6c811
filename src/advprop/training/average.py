"""The running average of a model's weights and statistics."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from timm.utils import ModelEmaV3
from torch import nn

_Place: TypeAlias = tuple[dict[str, Any], dict[str, Any], str]


class WeightAverage(ModelEmaV3):
    """timm's average of weights, which remembers where its tensors and the model's are stored.

    timm's own class builds both `state_dict`s and copies counters one by one at each update, which
    takes many times as long. A tensor shared by several modules is averaged once.
    """

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, **options)
        self._children: list[tuple[dict[str, Any], str, nn.Module | None]] = []
        self._places: list[_Place] = []
        self._num_floats = 0

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """Move the average by 1 - `decay` towards `model`; integer tensors are copied."""
        # a replaced tensor is found in the same dictionary, but a replaced module has another one
        if not self._places or any(of.get(name) is not child for of, name, child in self._children):
            self._find_places(model)
        own = [kept[name] for kept, _, name in self._places]
        present = [values[name] for _, values, name in self._places]
        count = self._num_floats
        if count:
            self._foreach_lerp_(own[:count], present[:count], weight=1.0 - decay)
        if own[count:]:
            torch._foreach_copy_(own[count:], present[count:])

    def _find_places(self, model: nn.Module) -> None:
        """Find each tensor's name, and the average's and the model's dictionaries that hold it."""
        found: dict[int, _Place] = {}
        self._children = []
        for kept, present in zip(self.module.modules(), model.modules(), strict=True):
            children = present._modules
            self._children += [(children, name, child) for name, child in children.items()]
            for own, values in zip(_tables(kept), _tables(present), strict=True):
                for name, tensor in own.items():
                    if tensor is not None and name not in kept._non_persistent_buffers_set:
                        found[id(tensor)] = own, values, name
        groups: dict[bool, list[_Place]] = {True: [], False: []}
        for own, values, name in found.values():
            groups[own[name].is_floating_point()].append((own, values, name))
        self._places, self._num_floats = groups[True] + groups[False], len(groups[True])


def _tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return module._parameters, module._buffers
