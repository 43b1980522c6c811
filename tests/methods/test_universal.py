"""One perturbation for all images: how it moves, what it remembers, where it ends."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from case import Case
from tiny import (
    NUM_CLASSES,
    branches_of,
    gradients,
    same_tensors,
    seeded,
    still,
    tiny_branched_net,
    tiny_images,
    tiny_labels,
    tiny_net,
    tiny_vit,
)
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.attacks.objectives import untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.pyramid import PyramidPGD
from advprop.attacks.threat_models import Linf
from advprop.config.overrides import apply_overrides
from advprop.methods.step import Context
from advprop.methods.universal import Universal
from advprop.recipes.builtin import mnist5k

UNIVERSAL = Universal(
    epsilon=1 / 255,
    step_size=0.5 / 255,
    scales=(4, 3, 1),
    multipliers=(4.0, 2.0, 1.0),
    random_start=True,
)
CASES = {
    # its start is the same for all processes, and layers count clean and adversarial images
    "universal": Case(method=UNIVERSAL, draws=False, statistics={"clean": 2}, forwards=2),
    "universal branch": Case(
        method=dataclasses.replace(UNIVERSAL, auxiliary_branch=True, form="summed"),
        draws=False,
        forwards=2,
        distributed=True,
    ),
}

SETTINGS: dict[str, Any] = {"epsilon": 0.02, "step_size": 0.008}
PIXELS: dict[str, Any] = {"scales": (1,), "multipliers": (1.0,)}


def step(method: Universal, model: nn.Module, seed: int = 1, **context: Any) -> None:
    images, labels = tiny_images(seed=seed, margin=0.3), tiny_labels(seed=seed + 1)
    method.forward_backward(model, images, labels, Context(generator=seeded(), **context))


def shown(method: Universal, size: int = 8) -> Tensor:
    """What the perturbation adds to an image, pixel by pixel and written out."""
    total = torch.zeros(1, 3, size, size)
    scales = method.scales or (1,)
    for edge, multiplier in zip(scales, method.multipliers[-len(scales) :], strict=True):
        rows = torch.arange(size) // edge
        total += multiplier * method.memory[edge][:, :, rows[:, None], rows[None, :]]
    return total


class Seen(nn.Module):
    """Remembers what went through it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.images = net, []

    def forward(self, images: Tensor) -> Tensor:
        self.images.append(images.detach().clone())
        return self.net(images)


# --- how it moves


def test_one_step_is_the_sign_of_the_batchs_gradient() -> None:
    """By autograd, patch by patch, from the loss of the whole batch as a function of the grids."""
    method = Universal(**SETTINGS, scales=(4, 3, 1))
    step(method, tiny_vit())
    images, labels = tiny_images(seed=1, margin=0.3), tiny_labels(seed=2)
    for size, grid in method.memory.items():
        leaf = torch.zeros_like(grid).requires_grad_()
        rows = torch.arange(8) // size
        loss = F.cross_entropy(
            tiny_vit()(images + leaf[:, :, rows[:, None], rows[None, :]]), labels
        )
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert gradient.abs().min() > 1e-7
        assert torch.equal(grid, 0.008 * gradient.sign())


def test_the_first_step_learns_from_clean_images_and_the_second_from_moved_ones() -> None:
    method, model = Universal(**SETTINGS, scales=(4, 3, 1)), Seen(tiny_vit())
    step(method, model)
    step(method, model, seed=5)
    first, second = tiny_images(seed=1, margin=0.3), tiny_images(seed=5, margin=0.3)
    expected = dataclasses.replace(method)
    step(expected, tiny_vit())
    for found, images in zip(model.images[:3], (first, first, second), strict=True):
        assert torch.equal(found, images)
    torch.testing.assert_close(model.images[3], second + shown(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{"scales": (4, 3, 1)}, PIXELS], ids=["pyramid", "pixels"])
def test_it_stays_in_its_balls_and_images_in_the_box(settings: dict[str, Any]) -> None:
    method = Universal(**SETTINGS, **settings)
    model = Seen(tiny_vit())
    for seed in range(6):
        images = tiny_images(seed=seed)
        method.forward_backward(model, images, tiny_labels(seed=seed))
        assert model.images[-1].min() >= 0
        assert model.images[-1].max() <= 1
        reach = 0.02 * sum(method.multipliers)
        assert (model.images[-1] - images).abs().max() <= reach + 1e-6
    for grid in method.memory.values():
        assert 0.015 < grid.abs().max() <= 0.02


def test_for_one_image_and_still_weights_it_is_pgd_over_the_steps() -> None:
    net, image, labels = still(tiny_vit()), tiny_images(1, margin=0.3), tiny_labels(1)
    method = Universal(**SETTINGS, **PIXELS)
    for _ in range(4):
        method.forward_backward(net, image, labels)
    attack = PGD(
        threat_model=Linf(0.02),
        num_steps=4,
        step_size=0.008,
        random_start_probability=0.0,
        targets=untargeted,
    )
    torch.testing.assert_close(image + shown(method), attack(net, image, labels))


def test_it_raises_the_loss_of_images_it_never_saw() -> None:
    net, labels = still(tiny_net()), torch.full((8,), 3)
    method = Universal(epsilon=0.1, step_size=0.02, **PIXELS)
    for seed in range(10):
        method.forward_backward(net, tiny_images(seed=seed), labels)
    images = tiny_images(seed=99, margin=0.2)

    def loss(sign: float) -> Tensor:
        return F.cross_entropy(net(images + sign * shown(method)), labels)

    assert loss(1.0) > loss(0.0) > loss(-1.0)


def test_each_part_of_a_divided_batch_is_a_step() -> None:
    method = Universal(**SETTINGS, **PIXELS)
    for part in (slice(0, 4), slice(4, 8)):
        backward = {"backward": lambda loss: (loss / 2).backward()}
        method.forward_backward(
            tiny_vit(), tiny_images()[part], tiny_labels()[part], Context(**backward)
        )
    sizes = {round(value, 3) for value in method.memory[1].abs().unique().tolist()}
    assert sizes == {0.0, 0.016}  # both times the same way, or there and back


def test_scaled_losses_move_it_alike() -> None:
    plain, scaled = Universal(**SETTINGS), Universal(**SETTINGS)
    step(plain, tiny_vit())
    step(scaled, tiny_vit(), backward=lambda loss: (1024 * loss).backward())
    assert torch.equal(plain.memory[1], scaled.memory[1])


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    method = Universal(**SETTINGS)
    step(method, tiny_vit(), backward=lambda loss: (torch.nan * loss).backward())
    assert method.memory[1].count_nonzero() == 0


def test_half_precision_images() -> None:
    method = Universal(**SETTINGS, scales=(4, 3, 1))
    images = tiny_images().half().to(memory_format=torch.channels_last)
    model = Seen(tiny_net().half())
    for _ in range(2):
        method.forward_backward(model, images, tiny_labels())
    assert model.images[-1].dtype == torch.float16
    assert model.images[-1].is_contiguous(memory_format=torch.channels_last)
    assert all(grid.dtype == torch.float32 for grid in method.memory.values())


def test_mixed_labels() -> None:
    one_hot = F.one_hot(tiny_labels(), NUM_CLASSES).float()
    method = Universal(**SETTINGS)
    for _ in range(2):
        mixed = 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)
        assert method.forward_backward(tiny_vit(), tiny_images(), mixed).loss.isfinite()
    assert method.memory[1].abs().max() == pytest.approx(0.016)


def test_a_branch_of_its_own_sees_moved_images_alone() -> None:
    method, model = Universal(**SETTINGS, auxiliary_branch=True), tiny_branched_net().train()
    assert method.auxiliary == ("adversarial",)
    step(method, model)
    before = [layer.running_mean.clone() for layer in branches_of(model, "clean")]
    step(method, model, seed=5)
    alone = tiny_net().train()
    alone(tiny_images(seed=1, margin=0.3))
    alone(tiny_images(seed=5, margin=0.3))
    norms = [layer for layer in alone.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer, other, old in zip(branches_of(model, "clean"), norms, before, strict=True):
        assert torch.equal(layer.running_mean, other.running_mean)
        assert not torch.equal(layer.running_mean, old)
    adversarial = branches_of(model, "adversarial")[0]
    assert not torch.equal(adversarial.running_mean, norms[0].running_mean)


# --- what it remembers


def test_a_start_is_a_function_of_its_seed() -> None:
    def start(seed: int, images_seed: int) -> Tensor:
        method = Universal(
            epsilon=0.02, step_size=0.0, random_start=True, start_seed=seed, **PIXELS
        )
        step(method, tiny_vit(), seed=images_seed)
        return method.memory[1]

    assert torch.equal(start(0, 1), start(0, 7))
    assert not torch.equal(start(0, 1), start(1, 1))
    assert 0.015 < start(0, 1).abs().max() <= 0.02


def test_resumed_it_goes_on_where_it_was() -> None:
    whole = Universal(**SETTINGS, scales=(4, 3, 1))
    cut = copy.deepcopy(whole)
    assert whole.state_dict() == {}
    found = []
    for method in (whole, cut):
        model = tiny_vit()
        step(method, model)
        if method is cut:
            resumed = dataclasses.replace(cut)
            resumed.load_state_dict(cut.state_dict())
            method = resumed
        model.zero_grad()
        step(method, model, seed=5)
        found.append((gradients(model), method.memory))
    assert same_tensors(found[0][0], found[1][0])
    assert found[0][1].keys() == found[1][1].keys() == {4, 3, 1}
    for size, grid in found[0][1].items():
        assert torch.equal(grid, found[1][1][size])


def test_a_saved_state_does_not_move_with_the_method() -> None:
    method = Universal(**SETTINGS)
    step(method, tiny_vit())
    state = method.state_dict()
    saved = state["perturbation"][1].clone()
    step(method, tiny_vit(), seed=5)
    assert torch.equal(state["perturbation"][1], saved)
    method.load_state_dict({})  # that of a run before its first step
    assert method.state_dict() == {}


def test_memory_is_no_setting() -> None:
    method, other = Universal(**SETTINGS), Universal(**SETTINGS)
    step(method, tiny_vit())
    assert method == other
    assert hash(method) == hash(other)
    assert "memory" not in repr(method)
    assert not dataclasses.replace(method).memory
    with pytest.raises(TypeError, match="memory"):
        Universal(**SETTINGS, memory={})


# --- what is refused


@pytest.mark.parametrize(
    "state",
    [
        {"other": 1},
        {"perturbation": [1]},
        {"perturbation": {"1": torch.zeros(1)}},
        {"perturbation": {1: 0.0}},
        {"perturbation": {1: torch.full((1, 3, 8, 8), torch.nan)}},
    ],
    ids=str,
)
def test_states_of_another_kind(state: dict[str, Any]) -> None:
    method = Universal(**SETTINGS)
    step(method, tiny_vit())
    before = method.memory[1]
    with pytest.raises(ValueError, match="no state of a universal perturbation: it has"):
        method.load_state_dict(state)
    assert method.memory[1] is before


def test_images_of_another_size() -> None:
    method = Universal(**SETTINGS, scales=(4, 3, 1))
    step(method, tiny_net())
    with pytest.raises(ValueError, match=r"4: \(3, 2, 2\).*need \{4: \(3, 3, 3\).*one size"):
        method.forward_backward(tiny_net(), torch.rand(4, 3, 12, 12), tiny_labels(4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 2.0}, "did you mean 2/255"),
        ({"step_size": -1.0}, "step_size -1.0"),
        ({"scales": (4, 1)}, "give one for each"),
        ({"clean_weight": -1.0}, "at least 0 each"),
        ({"form": "joint"}, "form='joint'"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Universal(**{**SETTINGS, **settings})


def test_standardised_images_are_refused_before_anything_moves() -> None:
    method = Universal(**SETTINGS)
    with pytest.raises(ValueError, match=r"attacks work in \[0, 1\]"):
        method.forward_backward(tiny_vit(), 2 * tiny_images() - 1, tiny_labels())
    assert not method.memory


# --- from the command line


def test_a_recipes_ball_is_shared_out() -> None:
    method = mnist5k().with_method("universal").method.build()
    assert isinstance(method, Universal)
    assert method.epsilon == pytest.approx(0.2 / 31)
    assert method.step_size == pytest.approx(0.2 / 31 / 5)
    assert method.multipliers == PyramidPGD().multipliers
    config = apply_overrides(
        mnist5k().with_method("universal"),
        ["method.scales=1", "method.multipliers=1", "method.epsilon=0.2", "method.start_seed=3"],
    )
    pixels = config.method.build()
    assert (pixels.scales, pixels.multipliers) == ((1,), (1.0,))
    assert (pixels.epsilon, pixels.start_seed) == (0.2, 3)
