"""Layers under attack: the outputs are the same, and the gradients those that torch finds."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable

import pytest
import torch
from timm.layers import BatchNormAct2d
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from advprop.auxiliary import norm_gradient
from advprop.auxiliary.attacked_layers import attacked_layers
from advprop.auxiliary.image_gradient import image_gradient
from advprop.auxiliary.modes import attack_mode


@pytest.fixture(autouse=True)
def _small_batches_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_gradient, "FEWEST", 0)


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


def step_of(layer: nn.Module, images: Tensor) -> str:
    """The name of what autograd would run for a layer."""
    return layer(images.clone().requires_grad_()).grad_fn.name()


def differs(model: nn.Module, images: Tensor) -> bool:
    """Does the model have other gradients than torch's somewhere?"""
    todo, names = [model(images.clone().requires_grad_()).grad_fn], set()
    while todo:
        node = todo.pop()
        if node is not None:
            names.add(node.name())
            todo += [above for above, _ in node.next_functions]
    return bool(names & {"_ConvolutionBackward", "_BatchNormBackward"})


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
    assert not differs(model, images)
    with attack_mode(model):
        assert step_of(model[0], images) == "_ConvolutionBackward"
        assert differs(model[1], images_of((8, 8), channels=8))
        attacked_output, attacked_gradient = gradient_of(model, images)
    assert torch.equal(attacked_output, output)
    torch.testing.assert_close(attacked_gradient, gradient)


def test_small_batches_are_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    norm = nn.BatchNorm2d(8)
    with attack_mode(norm):
        assert not differs(norm, images_of((63, 64), channels=8))
        assert differs(norm, torch.rand(8, 8, 64, 64))


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


@pytest.mark.parametrize("make", [nn.BatchNorm2d, BatchNormAct2d])
def test_half_precision_loses_no_more_than_with_torchs_gradients(make: type[nn.Module]) -> None:
    norm, images = moved(make(8, dtype=torch.bfloat16)).eval(), images_of((8, 8), 8).bfloat16()
    output, gradient = gradient_of(norm, images)
    with attack_mode(norm):
        attacked_output, attacked_gradient = gradient_of(norm, images)
    assert torch.equal(attacked_output, output)
    # one rounding each, of the same number in single precision
    torch.testing.assert_close(attacked_gradient, gradient, rtol=2**-8, atol=0)


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


OTHERS = {
    "stride 1": nn.Conv2d(3, 6, 3),
    "different strides": nn.Conv2d(3, 6, 3, stride=(2, 1)),
    "many channels": nn.Conv2d(16, 6, 3, stride=2),
    "dilated": nn.Conv2d(3, 6, 3, stride=2, dilation=2),
    "padding by name": nn.Conv2d(3, 6, 3, stride=2, padding="valid"),
    "groups": nn.Conv2d(3, 6, 3, stride=2, groups=3),
    "of its own class": type("Own", (nn.Conv2d,), {})(3, 6, 3, stride=2),
    "parametrised": parametrizations.weight_norm(nn.Conv2d(3, 6, 3, stride=2)),
    "complex": nn.Conv2d(3, 6, 3, stride=2, dtype=torch.complex64),
    "synchronised": nn.SyncBatchNorm(3).eval(),
}


@pytest.mark.parametrize("layer", OTHERS.values(), ids=OTHERS.keys())
def test_other_layers_keep_torchs_gradients(layer: nn.Module) -> None:
    images = images_of((9, 9), channels=getattr(layer, "in_channels", 3))
    if any(parameter.is_complex() for parameter in layer.parameters()):
        images = torch.complex(images, images.flip(0))
    if isinstance(layer, nn.SyncBatchNorm):
        with attack_mode(layer):
            assert type(layer) is nn.SyncBatchNorm
        return
    with attack_mode(layer):
        assert not differs(layer, images)


@pytest.mark.parametrize(
    "layer",
    [
        Conv2dSame(3, 6, 3, stride=2),
        nn.Conv2d(3, 6, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 6, (3, 5), stride=3, padding=(0, 2)),
    ],
)
@pytest.mark.parametrize("size", [(9, 9), (16, 13)])
def test_padding_by_the_layer_itself_and_one_channel(
    layer: nn.Conv2d, size: tuple[int, int]
) -> None:
    images = images_of(size, channels=layer.in_channels)
    output, gradient = gradient_of(layer, images)
    with attack_mode(layer):
        assert differs(layer, images)
        attacked_output, attacked_gradient = gradient_of(layer, images)
    assert torch.equal(attacked_output, output)
    torch.testing.assert_close(attacked_gradient, gradient)


def test_no_image_at_all_and_one_without_a_batch() -> None:
    model = net()
    with attack_mode(model):
        assert gradient_of(model, torch.rand(0, 3, 16, 16))[1].shape == (0, 3, 16, 16)
        one = images_of((16, 16))[0]
        assert not differs(model[0], one)


def test_all_layers_are_put_back_after_an_error_too() -> None:
    model = net()
    types = [type(layer) for layer in model]
    with attack_mode(model):
        with attack_mode(model):
            pass
        changed = [type(layer) is not kept for layer, kept in zip(model, types, strict=True)]
        assert changed == [True, True, False, False]
    assert [type(layer) for layer in model] == types
    with pytest.raises(TypeError), attack_mode(model):
        model(None)
    assert [type(layer) for layer in model] == types
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("device", ["meta"])
def test_layers_on_other_devices_are_left_alone(device: str) -> None:
    model = net().to(device)
    types = [type(layer) for layer in model]
    with attack_mode(model):
        assert [type(layer) for layer in model] == types


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_compiled_model_is_left_alone(wrapped: bool) -> None:
    model = net()
    types = [type(layer) for layer in model]
    attacked: nn.Module = model
    if wrapped:
        attacked = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
    with attack_mode(attacked):
        assert [type(layer) for layer in model] == types


def test_what_is_compiled_around_the_model_has_torchs_gradients() -> None:
    """The model cannot tell; the layers do while they are traced."""
    model, images, graphs = net(), images_of((16, 16)), []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    expected = gradient_of(model, images)
    compiled = torch.compile(lambda point: model(point), backend=backend, fullgraph=True)
    with attack_mode(model):
        found = gradient_of(compiled, images)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(graphs) == 1
    torch._dynamo.reset()


def test_copies_made_in_an_attack_are_of_plain_layers() -> None:
    model, images = net(BatchNormAct2d(8)), images_of((16, 16))
    expected, types = model(images), [type(layer) for layer in model]
    with attack_mode(model):
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        assert list(model.state_dict()) == list(copies[0].state_dict())
        assert repr(model) == repr(copies[0])
    for made in copies:
        assert [type(layer) for layer in made] == types
        assert torch.equal(made(images), expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_transforms_and_forward_mode_find_what_they_find_outside() -> None:
    model, images = net(nn.BatchNorm2d(8)), images_of((16, 16))
    model[2] = nn.Softplus()  # vmap has no in-place operations on what it does not map

    def loss(image: Tensor) -> Tensor:
        return model(image[None]).square().sum()

    def each() -> Tensor:
        return torch.func.vmap(torch.func.grad(loss))(images)

    def along() -> Tensor:
        with forward_ad.dual_level():
            point = forward_ad.make_dual(images.clone().requires_grad_(), torch.ones_like(images))
            tangent = forward_ad.unpack_dual(model(point)).tangent
        assert tangent is not None
        return tangent

    expected = each(), along()
    with attack_mode(model):
        found = each(), along()
    torch.testing.assert_close(found, expected)


def test_checkpointing_runs_the_same_layers_again() -> None:
    model, images = net(), images_of((16, 16))
    expected = gradient_of(model, images)
    whole = model.forward
    with attack_mode(model):
        found = gradient_of(
            lambda point: checkpoint(whole, point, use_reentrant=False),  # type: ignore[arg-type]
            images,
        )
    torch.testing.assert_close(found, expected)


def test_hooks_of_the_layers_run_once() -> None:
    model, images, ran = net(), images_of((16, 16)), []
    model[2] = nn.ReLU()
    for layer in model[:2]:
        layer.register_forward_hook(lambda *_: ran.append("forward"))
        layer.register_full_backward_hook(lambda *_: ran.append("backward"))
    with attack_mode(model):
        gradient_of(model, images)
    assert ran == ["forward"] * 2 + ["backward"] * 2
