"""Small nets with branches that have moved apart, and what the tests read off them."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import torch
from tiny import tiny_images
from torch import Tensor, nn

from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.norm import AuxiliaryNorm
from advprop.auxiliary.surgery import add_auxiliary_norms


def small_net(*, dropout: float = 0.0) -> nn.Sequential:
    """A convolutional net with BatchNorm in front of and GroupNorm behind a second convolution."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8, 4),
    )
    for layer in (net[1], net[4]):
        move(layer, seed=3)
    return net


@torch.no_grad()
def move(layer: nn.Module, *, seed: int) -> None:
    """Multiply all that a layer owns by 0.5 to 1.5, after shifting it off 0; counters grow."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            factor = torch.rand(tensor.shape, generator=generator).to(tensor) + 0.5
            tensor.add_(0.1).mul_(factor)
        else:
            tensor.add_(1)


def layers_of(model: nn.Module, branch: str) -> list[nn.Module]:
    """The layers of one branch, in order."""
    return [layer.branches[branch] for layer in model.modules() if isinstance(layer, AuxiliaryNorm)]


def branched(
    net: nn.Module, auxiliary: tuple[str, ...] = ("adversarial",), *, separate: str = "both"
) -> nn.Module:
    """`net` with branches that no longer agree."""
    model = add_auxiliary_norms(net, auxiliary, separate=separate)
    for seed, name in enumerate(auxiliary, start=10):
        for layer in layers_of(model, name):
            move(layer, seed=seed)
    return model


def some_images(count: int = 6, *, seed: int = 1, size: int = 8) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """All tensors of a module, copied."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """All buffers of a module, copied."""
    return {name: tensor.clone() for name, tensor in module.named_buffers()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Are names and values equal, bit for bit?"""
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def output(model: nn.Module, branch: str | tuple[str, ...], images: Tensor) -> Tensor:
    """Logits through a branch, without a graph."""
    with torch.no_grad(), use_branch(model, branch):
        return model(images)


def through_a_file(model: nn.Module, fresh: nn.Module) -> nn.Module:
    """`fresh` with the state of `model`, saved and loaded."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


COPIES: dict[str, Callable[[nn.Module, nn.Module], nn.Module]] = {
    "deepcopy": lambda model, fresh: copy.deepcopy(model),
    "pickle": lambda model, fresh: pickle.loads(pickle.dumps(model)),
    "state dict": through_a_file,
}
"""Ways to another model like `model`; `fresh` has its layers and branches."""


def check_twin(model: nn.Module, twin: nn.Module) -> None:
    """Assert that two models with branches are alike, and switched each on its own."""
    images = tiny_images()
    for name in ("clean", "adversarial"):
        assert torch.equal(output(twin, name, images), output(model, name, images))
    clean = output(twin, "clean", images)
    with use_branch(model, "adversarial"), torch.no_grad():
        assert torch.equal(twin(images), clean)
