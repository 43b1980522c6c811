"""FLOPs: by hand, and by torch's own counter where that is right."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from advprop.attacks.fgsm import fgsm
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.branches import attack_mode
from advprop.cost.step import FlopCounter

full = pytest.mark.full


def on_meta(name: str, image_size: int | None = None) -> tuple[nn.Module, Tensor]:
    """The model in training mode, and two images of its native or another size."""
    options = {"img_size": image_size} if image_size and name.startswith("vit") else {}
    with torch.device("meta"):
        model = timm.create_model(name, **options)
        size = image_size or get_pretrained_cfg(name).input_size[-1]
        return model.train(), torch.empty(2, 3, size, size)


def flops_of(model: nn.Module, images: Tensor) -> tuple[int, int]:
    """FLOPs of a forward pass, and of its backward pass."""
    with FlopCounter() as forward:
        outputs = model(images)
    with FlopCounter() as backward:
        outputs.sum().backward()
    return forward.flops, backward.flops


@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "vit_tiny_patch16_224",
        *(f"tf_efficientnet_b{size}" for size in (0, 1, 8)),
        *(pytest.param(f"tf_efficientnet_b{size}", marks=full) for size in range(2, 8)),
    ],
)
def test_a_forward_pass_counts_as_torch_counts_it(name: str) -> None:
    model, images = on_meta(name)
    with FlopCounterMode(display=False) as torchs, FlopCounter() as ours, torch.no_grad():
        model(images)
    assert ours.flops == torchs.get_total_flops() > 1e8


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("resnet18", 64), ("resnet50", 96), ("vit_tiny_patch16_224", 64)],
)
def test_forward_and_backward_count_as_torch_counts_them_where_there_are_no_groups(
    name: str, image_size: int
) -> None:
    model, images = on_meta(name, image_size)
    with FlopCounterMode(display=False) as torchs, FlopCounter() as ours:
        model(images).sum().backward()
    assert ours.flops == torchs.get_total_flops()


@pytest.mark.parametrize(
    ("name", "giga_macs"),
    [
        ("resnet50", 4.1),  # He et al. 2016 say 3.8 for the variant with the stride in front
        ("tf_efficientnet_b0", 0.39),
        ("tf_efficientnet_b1", 0.70),
        pytest.param("tf_efficientnet_b4", 4.2, marks=full),
        pytest.param("tf_efficientnet_b7", 37.0, marks=full),
    ],
)
def test_published_numbers_of_multiplications(name: str, giga_macs: float) -> None:
    model, images = on_meta(name)
    with FlopCounter() as counter, torch.no_grad():
        model(images)
    assert counter.flops / 2 / len(images) / 1e9 == pytest.approx(giga_macs, rel=0.06)


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_every_gradient_of_a_convolution_costs_its_forward_pass_whatever_the_groups(
    groups: int,
) -> None:
    layer = nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=groups, bias=False)
    by_hand = 2 * (2 * 4 * 4) * 32 * (16 // groups) * 9  # 2 images of 4x4 outputs
    images = torch.rand(2, 16, 8, 8)
    assert flops_of(layer, images) == (by_hand, by_hand)  # of the weights alone
    assert flops_of(layer, images.requires_grad_()) == (by_hand, 2 * by_hand)
    layer.requires_grad_(False)
    assert flops_of(layer, images) == (by_hand, by_hand)  # of the images alone


def test_a_transposed_convolution_by_hand() -> None:
    layer = nn.ConvTranspose2d(8, 16, 2, stride=2, groups=2, bias=False)
    by_hand = 2 * (4 * 4) * 8 * (16 // 2) * 4
    assert flops_of(layer, torch.rand(1, 8, 4, 4).requires_grad_()) == (by_hand, 2 * by_hand)


def test_an_attack_step_on_two_layers_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5))
    convolution, linear = 2 * 64 * 8 * 3 * 9, 2 * 512 * 5
    images, labels = torch.rand(1, 3, 8, 8), torch.tensor([1])
    with FlopCounter() as attack, attack_mode(model):
        fgsm(Linf(0.1))(model, images, labels)
    assert attack.flops == 2 * convolution + 2 * linear  # the images' gradient goes through both
    # training needs no gradient of the images: the first layer has its weights' alone
    assert sum(flops_of(model, images)) == 2 * convolution + 3 * linear


def test_products_of_two_activations_have_two_gradients() -> None:
    queries, keys, values = (torch.rand(1, 2, 6, 8, requires_grad=True) for _ in range(3))
    product = 2 * 2 * 6 * 6 * 8
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        with FlopCounter() as forward:
            outputs = F.scaled_dot_product_attention(queries, keys, values)
        with FlopCounter() as backward:
            outputs.sum().backward()
    assert (forward.flops, backward.flops) == (2 * product, 4 * product)
