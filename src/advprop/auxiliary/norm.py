"""One normalisation layer with a copy of itself for each branch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

CLEAN = "clean"

Separate = Literal["both", "affine", "statistics"]


class Route:
    """Which branch all layers of one surgery take: one name, or one for each part of a batch.

    Shared by the layers, so that switching is one assignment. Not thread-local: CUDA's backward
    pass, and with it recomputation, runs in threads of its own.
    """

    def __init__(self, branches: tuple[str, ...]) -> None:
        self.branches = branches
        self.active: str | tuple[str, ...] = CLEAN

    def __deepcopy__(self, memo: dict[int, Any]) -> Route:
        # a copy made inside `use_branch` would never be switched back
        return Route(self.branches)


class AuxiliaryNorm(nn.Module):
    """Holds the original layer as branch "clean" and a deep copy of it for each auxiliary branch.

    `separate` says which tensors the copies own: "both", or only the "affine" parameters, or only
    the running "statistics"; the rest is the clean branch's. Attributes that this class lacks
    (`weight`, `num_features`, ...) are read from the active branch.
    """

    def __init__(self, norm: nn.Module, route: Route, *, separate: Separate = "both") -> None:
        super().__init__()
        self.route = route
        self.separate = separate
        self.branches = _Branches()
        for name in route.branches:
            self.branches[name] = norm if name == CLEAN else copy.deepcopy(norm)
        self.train(norm.training)
        self._tie()
        # a replaced tensor (`load_state_dict(assign=True)`) would undo the sharing
        self.register_load_state_dict_post_hook(_tie_after_loading)

    def forward(self, images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The active branch's output; with several branches, equal consecutive parts of dim 0."""
        active = self.route.active
        if isinstance(active, str):
            return self._run(active, images, *args, **kwargs)
        parts = split_batch(images, active)
        outputs = [
            self._run(name, part, *args, **kwargs) for name, part in zip(active, parts, strict=True)
        ]
        return torch.cat(outputs)

    def _run(self, name: str, images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        branch = self.branches[name]
        if branch.training and not torch.compiler.is_compiling() and in_recomputation():
            with frozen_statistics(branch):
                output: Tensor = branch(images, *args, **kwargs)
        else:
            output = branch(images, *args, **kwargs)
        return output

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules", {})
            if "branches" not in modules or name.startswith("__"):
                raise
            active = self.route.active
            return getattr(modules["branches"][active if isinstance(active, str) else CLEAN], name)

    def _apply(self, fn: Any, recurse: bool = True) -> AuxiliaryNorm:
        super()._apply(fn, recurse)
        self._tie()  # moving to another device or type makes new buffers
        return self

    def _tie(self) -> None:
        """Let the copies hold the clean branch's tensors where they own none."""
        if self.separate == "both":
            return
        clean = dict(self.branches[CLEAN].named_modules())
        for name, branch in self.branches.items():
            for path, module in branch.named_modules() if name != CLEAN else ():
                if self.separate == "statistics":
                    module._parameters.update(clean[path]._parameters)
                else:
                    module._buffers.update(clean[path]._buffers)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Give a plain checkpoint's tensors to every branch."""
        inner = f"{prefix}branches."
        for key in [key for key in state_dict if key.startswith(prefix)]:
            if not key.startswith(inner):
                tensor = state_dict.pop(key)
                for name in self.branches:
                    state_dict[f"{inner}{name}.{key.removeprefix(prefix)}"] = tensor
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"separate={self.separate!r}"


class _Branches(nn.ModuleDict):
    """The layers of one `AuxiliaryNorm`; refuses a conversion that would lose an activation."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        old = self._modules.get(name)
        synchronised = isinstance(module, nn.SyncBatchNorm)
        if synchronised and hasattr(old, "act") and not hasattr(module, "act"):
            raise ValueError(
                f"torch's SyncBatchNorm conversion drops the activation inside "
                f"{type(old).__name__}; use timm.layers.convert_sync_batchnorm"
            )
        super().add_module(name, module)


def _tie_after_loading(module: AuxiliaryNorm, _incompatible_keys: object) -> None:
    module._tie()


def split_batch(images: Tensor, names: Sequence[str]) -> tuple[Tensor, ...]:
    """Equal consecutive parts of a batch, one for each branch.

    Raises ValueError where the batch cannot be divided.
    """
    if images.shape[0] % len(names):
        raise ValueError(
            f"a batch of {images.shape[0]} cannot be split over {len(names)} branches "
            f"({', '.join(names)}): concatenate parts of equal size"
        )
    return images.chunk(len(names))


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep training-mode normalisation by batch statistics from updating the running ones."""
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, _NormBase) and layer.track_running_stats
    ]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def in_recomputation() -> bool:
    """Does this forward run inside a backward pass, as activation checkpointing does it?

    Raises RuntimeError for checkpointing's reentrant form, which excludes the gradients with
    respect to images that attacks need.
    """
    if torch._C._current_graph_task_id() == -1:
        return False
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        raise RuntimeError(
            "a normalisation layer with branches runs inside a backward pass that is not "
            "non-reentrant checkpointing: use torch.utils.checkpoint(..., use_reentrant=False)"
        )
    return True
