"""Tiny models and images, quick and without edge cases by accident."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from advprop.auxiliary.norm import AuxiliaryNorm
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.shapes import Batch

NUM_CLASSES = 5
IMAGE_SHAPE = (3, 8, 8)


def tiny_net(seed: int = 0, *, dropout: float = 0.0, momentum: float = 0.1) -> nn.Sequential:
    """Two convolutions with BatchNorm for images of any size, its tensors all away from 0 and 1."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6, momentum=momentum),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8, momentum=momentum),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8, NUM_CLASSES),
    )
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            randomise(layer)
    return net


def tiny_branched_net(
    seed: int = 0, auxiliary: tuple[str, ...] = ("adversarial",), **options: float
) -> nn.Module:
    """`tiny_net` with the branch "clean" and `auxiliary` ones."""
    return add_auxiliary_norms(tiny_net(seed, **options), auxiliary)


def tiny_vit(seed: int = 0, *, drop: float = 0.0) -> VisionTransformer:
    """A small vision transformer of timm's, every kind of mask at the rate `drop`."""
    torch.manual_seed(seed)
    net = VisionTransformer(
        img_size=8,
        patch_size=4,
        num_classes=NUM_CLASSES,
        embed_dim=16,
        depth=2,
        num_heads=2,
        drop_rate=drop,
        pos_drop_rate=drop,
        proj_drop_rate=drop,
        attn_drop_rate=drop,
        drop_path_rate=drop,
    )
    with torch.no_grad():
        for parameter in net.parameters():  # some of them begin at 0
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net


def tiny_convnext(seed: int = 0, *, drop: float = 0.0) -> ConvNeXt:
    """A small ConvNeXt of timm's for images of 32 pixels, drop-path and dropout at `drop`."""
    torch.manual_seed(seed)
    return ConvNeXt(
        num_classes=NUM_CLASSES,
        depths=(1, 1, 1, 1),
        dims=(8, 8, 16, 16),
        patch_size=4,
        head_init_scale=5.0,
        ls_init_value=0.5,
        drop_path_rate=drop,
        drop_rate=drop,
    )


def randomise(norm: nn.Module) -> None:
    """Move a normalisation layer's parameters and statistics."""
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        norm.running_mean.normal_(std=0.2)
        norm.running_var.uniform_(0.5, 1.5)


def branches_of(model: nn.Module, name: str) -> list[nn.Module]:
    """The layers of one branch, in order."""
    return [layer.branches[name] for layer in model.modules() if isinstance(layer, AuxiliaryNorm)]


def still(model: nn.Module) -> nn.Module:
    """`model` ready for training, all of its layers in eval mode."""
    model.eval()
    model.training = True
    return model


def active_branch(model: nn.Module) -> str | tuple[str, ...]:
    """Where `model` goes now."""
    (active,) = {
        layer.route.active for layer in model.modules() if isinstance(layer, AuxiliaryNorm)
    }
    return active


def modes(model: nn.Module) -> list[tuple[bool, list[bool]]]:
    """Train or eval of every module, and which of its own parameters are trained."""
    return [
        (layer.training, [parameter.requires_grad for parameter in layer.parameters(recurse=False)])
        for layer in model.modules()
    ]


def tiny_images(count: int = 8, *, seed: int = 1, margin: float = 0.0) -> Tensor:
    """Random images in [margin, 1 - margin]."""
    unit = torch.rand(count, *IMAGE_SHAPE, generator=torch.Generator().manual_seed(seed))
    return margin + (1 - 2 * margin) * unit


def tiny_labels(count: int = 8, *, seed: int = 2) -> Tensor:
    """Random class indices."""
    return torch.randint(NUM_CLASSES, (count,), generator=torch.Generator().manual_seed(seed))


def with_views(batch: Batch, names: Iterable[str]) -> Batch:
    """`batch` with further versions of its images, all of them different."""
    views = {name: (batch.images + 0.3 * place) % 1 for place, name in enumerate(names, start=1)}
    return replace(batch, views=views)


def seeded(seed: int = 0) -> torch.Generator:
    """A fresh generator."""
    return torch.Generator().manual_seed(seed)


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """A copy of every parameter's gradient by name, None where there is none."""
    return {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }


def same_tensors(first: dict[str, Tensor | None], second: dict[str, Tensor | None]) -> bool:
    """Are names and values equal, bit for bit?"""
    return first.keys() == second.keys() and all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(first.values(), second.values(), strict=True)
    )


class Operations(TorchDispatchMode):
    """Records the `names` of torch's operations called inside, such as "mul", in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))
