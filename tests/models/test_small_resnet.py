from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advprop.models.small_resnet import ResidualBlock, SmallResNet


@pytest.mark.parametrize(
    ("size", "in_chans", "options", "features"),
    [
        (28, 1, {}, (64, 7, 7)),
        (28, 1, {"width": 8}, (32, 7, 7)),
        (32, 3, {"stem_stride": 1}, (64, 16, 16)),
        (8, 1, {"stem_stride": 1, "width": 24}, (96, 4, 4)),
    ],
)
def test_shapes(
    size: int, in_chans: int, options: dict[str, int], features: tuple[int, ...]
) -> None:
    model = SmallResNet(7, in_chans, **options)
    images = torch.rand(3, in_chans, size, size)
    assert model.forward_features(images).shape == (3, *features)
    assert model(images).shape == (3, 7)
    assert model.num_features == features[0]


@torch.no_grad()
def test_a_block_without_its_residual_is_the_shortcut() -> None:
    features = torch.randn(2, 4, 6, 6)
    same, narrowing = ResidualBlock(4, 4, stride=1), ResidualBlock(4, 8, stride=2)
    for block in (same, narrowing):
        assert not torch.equal(block(features), F.relu(block.shortcut(features)))
        nn.init.zeros_(block.bn2.weight)
        assert torch.equal(block(features), F.relu(block.shortcut(features)))
    assert torch.equal(same(features), F.relu(features))


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = SmallResNet(5, width=8)
    F.cross_entropy(model(torch.rand(6, 1, 28, 28)), torch.arange(6) % 5).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_it_learns_to_tell_bright_from_dark() -> None:
    torch.manual_seed(0)
    model = SmallResNet(2, width=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    labels = torch.arange(32) % 2
    images = 0.3 * torch.randn(32, 1, 16, 16) + labels.reshape(-1, 1, 1, 1)
    for _ in range(15):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert torch.equal(model.eval()(images).argmax(dim=1), labels)


def test_dropout_is_for_training_alone() -> None:
    model, images = SmallResNet(10, drop_rate=0.9), torch.rand(2, 1, 28, 28)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_options_rebuild_it() -> None:
    model = SmallResNet(4, 3, width=8, stem_stride=1, drop_rate=0.5)
    SmallResNet(**model.options).load_state_dict(model.state_dict())
    assert model.options == {"num_classes": 4, "in_chans": 3, "width": 8, "stem_stride": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 0},
        {"in_chans": 0},
        {"width": 0},
        {"width": 2.5},
        {"width": "16"},
        {"stem_stride": 0},
        {"drop_rate": 1.0},
        {"drop_rate": -0.1},
    ],
)
def test_impossible_sizes_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}="):
        SmallResNet(**{"num_classes": 10, **options})
