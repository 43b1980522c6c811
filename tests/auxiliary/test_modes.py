"""The state of a model under attack: set inside, restored outside."""

import pytest
import torch
from branch_nets import branched, buffers, layers_of, output, same, small_net, some_images
from timm.layers import DropPath
from tiny import modes
from torch import nn

from advprop.auxiliary.branches import attack_mode, use_branch


class StoppedError(Exception):
    """Raised inside the block under test."""


def attack_that_fails(model: nn.Module) -> None:
    model(some_images())
    raise StoppedError


def mixed_flags_net() -> nn.Module:
    """In train mode, but with a layer in eval mode and a frozen one."""
    model = branched(small_net(dropout=0.5)).train()
    model[4].eval()
    model[3].requires_grad_(False)
    return model


def test_every_flag_is_restored() -> None:
    model = mixed_flags_net()
    before = modes(model)
    with attack_mode(model):
        assert modes(model) != before
    assert modes(model) == before
    with pytest.raises(StoppedError), attack_mode(model):
        attack_that_fails(model)
    assert modes(model) == before


def test_modes_nest() -> None:
    model = mixed_flags_net()
    with attack_mode(model, layers_only=True):
        outer = modes(model)
        with attack_mode(model):
            assert not any(layer.training for layer in model.modules())
        assert modes(model) == outer
        assert model.training


def test_parameters_are_frozen_and_images_are_not() -> None:
    model = mixed_flags_net()
    images = some_images().requires_grad_()
    with attack_mode(model), use_branch(model, "adversarial"):
        assert not any(parameter.requires_grad for parameter in model.parameters())
        model(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("branch", ["clean", "adversarial", ("clean", "adversarial")])
def test_running_statistics_are_what_a_trained_model_answers_with(branch: str | tuple) -> None:
    model = branched(small_net()).train()
    expected = output(model.eval(), branch, some_images())
    model.train()
    with attack_mode(model):
        assert torch.equal(output(model, branch, some_images()), expected)
    assert not torch.equal(output(model, branch, some_images()), expected)


def test_statistics_stay_as_they_are() -> None:
    model = branched(small_net()).train()
    before = buffers(model)
    tensors = [id(buffer) for buffer in model.buffers()]
    for branch in ("adversarial", "clean"):
        with attack_mode(model), use_branch(model, branch):
            model(some_images())
            model(some_images(seed=2))
    assert same(buffers(model), before)
    assert [id(buffer) for buffer in model.buffers()] == tensors


def test_statistics_stay_as_they_are_after_an_exception() -> None:
    model = branched(small_net()).train()
    before = buffers(model)
    with pytest.raises(StoppedError), attack_mode(model):
        attack_that_fails(model)
    assert same(buffers(model), before)
    model(some_images())
    assert not same(buffers(model), before)


def test_nothing_random_is_left() -> None:
    model = small_net(dropout=0.5).insert(3, DropPath(0.5))
    model = branched(model).train()
    assert not torch.equal(model(some_images()), model(some_images()))
    with attack_mode(model):
        assert torch.equal(model(some_images()), model(some_images()))


def test_a_model_without_branches_can_be_attacked_too() -> None:
    model = small_net(dropout=0.5).train()
    before, kept = modes(model), buffers(model)
    with attack_mode(model):
        assert torch.equal(model(some_images()), model(some_images()))
    assert modes(model) == before
    assert same(buffers(model), kept)


def test_modules_are_looked_at_once_and_not_assigned_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module's `__setattr__`, and `modules`, `eval` and `parameters` of torch, take longer."""
    model = mixed_flags_net()
    asked = []
    for name in ("__setattr__", "named_modules", "named_parameters", "eval"):
        monkeypatch.setattr(nn.Module, name, lambda *_, name=name, **__: asked.append(name))
    with attack_mode(model):
        pass
    assert asked == []


class Cached(nn.Module):
    """Keeps what it made of its weight until it is told of a mode, as LeViT's attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.kept: torch.Tensor | None = None

    def train(self, mode: bool = True) -> "Cached":
        self.kept = None
        return super().train(mode)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training and self.kept is None:
            self.kept = self.weight.clone()
        return images + (self.weight if self.training else self.kept)


def test_a_module_that_keeps_what_depends_on_its_mode_is_told() -> None:
    model = nn.Sequential(Cached()).train()
    for step in range(2):
        with torch.no_grad(), attack_mode(model):
            assert model(torch.ones(1)) == 1 + step
        model[0].weight.data += 1


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")
def test_scripted_modules_are_attacked_too() -> None:
    model = nn.Sequential(torch.jit.script(nn.Dropout(0.5))).train()
    with attack_mode(model):
        assert torch.equal(model(torch.ones(99)), torch.ones(99))
    assert model[0].training
    assert not torch.equal(model(torch.ones(99)), torch.ones(99))


def test_the_branch_is_left_alone() -> None:
    model = branched(small_net())
    with use_branch(model, "adversarial"), attack_mode(model):
        assert torch.equal(
            model[4](torch.ones(2, 8, 3, 3)),
            layers_of(model, "adversarial")[1](torch.ones(2, 8, 3, 3)),
        )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_added_layers_are_in_the_models_mode(training: bool) -> None:
    model = branched(small_net().train(training))
    assert {layer.training for layer in model.modules()} == {training}
