"""Copies of a layer for the branches, which may share tensors, and their checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

from torch import nn

from advprop.auxiliary.route import CLEAN, Branched, Route

Separate = Literal["both", "affine", "statistics"]


class BranchCopies(Branched):
    """Holds a layer as branch "clean", and a deep copy of it for each auxiliary branch.

    `separate` says which tensors the copies own: "both", or only the "affine" parameters, or only
    the running "statistics"; the rest is the clean branch's.
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

    def _apply(self, fn: Any, recurse: bool = True) -> BranchCopies:
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


class _Branches(nn.ModuleDict):
    """The layers of one `BranchCopies`; rejects a conversion that would lose an activation."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        old = self._modules.get(name)
        # torch's own class keeps the activation as a child that it never calls
        if type(module) is nn.SyncBatchNorm and hasattr(old, "act"):
            raise ValueError(
                f"torch's SyncBatchNorm conversion drops the activation inside "
                f"{type(old).__name__}; use timm.layers.convert_sync_batchnorm"
            )
        super().add_module(name, module)


def _tie_after_loading(module: BranchCopies, _incompatible_keys: object) -> None:
    module._tie()


def _drop_borrowed(
    module: BranchCopies, state_dict: dict[str, Any], prefix: str, _metadata: object
) -> None:
    for path, _, tensors, _ in module._borrowed():
        for key in tensors:
            state_dict.pop(f"{prefix}{path}{key}", None)
