"""A small adapter for each auxiliary branch, beside layers that all branches share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeGuard

import timm.layers
import torch
from torch import Tensor, nn

from advprop.auxiliary.branches import check_known, check_names, check_without_branches
from advprop.auxiliary.route import CLEAN, Branched, Route, check_branch_chosen, split_batch

_LINEAR_TYPES = (nn.Linear, timm.layers.Linear)
Adaptable = nn.Linear | nn.Conv2d


class AuxiliaryAdapter(Branched):
    """Stands in a layer's place: the layer, which is shared, and what each branch adds to it.

    A branch adds two layers without bias, to `rank` channels and back; the second one begins at
    zero. Branch "clean" adds nothing. Attributes that this class lacks are the layer's; `weight`
    is that of the active branch, for models that use it without calling the layer.
    """

    def __init__(self, layer: Adaptable, route: Route, *, rank: int) -> None:
        super().__init__()
        self.route = route
        self.layer = layer
        self.branches = nn.ModuleDict()
        for name in route.branches:
            self.branches[name] = nn.Identity() if name == CLEAN else _LowRank(layer, rank)
        self.train(layer.training)

    def forward(self, images: Tensor) -> Tensor:
        """The layer's output and what the active branch adds; of several, each to its part."""
        active = self.route.active
        output: Tensor = self.layer(images)
        if active == CLEAN:
            return output
        if isinstance(active, str):
            added: Tensor = self._low_rank(active)(images)
            return output + added
        inputs, outputs = (
            split_batch(tensor, active, self.route.shares) for tensor in (images, output)
        )
        return torch.cat(
            [
                part if name == CLEAN else part + self._low_rank(name)(own)
                for name, own, part in zip(active, inputs, outputs, strict=True)
            ]
        )

    def effective_weight(self, branch: str) -> Tensor:
        """The weight of a single layer that does what the shared one and the branch do."""
        weight: Tensor = self.layer.weight
        return weight if branch == CLEAN else weight + self._low_rank(branch).weight()

    def equals_clean(self, branch: str) -> bool:
        """Whether the branch adds nothing."""
        return branch == CLEAN or not bool(self._low_rank(branch).up.weight.any())

    def plain(self, keep: str) -> nn.Module:
        """The shared layer, with what branch `keep` adds in its weight."""
        check_known(self, keep)
        if keep != CLEAN:
            with torch.no_grad():
                self.layer.weight.copy_(self.effective_weight(keep))
        return self.layer

    def _low_rank(self, branch: str) -> _LowRank:
        found = self.branches[branch]
        assert isinstance(found, _LowRank)
        return found

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules", {})
        if name == "weight" and "branches" in modules:
            active = self.route.active
            check_branch_chosen(active)
            if not isinstance(active, str):
                raise ValueError(
                    "the weight of a layer with adapters was read from outside, but the batch is "
                    f"split over {len(active)} branches ({', '.join(active)}), each with its own: "
                    "use one branch at a time"
                )
            return self.effective_weight(active)
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "layer" not in modules or name.startswith("__"):
                raise
            return getattr(modules["layer"], name)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Give a plain checkpoint's tensors to the layer; branches add nothing to it then."""
        plain = [f"{prefix}{name}" for name in self.layer.state_dict()]
        if any(key in state_dict for key in plain):
            for key in plain:
                if key in state_dict:
                    state_dict[f"{prefix}layer.{key.removeprefix(prefix)}"] = state_dict.pop(key)
            for name, tensor in self.branches.state_dict().items():
                fresh = tensor.detach().clone()
                is_up = name.endswith(".up.weight")
                state_dict[f"{prefix}branches.{name}"] = fresh.zero_() if is_up else fresh
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def add_auxiliary_adapters(
    model: nn.Module,
    auxiliary: Sequence[str] = ("adversarial",),
    *,
    rank: int = 4,
    is_adapted: Callable[[nn.Module], bool] | None = None,
) -> nn.Module:
    """Give each name in `auxiliary` a small adapter at every linear layer, and nothing else.

    Linear layers are `nn.Linear` and convolutions of one pixel, classifiers left out, or those that
    `is_adapted` takes. An adapter is two layers of `rank` channels between (as LoRA's, Hu et al.,
    ICLR 2022); all else is shared, normalisation and its statistics too: with BatchNorm the methods
    run all kinds of images in one pass (`form="auto"` or "joint"). Branches are chosen, exported
    and taken away as those of normalisation layers are (`use_branch`, `remove_auxiliary_norms`).
    Changes the model in place and returns it. Build the optimiser after this call.

    Raises ValueError for unusable names or ranks, a model that has branches already, or one without
    linear layers.
    """
    names = check_names(auxiliary)
    check_without_branches(model)
    if rank < 1:
        raise ValueError(f"rank {rank}: give at least 1")
    classifiers = set(_classifiers(model))
    route = Route((CLEAN, *names))
    found = [
        (owner, name, child)
        for owner in model.modules()
        for name, child in owner.named_children()
        if _is_linear(child)
        and (is_adapted(child) if is_adapted is not None else child not in classifiers)
    ]
    if not found:
        raise ValueError(
            "found no linear layer to adapt, nn.Linear or a convolution of one pixel: give "
            "normalisation layers branches instead, add_auxiliary_norms(model)"
        )
    adapters: dict[nn.Module, AuxiliaryAdapter] = {}
    for owner, name, layer in found:
        if layer not in adapters:  # a layer in several places keeps being one layer
            adapters[layer] = AuxiliaryAdapter(layer, route, rank=rank)
        owner._modules[name] = adapters[layer]
    return model


def _is_linear(layer: nn.Module) -> TypeGuard[Adaptable]:
    if type(layer) is nn.Conv2d:
        sizes = {*layer.kernel_size, layer.groups}
        return sizes == {1} and layer.padding in ((0, 0), "valid", "same")
    return type(layer) in _LINEAR_TYPES


def _classifiers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers that timm's models say they end with."""
    for module in model.modules():
        if callable(get_classifier := getattr(module, "get_classifier", None)):
            found = get_classifier()
            yield from found if isinstance(found, tuple) else (found,)


class _LowRank(nn.Module):
    """Two layers without bias, as the one beside them, with `rank` channels between."""

    def __init__(self, layer: Adaptable, rank: int) -> None:
        super().__init__()
        own: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        self.down: Adaptable
        self.up: Adaptable
        if isinstance(layer, nn.Conv2d):
            stride = (layer.stride[0], layer.stride[1])
            self.down = nn.Conv2d(layer.in_channels, rank, 1, stride=stride, bias=False, **own)
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False, **own)
        else:
            self.down = nn.Linear(layer.in_features, rank, bias=False, **own)
            self.up = nn.Linear(rank, layer.out_features, bias=False, **own)
        nn.init.zeros_(self.up.weight)
        self.requires_grad_(layer.weight.requires_grad)

    def forward(self, images: Tensor) -> Tensor:
        added: Tensor = self.up(self.down(images))
        return added

    def weight(self) -> Tensor:
        """What it adds to the weight of the layer beside it."""
        product = self.up.weight.flatten(1) @ self.down.weight.flatten(1)
        return product[..., None, None] if self.up.weight.dim() == 4 else product
