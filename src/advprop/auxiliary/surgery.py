"""Add branches to a model, and remove them without a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import timm.layers
from timm.layers.grn import GlobalResponseNorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from advprop.auxiliary.copies import Separate
from advprop.auxiliary.norm import AuxiliaryNorm
from advprop.auxiliary.route import CLEAN, Route, check_known, check_names, check_without_branches
from advprop.auxiliary.token import remove_auxiliary_tokens

NORM_TYPES: tuple[type[nn.Module], ...] = (
    _BatchNorm,
    _InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    timm.layers.RmsNorm,
    timm.layers.RmsNormFp32,
    timm.layers.RmsNorm2d,
    timm.layers.RmsNorm2dFp32,
    timm.layers.SimpleNorm,
    timm.layers.SimpleNormFp32,
    timm.layers.SimpleNorm2d,
    timm.layers.SimpleNorm2dFp32,
    timm.layers.EvoNorm2dB0,
    timm.layers.EvoNorm2dB1,
    timm.layers.EvoNorm2dB2,
    timm.layers.EvoNorm2dS0,
    timm.layers.EvoNorm2dS1,
    timm.layers.EvoNorm2dS2,
    timm.layers.FilterResponseNormAct2d,
    timm.layers.FilterResponseNormTlu2d,
    GlobalResponseNorm,
)
"""Normalisation layers of torch and timm, their subclasses included.

Frozen BatchNorm is not among them: nothing in it learns, so its branches could never differ.
"""

MIXES_IMAGES = {
    "timm.models.csatv2.SpatialTransformerBlock": "attends over the images of a batch",
}
"""Layers whose output for one image depends on the others in its batch, in eval mode too."""


def add_auxiliary_norms(
    model: nn.Module,
    auxiliary: Sequence[str] = ("adversarial",),
    *,
    separate: Separate = "both",
    is_norm: Callable[[nn.Module], bool] | None = None,
) -> nn.Module:
    """Give every normalisation layer of `model` one more branch for each name in `auxiliary`.

    The original layers become branch "clean"; the others start as copies of them, so every branch
    computes what the model did before. Changes the model in place and returns it (a bare
    normalisation layer returns its replacement). Build the optimiser after this call.

    `separate` says which tensors each branch owns: running "statistics", "affine" parameters, or
    "both" (as AdvProp has it, Xie et al. 2020); the rest is shared. `is_norm` returns True for
    further layers to replace beside torch's and timm's.

    Raises ValueError for unusable names, a model that has branches already, is in
    DistributedDataParallel or has lazy layers without sizes, or one without any layer to replace
    (it would silently train as vanilla).
    """
    names = check_names(auxiliary)
    if separate not in ("both", "affine", "statistics"):
        raise ValueError(f'separate={separate!r}: choose "both", "affine" or "statistics"')
    check_without_branches(model)
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise ValueError("the model has layers without sizes yet: run one batch through it first")
    route = Route((CLEAN, *names), _no_tuple(model))

    def replacement(layer: nn.Module) -> nn.Module | None:
        wanted = isinstance(layer, NORM_TYPES) or (is_norm is not None and is_norm(layer))
        if not wanted or not _has_tensors(layer, separate):
            return None
        return AuxiliaryNorm(layer, route, separate=separate)

    result, count = _replace(model, replacement)
    if not count:
        raise ValueError(_nothing_replaced(model, separate))
    return result


def remove_auxiliary_norms(model: nn.Module, *, keep: str = CLEAN) -> nn.Module:
    """Put the layers, or the class token, of branch `keep` back in place of all branches.

    The result has the classes, the state-dict keys and the outputs of a model that never had
    branches. Changes the model in place and returns it. Raises ValueError if there are no branches,
    or none of that name.
    """

    def replacement(layer: nn.Module) -> nn.Module | None:
        if not isinstance(layer, AuxiliaryNorm):
            return None
        check_known(layer, keep)
        return layer.branches[keep]

    tokens = remove_auxiliary_tokens(model, keep=keep)
    result, count = _replace(model, replacement)
    if not count + tokens:
        raise ValueError("the model has no auxiliary branches: nothing to remove")
    return result


def _replace(
    model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]
) -> tuple[nn.Module, int]:
    """Replace layers in (or at) `model`; return the result and the number of new layers.

    A layer in several places is replaced by the same one in all of them.
    """
    done: dict[nn.Module, nn.Module | None] = {}

    def visit(layer: nn.Module) -> nn.Module:
        if layer not in done:
            done[layer] = replacement(layer)
            if done[layer] is None:
                for name, child in list(layer._modules.items()):
                    if child is not None:
                        layer._modules[name] = visit(child)
        return done[layer] or layer

    result = visit(model)
    return result, sum(new is not None for new in done.values())


def _has_tensors(layer: nn.Module, separate: Separate) -> bool:
    parameters = any(True for _ in layer.parameters())
    buffers = any(True for _ in layer.buffers())
    return {"both": parameters or buffers, "affine": parameters, "statistics": buffers}[separate]


def _no_tuple(model: nn.Module) -> str | None:
    for layer in model.modules():
        name = f"{type(layer).__module__}.{type(layer).__qualname__}"
        if name in MIXES_IMAGES:
            return f"{type(model).__name__} {MIXES_IMAGES[name]} ({type(layer).__name__})"
    return None


def _nothing_replaced(model: nn.Module, separate: Separate) -> str:
    kinds = Counter(type(layer).__name__ for layer in model.modules())
    found = ", ".join(sorted(kind for kind in kinds if "norm" in kind.lower()))
    if found and separate != "both":
        return (
            f'separate="{separate}": the normalisation layers here ({found}) have none of these '
            f'tensors; try separate="both"'
        )
    listed = ", ".join(f"{kind} x{n}" for kind, n in kinds.most_common(12))
    return (
        f"found no normalisation layer to give branches to; the model has {listed}. "
        "If one of them normalises, name it: is_norm=lambda layer: isinstance(layer, ...)"
    )
