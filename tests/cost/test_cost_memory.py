"""Memory: against tensors that are really there."""

from __future__ import annotations

import pytest
import timm
import torch
from tiny import tiny_net
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.cost.memory import SavedTensors, memory_cost, num_bytes, optimizer_bytes
from advprop.cost.step import empty_batch, step_cost
from advprop.methods.vanilla import Vanilla
from advprop.models.small_resnet import SmallResNet
from advprop.training.optim import build_optimizer, freeze_layers
from advprop.training.settings import TrainingSettings


def settings(**values: object) -> TrainingSettings:
    return TrainingSettings(**{"num_epochs": 1, "batch_size": 4, **values})


def saved_on_the_cpu(model: nn.Module, images: Tensor) -> int:
    """Bytes of the distinct storages that a real forward pass keeps, the model's own left out."""
    own = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    labels = torch.zeros(len(images), dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = F.cross_entropy(model.train()(images), labels)
    found = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    del loss
    return found


@pytest.mark.parametrize("name", ["small_resnet", "tf_efficientnet_b0", "vit_tiny_patch16_224"])
def test_activations_without_data_are_within_2_percent_of_real_ones(name: str) -> None:
    size = {"vit_tiny_patch16_224": 224}.get(name, 32)

    def build() -> nn.Module:
        if name == "small_resnet":
            return SmallResNet(num_classes=5, in_chans=3, width=8, drop_rate=0.1)
        return timm.create_model(name, num_classes=5)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        real = saved_on_the_cpu(build(), torch.rand(4, 3, size, size))
    with torch.device("meta"):
        model = build()
    cost = step_cost(model, Vanilla(), empty_batch(4, (3, size, size)))
    assert cost.activation_bytes == pytest.approx(real, rel=0.02)


def test_a_storage_counts_once_and_until_the_backward_pass_lets_it_go() -> None:
    weight = torch.rand(10, requires_grad=True)
    values = torch.rand(10)
    saved = SavedTensors([weight])
    with saved:
        first = (weight * values + weight * values.view(10)).sum()
        second = (weight * values[:5].repeat(2) * values).sum()
    # `values`, which three products need, and its repetition
    assert saved.live == saved.peak == 2 * 10 * 4
    second.backward()
    assert saved.live == 10 * 4
    first.backward()
    assert (saved.live, saved.peak) == (0, 2 * 10 * 4)


def test_half_precision_halves_numbers_but_not_masks() -> None:
    values = torch.rand(10, requires_grad=True)

    def size(float_bytes: int | None) -> int:
        saved = SavedTensors([], float_bytes=float_bytes)
        with saved:
            outputs = values.exp().masked_fill(torch.zeros(10, dtype=torch.bool), 0.0)
            assert saved.live == saved.peak
        del outputs
        return saved.peak

    assert size(None) == 10 * 4 + 10
    assert size(2) == 10 * 2 + 10


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("sgd", 1), ("momentum", 1), ("rmsproptf", 2), ("adamw", 2), ("lion", 1), ("sgdp", 1)],
)
def test_optimiser_state_by_the_known_numbers_a_parameter(name: str, numbers: int) -> None:
    model = SmallResNet(num_classes=5, width=16)
    weights = num_bytes(model.parameters())
    found = optimizer_bytes(model.to("meta"), settings(optimizer=name))
    assert found == pytest.approx(numbers * weights, rel=0.01)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_optimiser_state_is_that_of_a_real_step() -> None:
    model, chosen = tiny_net(), settings(optimizer="adamw")
    optimizer = build_optimizer(model, chosen)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = [value for state in optimizer.state.values() for value in state.values()]
    assert optimizer_bytes(tiny_net().to("meta"), chosen) == num_bytes(state)


def test_what_a_device_holds() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18", num_classes=5)
    everything = num_bytes([*model.parameters(), *model.buffers()])
    parameters = num_bytes(model.parameters())
    plain = memory_cost(model, settings(optimizer="sgd"), activations=7, devices=1)
    assert (plain["weights"], plain["gradients"], plain["optimizer"]) == (
        everything,
        parameters,
        parameters,
    )
    assert (plain["average"], plain["half_weights"], plain["buckets"]) == (0, 0, 0)
    assert plain["total"] == everything + 2 * parameters + 7
    wanted = settings(optimizer="sgd", ema_decay=0.9, mixed_precision="bf16")
    more = memory_cost(model, wanted, activations=7, devices=2)
    assert (more["average"], more["half_weights"], more["buckets"]) == (
        everything,
        parameters // 2,
        parameters,
    )


def test_frozen_layers_have_no_gradients_and_no_state() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18", num_classes=5)
    freeze_layers(model, 3)
    trained = num_bytes(p for p in model.parameters() if p.requires_grad)
    cost = memory_cost(model, settings(optimizer="momentum"), activations=0, devices=1)
    assert cost["gradients"] == cost["optimizer"] == trained < num_bytes(model.parameters())


def test_a_models_own_tensors_do_not_count() -> None:
    layer, images = nn.Linear(4, 4), torch.rand(2, 4, requires_grad=True)
    everything, activations = SavedTensors([]), SavedTensors(layer.parameters())
    with everything:
        first = layer(images)
    with activations:
        second = layer(images)
    assert everything.live == 2 * 4 * 4 + 4 * 4 * 4
    assert activations.live == 2 * 4 * 4
    del first, second
    assert (everything.live, activations.live) == (0, 0)
