"""A normalisation layer with a copy of itself for each branch, which may share tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advprop.auxiliary.recomputation import check_recomputation
from advprop.auxiliary.route import CLEAN, Branched, Route, check_branch_chosen, split_batch
from advprop.auxiliary.running import frozen_statistics, running_statistics

Separate = Literal["both", "affine", "statistics"]


class AuxiliaryNorm(Branched):
    """Holds a layer as branch "clean", and a deep copy of it for each auxiliary branch.

    `separate` says which tensors the copies own: "both", or only the "affine" parameters, or only
    the running "statistics"; the rest is the clean branch's. If branches share statistics, a batch
    over several branches is normalised by the statistics of the whole batch in training mode.
    Attributes that this class lacks (`weight`, ...) are read from the active branch.
    """

    def __init__(self, layer: nn.Module, route: Route, *, separate: Separate = "both") -> None:
        super().__init__()
        self.route = route
        self.separate = separate
        self.branches = _Branches()
        for name in route.branches:
            self.branches[name] = layer if name == CLEAN else copy.deepcopy(layer)
        self.train(layer.training)
        self._tie()
        # a replaced tensor (`load_state_dict(assign=True)`) would undo the sharing, and one that is
        # listed twice would be averaged twice
        self.register_load_state_dict_post_hook(_tie_after_loading)
        self.register_state_dict_post_hook(_drop_borrowed)

    def forward(self, images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the active branch's output; several branches get consecutive parts of dim 0."""
        active = self.route.active
        if isinstance(active, str):
            return self._run(active, images, *args, **kwargs)
        parts = split_batch(images, active, self.route.shares)
        if self.separate == "affine" and self.training and running_statistics(self.branches[CLEAN]):
            return torch.cat(self._by_shared_statistics(images, active, parts, *args, **kwargs))
        outputs = [
            self._run(name, part, *args, **kwargs) for name, part in zip(active, parts, strict=True)
        ]
        return torch.cat(outputs)

    def _by_shared_statistics(
        self,
        images: Tensor,
        active: tuple[str, ...],
        parts: tuple[Tensor, ...],
        *args: Any,
        **kwargs: Any,
    ) -> list[Tensor]:
        """Return the output of each branch's part, normalised by the whole batch."""
        outputs: list[Tensor] = []
        start = 0
        for name, part in zip(active, parts, strict=True):
            # running statistics count the batch once
            with frozen_statistics(self.branches[name]) if outputs else nullcontext():
                whole = self._run(name, images, *args, **kwargs)
            outputs.append(whole[start : start + len(part)])
            start += len(part)
        return outputs

    def _run(self, name: str, images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        branch = self.branches[name]
        # within a backward pass: activation checkpointing runs the layer again
        again = not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
        if again:
            check_recomputation(self.route)
        with frozen_statistics(branch) if again else nullcontext():
            output: Tensor = branch(images, *args, **kwargs)
        return output

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules", {})
            if "branches" not in modules or name.startswith("__"):
                raise
            active = self.route.active
            if isinstance(active, str):
                return getattr(modules["branches"][active], name)
            check_branch_chosen(active)
            value = getattr(modules["branches"][active[0]], name)
            if isinstance(value, Tensor):
                raise ValueError(_no_single_tensor(name, active)) from None
            return value

    def _apply(self, fn: Any, recurse: bool = True) -> AuxiliaryNorm:
        super()._apply(fn, recurse)
        self._tie()  # moving to another device or type makes new buffers
        return self

    def _borrowed(self) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
        """Yield the tensors that the copies borrow, module by module.

        Each item has two prefixes of state-dict keys, of the copy and the original, and two tables
        of tensors, in the same order.
        """
        if self.separate == "both":
            return
        table = "_buffers" if self.separate == "affine" else "_parameters"
        originals = dict(self.branches[CLEAN].named_modules(prefix=f"branches.{CLEAN}"))
        for name in self.route.branches[1:]:
            copies = dict(self.branches[name].named_modules(prefix=f"branches.{name}"))
            for (original, lender), (path, borrower) in zip(
                originals.items(), copies.items(), strict=True
            ):
                yield f"{path}.", f"{original}.", vars(borrower)[table], vars(lender)[table]

    def _tie(self) -> None:
        """Let the copies hold the clean branch's tensors in place of those that they do not own."""
        for *_, own, original in self._borrowed():
            own.update(original)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load a checkpoint; the tensors of a plain one go to every branch."""
        inner = f"{prefix}branches."
        for key in [key for key in state_dict if key.startswith(prefix)]:
            if not key.startswith(inner):
                tensor = state_dict.pop(key)
                for name in self.branches:
                    # a copy each, since `load_state_dict(assign=True)` keeps the given tensors
                    own = tensor if name == CLEAN else tensor.detach().clone()
                    state_dict[f"{inner}{name}.{key.removeprefix(prefix)}"] = own
        for path, original, tensors, _ in self._borrowed():
            for key in tensors:
                if f"{prefix}{original}{key}" in state_dict:
                    state_dict[f"{prefix}{path}{key}"] = state_dict[f"{prefix}{original}{key}"]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """Return the text for `print(model)`."""
        return f"separate={self.separate!r}"


def _no_single_tensor(name: str, active: tuple[str, ...]) -> str:
    return (
        f'"{name}" of a normalisation layer was read from outside, but the batch is split over '
        f"{len(active)} branches ({', '.join(active)}), each with its own: use one branch at a "
        "time (for torch's transformer layers torch.backends.mha.set_fastpath_enabled(False) "
        "does as well)"
    )


class _Branches(nn.ModuleDict):
    """The layers of one `AuxiliaryNorm`; rejects a conversion that would lose an activation."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        old = self._modules.get(name)
        # torch's own class keeps the activation as a child that it never calls
        if type(module) is nn.SyncBatchNorm and hasattr(old, "act"):
            raise ValueError(
                f"torch's SyncBatchNorm conversion drops the activation inside "
                f"{type(old).__name__}; use timm.layers.convert_sync_batchnorm"
            )
        super().add_module(name, module)


def _tie_after_loading(module: AuxiliaryNorm, _incompatible_keys: object) -> None:
    module._tie()


def _drop_borrowed(
    module: AuxiliaryNorm, state_dict: dict[str, Any], prefix: str, _metadata: object
) -> None:
    for path, _, tensors, _ in module._borrowed():
        for key in tensors:
            state_dict.pop(f"{prefix}{path}{key}", None)
