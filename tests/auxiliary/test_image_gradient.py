"""The images' gradient in blocks of pixels is the one that torch finds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from advprop.auxiliary.image_gradient import image_gradient, quick_image_gradients
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


def net(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=2, padding=3, **options), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2)
    )


def gradient_of(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    point = images.clone().requires_grad_()
    output = model(point)
    (gradient,) = torch.autograd.grad(output.square().sum(), point)
    return output.detach(), gradient


@pytest.mark.parametrize("bias", [False, True])
def test_an_attack_meets_the_same_outputs_and_gradients(bias: bool) -> None:
    model, images = net(bias=bias), images_of((16, 16))
    output, gradient = gradient_of(model, images)
    with attack_mode(model):
        assert "_Convolution" in model[0](images.clone().requires_grad_()).grad_fn.name()
        attacked_output, attacked_gradient = gradient_of(model, images)
    assert torch.equal(attacked_output, output)
    torch.testing.assert_close(attacked_gradient, gradient)


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
    model, images = net(), images_of((16, 16))
    with quick_image_gradients(model):
        model(images.clone().requires_grad_()).sum().backward()
    assert model[0].weight.grad is not None


def test_other_convolutions_are_left_alone_and_all_are_put_back() -> None:
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
        ]
    )
    types = [type(layer) for layer in layers]
    with quick_image_gradients(layers):
        with quick_image_gradients(layers):
            pass
        changed = [type(layer) is not kept for layer, kept in zip(layers, types, strict=True)]
        assert changed == [True] + [False] * (len(layers) - 1)
    assert [type(layer) for layer in layers] == types
    with pytest.raises(NotImplementedError), quick_image_gradients(layers):
        layers(None)
    assert [type(layer) for layer in layers] == types
