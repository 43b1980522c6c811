"""A class token for each branch, all layers shared (Rebuffi, Croce, Gowal, ICLR 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from advprop.auxiliary.route import (
    CLEAN,
    Branched,
    Route,
    check_branch_chosen,
    check_known,
    check_names,
    check_without_branches,
)

_NAME = "cls_token"
"""The name in timm's transformers, which only ever expand it over a batch."""


class AuxiliaryToken(Branched):
    """Replaces a class token, and holds one for each branch, each a copy at first.

    It can be expanded like the tensor that it replaces; other attributes are those of the active
    branch's token.
    """

    def __init__(self, token: nn.Parameter, route: Route, *, position: int) -> None:
        super().__init__()
        self.route = route
        self.position = position  # among its owner's parameters
        self.token_shape = tuple(token.shape)
        self.branches = nn.ModuleDict({name: _Token(token) for name in route.branches})

    def of(self, branch: str) -> Tensor:
        """Return the token of `branch`, in its original shape."""
        own: Any = self.branches[branch]
        flat: Tensor = own.token
        return flat.view(self.token_shape)

    def expand(self, *sizes: int) -> Tensor:
        """Return the active branch's token, expanded as by `Tensor.expand`."""
        return self.of(self._active).expand(*sizes)

    @property
    def _active(self) -> str:
        check_branch_chosen(self.route.active)
        # never a tuple, which the route's `no_tuple` excludes
        return str(self.route.active)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "branches" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self.of(self._active), name)


class _Token(nn.Module):
    # flat, since weight decay skips one-dimensional parameters, whatever their names
    def __init__(self, token: nn.Parameter) -> None:
        super().__init__()
        flat = token.detach().clone().flatten()
        self.token = nn.Parameter(flat, requires_grad=token.requires_grad)


def add_auxiliary_tokens(
    model: nn.Module, auxiliary: Sequence[str] = ("adversarial",)
) -> nn.Module:
    """Give `model` one more class token for each name in `auxiliary`, and share everything else.

    For timm's vision transformers. Branches are chosen, exported and removed like those of
    normalisation layers (`use_branch`, `remove_auxiliary_norms`), but one at a time, since a batch
    has one token. The original token is branch "clean", the others are copies of it. Changes the
    model in place and returns it. Build the optimiser after this call.

    Raises ValueError for unusable names, a model that has branches already, is in
    DistributedDataParallel or has no class token.
    """
    names = check_names(auxiliary)
    check_without_branches(model)
    owners = [module for module in model.modules() if module._parameters.get(_NAME) is not None]
    if not owners:
        raise ValueError(
            f"the model has no class token ({_NAME}) to give branches to: give its normalisation "
            'layers branches instead, add_auxiliary_norms(model, separate="affine"), or '
            "model.separate=affine for a run"
        )
    reason = f"{type(owners[0]).__name__} has a class token for each branch, and a batch has one"
    route = Route((CLEAN, *names), reason)
    for owner in owners:
        _replace_token(owner, route)
    return model


def remove_auxiliary_tokens(model: nn.Module, *, keep: str = CLEAN) -> int:
    """Put the tokens of branch `keep` back under their old name; return their number."""
    found = [(owner, token) for owner in model.modules() for token in _tokens_of(owner)]
    for owner, token in found:
        check_known(token, keep)
        own: Any = token.branches[keep]
        parameter = nn.Parameter(token.of(keep).detach(), requires_grad=own.token.requires_grad)
        del owner._modules[_NAME]
        parameters = list(owner._parameters.items())
        parameters.insert(token.position, (_NAME, parameter))
        owner._parameters.clear()
        owner._parameters.update(parameters)
        hooks = owner._load_state_dict_pre_hooks
        for key in [key for key, wrapped in hooks.items() if _is_ours(wrapped)]:
            del hooks[key]
    return len(found)


def _tokens_of(owner: nn.Module) -> Iterator[AuxiliaryToken]:
    token = owner._modules.get(_NAME)
    if isinstance(token, AuxiliaryToken):
        yield token


def _replace_token(owner: nn.Module, route: Route) -> None:
    position = list(owner._parameters).index(_NAME)
    token = owner._parameters.pop(_NAME)
    assert token is not None
    # first among the children: `use_branch` looks for a layer with branches from the root on
    children = dict(owner._modules)
    owner._modules.clear()
    owner._modules[_NAME] = AuxiliaryToken(token, route, position=position)
    owner._modules.update(children)
    owner.register_load_state_dict_pre_hook(_give_to_branches)


def _is_ours(wrapped: Any) -> bool:
    return getattr(wrapped, "hook", None) is _give_to_branches


def _give_to_branches(
    owner: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object
) -> None:
    """Give the token of a plain checkpoint to every branch."""
    key = f"{prefix}{_NAME}"
    if key in state_dict:
        plain = state_dict.pop(key)
        for token in _tokens_of(owner):
            for name in token.branches:
                # a copy each, since `load_state_dict(assign=True)` keeps the given tensors
                state_dict[f"{key}.branches.{name}.token"] = plain.detach().clone().flatten()
