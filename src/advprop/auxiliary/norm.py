"""A normalisation layer with a copy of itself for each branch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from advprop.auxiliary.copies import BranchCopies
from advprop.auxiliary.recomputation import check_recomputation
from advprop.auxiliary.route import CLEAN, check_branch_chosen, split_batch
from advprop.auxiliary.running import frozen_statistics, running_statistics


class AuxiliaryNorm(BranchCopies):
    """Runs the original layer, or the active branch's copy; see `BranchCopies` for `separate`.

    If branches share statistics, a batch over several branches is normalised by the statistics of
    the whole batch in training mode. Attributes that this class lacks (`weight`, `num_features`,
    ...) are read from the active branch.
    """

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


def _no_single_tensor(name: str, active: tuple[str, ...]) -> str:
    return (
        f'"{name}" of a normalisation layer was read from outside, but the batch is split over '
        f"{len(active)} branches ({', '.join(active)}), each with its own: use one branch at a "
        "time (for torch's transformer layers torch.backends.mha.set_fastpath_enabled(False) "
        "does as well)"
    )
