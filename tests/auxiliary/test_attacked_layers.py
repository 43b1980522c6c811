"""Layers under attack: the outputs are the same, and the gradients those that torch finds."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from advprop.auxiliary.attacked_layers import attacked_layers
from advprop.auxiliary.image_gradient import image_gradient
from advprop.auxiliary.modes import attack_mode

SHAPES = [
    (kernel, stride, padding, size)
    for kernel, stride, padding, size in itertools.product(
        ((1, 1), (2, 2), (3, 3), (4, 4), (7, 7), (3, 5)),
        (2, 3, 4),
        ((0, 0), (1, 1), (3, 3), (2, 0)),
        ((8, 8), (13, 11)),
    )
]


def images_of(size: tuple[int, int], channels: int = 3) -> Tensor:
    return torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_gradient_is_that_of_torch_for_every_kernel_stride_and_padding(
    channels_last: bool,
) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for kernel, stride, padding, size in SHAPES:
        layer = nn.Conv2d(3, 5, kernel, stride, padding, dtype=torch.float64)
        images = images_of(size).double().contiguous(memory_format=layout).requires_grad_()
        output = layer.to(memory_format=layout)(images)
        above = torch.randn_like(output)
        (expected,) = torch.autograd.grad(output, images, above)
        found = image_gradient(above, layer.weight.detach(), stride, padding, size)
        torch.testing.assert_close(found, expected, msg=str((kernel, stride, padding, size)))
        assert found.stride(1) == 1 or not channels_last


def moved(norm: nn.Module) -> nn.Module:
    """Its statistics and parameters away from 0 and 1."""
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5)
    return norm


def net(norm: nn.Module | None = None, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=2, padding=3, **options),
        moved(norm or nn.BatchNorm2d(8)),
        nn.ReLU(inplace=not isinstance(norm, BatchNormAct2d)),
        nn.Conv2d(8, 4, 3, stride=2),
    ).eval()


def gradient_of(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    point = images.clone().requires_grad_()
    output = model(point)
    (gradient,) = torch.autograd.grad(output.square().sum(), point)
    return output.detach(), gradient


def steps_of(model: nn.Module, images: Tensor) -> set[str]:
    """The names of what autograd would run for the first two layers."""
    first = model[0](images.clone().requires_grad_())
    return {first.grad_fn.name(), model[1](first).grad_fn.name()}


NORMS = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(8, eps=0.1),
    "without parameters": lambda: nn.BatchNorm2d(8, affine=False),
    "fused": lambda: BatchNormAct2d(8, act_layer=nn.SiLU),
    "fused, not in place": lambda: BatchNormAct2d(8, act_layer=nn.Tanh, inplace=False),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS.keys())
def test_an_attack_meets_the_same_outputs_and_gradients(
    make: Callable[[], nn.Module], bias: bool
) -> None:
    model, images = net(make(), bias=bias), images_of((16, 16))
    output, gradient = gradient_of(model, images)
    assert "_ConvolutionBackward" not in steps_of(model, images)
    with attack_mode(model):
        assert "_ConvolutionBackward" in steps_of(model, images)
        attacked_output, attacked_gradient = gradient_of(model, images)
    assert torch.equal(attacked_output, output)
    torch.testing.assert_close(attacked_gradient, gradient)


def test_a_norm_in_an_attack_does_not_keep_its_input() -> None:
    """What it saves for the backward pass is one number a channel."""
    saved: list[Tensor] = []
    images = images_of((8, 8), channels=8).requires_grad_()
    for norm in (nn.BatchNorm2d(8), BatchNormAct2d(8, apply_act=False)):
        with attack_mode(norm), saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            norm(images)
    assert [tensor.numel() for tensor in saved] == [8, 8]


@pytest.mark.parametrize(
    ("norm", "statistics"),
    [
        (nn.BatchNorm2d(8), "batch"),
        (nn.BatchNorm2d(8, track_running_stats=False), "running"),
        (BatchNormAct2d(8), "batch"),
    ],
)
def test_batch_statistics_have_gradients_of_their_own(norm: nn.Module, statistics: str) -> None:
    images = images_of((8, 8), channels=8)
    norm = nn.Sequential(norm, nn.Conv2d(8, 3, 1))
    expected = gradient_of(copy.deepcopy(norm).train(), images)
    with attack_mode(norm, statistics=statistics):
        found = gradient_of(norm, images)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_gradients_of_gradients_are_there() -> None:
    model, images = net(), images_of((16, 16))

    def penalty() -> Tensor:
        point = images.clone().requires_grad_()
        (first,) = torch.autograd.grad(model(point).exp().sum(), point, create_graph=True)
        return torch.autograd.grad(first.square().sum(), point)[0]

    expected = penalty()
    with attack_mode(model):
        torch.testing.assert_close(penalty(), expected)


def test_under_autocast_the_gradient_is_as_precise_as_torchs() -> None:
    model, images = net(), images_of((16, 16))
    exact = gradient_of(model, images)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16), attack_mode(model):
        output, gradient = gradient_of(model, images)
    assert output.dtype == torch.bfloat16
    assert gradient.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0) > 0.999


def test_weights_that_train_get_their_gradients() -> None:
    images = images_of((16, 16))
    for norm in (nn.BatchNorm2d(8), BatchNormAct2d(8)):
        model = net(norm)
        with attacked_layers(model):
            model(images.clone().requires_grad_()).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_other_layers_are_left_alone_and_all_are_put_back() -> None:
    class Own(nn.Conv2d):
        pass

    layers = nn.ModuleList(
        [
            nn.Conv2d(3, 8, 3, stride=2),
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(16, 8, 3, stride=2),
            nn.Conv2d(3, 8, 3, stride=2, dilation=2),
            nn.Conv2d(3, 8, 3, stride=2, padding="valid"),
            nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode="reflect"),
            nn.Conv2d(3, 9, 3, stride=2, groups=3),
            Own(3, 8, 3, stride=2),
            nn.BatchNorm1d(8),
            nn.SyncBatchNorm(8),
        ]
    )
    types = [type(layer) for layer in layers]
    with attacked_layers(layers):
        with attacked_layers(layers):
            pass
        changed = [type(layer) is not kept for layer, kept in zip(layers, types, strict=True)]
        assert changed == [True] + [False] * (len(layers) - 1)
    assert [type(layer) for layer in layers] == types
    with pytest.raises(NotImplementedError), attacked_layers(layers):
        layers(None)
    assert [type(layer) for layer in layers] == types
