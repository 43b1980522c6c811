"""Attacks that save passes: what they save, and that they still attack."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
import torch
from tiny import seeded, tiny_branched_net, tiny_images, tiny_labels, tiny_net
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.attacks.first_layers import FirstLayers
from advprop.attacks.pgd import PGD, Attack
from advprop.attacks.reduced import ReducedResolution
from advprop.attacks.schedule import GrowingSteps, mean_passes
from advprop.attacks.targets import untargeted
from advprop.config.overrides import apply_overrides
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Context
from advprop.recipes import RECIPES
from advprop.shapes import Batch
from advprop.threat_models import L2, Linf

FULL = PGD(threat_model=Linf(8 / 255), num_steps=3, step_size=3 / 255, targets=untargeted)


class Seen(nn.Module):
    """Counts the passes, and the pixels of each."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.pixels = model, []

    def forward(self, images: Tensor) -> Tensor:
        self.pixels.append(images.shape[2:].numel())
        return self.model(images)


# --- fewer steps early


@pytest.mark.parametrize(("first", "last"), [(1, 5), (0, 2), (3, 3)])
def test_steps_grow_from_first_to_last_in_equal_shares(first: int, last: int) -> None:
    attack = GrowingSteps(attack=replace(FULL, num_steps=last), first_steps=first)
    steps = [attack.at(step / 600).num_steps for step in range(600)]
    assert steps == sorted(steps)
    shares = [steps.count(number) for number in range(first, last + 1)]
    assert shares == [600 // len(shares)] * len(shares)
    assert attack.passes_per_image == fmean(steps)
    assert attack.at(1.0) == attack.attack


def test_a_part_of_training_has_the_steps_of_that_part() -> None:
    growing = GrowingSteps(attack=replace(FULL, num_steps=4), first_steps=0)
    assert mean_passes(growing, until=1.0) == growing.passes_per_image == 2
    assert mean_passes(growing, until=0.2) == 0
    # 0, 1 and half as often 2 steps
    assert mean_passes(growing, until=0.5) == (0 + 1 + 2 / 2) / 2.5
    assert mean_passes(FULL, until=0.5) == FULL.passes_per_image
    method = AdversarialThenClean(attack=growing, adversarial_share=0.5)
    assert method.passes_per_image == 1 + 0.5 * 0.8


def test_more_steps_at_first_than_at_last_are_refused() -> None:
    with pytest.raises(ValueError, match="first_steps 4: give 0 to num_steps, 3"):
        GrowingSteps(attack=FULL, first_steps=4)


# --- fewer pixels


@pytest.mark.parametrize(("resolution", "pixels"), [(0.5, 16), (0.75, 36), (0.1, 1), (1.0, 64)])
def test_steps_run_on_fewer_pixels(resolution: float, pixels: int) -> None:
    model = Seen(tiny_net().eval())
    attack = ReducedResolution(attack=FULL, resolution=resolution)
    attack(model, tiny_images(), tiny_labels(), generator=seeded())
    assert model.pixels == [pixels] * 3
    assert attack.passes_per_image == 3 * resolution**2


@pytest.mark.parametrize("resolution", [0.5, 0.75])
@pytest.mark.parametrize("ball", [Linf(0.1), L2(1.5)], ids=str)
def test_enlarged_perturbations_stay_inside_and_are_adversarial(
    ball: Linf | L2, resolution: float
) -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    whole = replace(FULL, threat_model=ball, step_size=ball.epsilon / 2)
    attack = ReducedResolution(attack=whole, resolution=resolution)
    adversarial = attack(model, images, labels, generator=seeded())
    assert 0 <= adversarial.amin() <= adversarial.amax() <= 1
    perturbation = adversarial - images
    torch.testing.assert_close(ball.project(perturbation), perturbation)
    noise = replace(whole, num_steps=0)(model, images, labels, generator=seeded())
    loss, by_noise, by_attack = (
        F.cross_entropy(model(found), labels).item() for found in (images, noise, adversarial)
    )
    assert by_attack - loss > 4 * abs(by_noise - loss)


def test_half_resolution_has_the_same_perturbation_in_squares_of_four() -> None:
    images = tiny_images(margin=0.1)
    attack = ReducedResolution(attack=FULL, resolution=0.5)
    perturbation = attack(tiny_net().eval(), images, tiny_labels(), generator=seeded()) - images
    for row, column in ((0, 1), (1, 0), (1, 1)):
        torch.testing.assert_close(
            perturbation[..., row::2, column::2], perturbation[..., ::2, ::2]
        )


def test_full_resolution_is_the_attack_itself() -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    reduced = ReducedResolution(attack=FULL, resolution=1.0)
    assert torch.equal(
        reduced(model, images, labels, generator=seeded()),
        FULL(model, images, labels, generator=seeded()),
    )


@pytest.mark.parametrize("resolution", [0.0, -1.0, 1.5])
def test_impossible_resolutions_are_refused(resolution: float) -> None:
    with pytest.raises(ValueError, match=rf"resolution {resolution}: give one above 0"):
        ReducedResolution(attack=FULL, resolution=resolution)


@pytest.mark.parametrize(
    "attack",
    [
        ReducedResolution(attack=FULL, resolution=0.5),
        GrowingSteps(attack=FULL, first_steps=1),
    ],
)
def test_they_are_attacks(attack: Attack) -> None:
    assert isinstance(attack, Attack)
    images = tiny_images()
    found = attack(tiny_net().eval(), images, tiny_labels(), generator=seeded())
    assert not found.requires_grad
    assert torch.equal(images, tiny_images())


# --- first layers alone


def counted_convolutions(model: nn.Sequential) -> list[int]:
    """How often each of the two convolutions runs."""
    counts = [0, 0]
    for place, layer in enumerate((model[0], model[3])):

        def count(*_: object, place: int = place) -> None:
            counts[place] += 1

        layer.register_forward_hook(count)
    return counts


def test_inner_steps_run_the_first_layers_only() -> None:
    model = tiny_net().eval()
    counts = counted_convolutions(model)
    attack = FirstLayers(attack=FULL, until="2", inner_steps=4)
    attack(model, tiny_images(), tiny_labels(), generator=seeded())
    assert counts == [3 * (1 + 4), 3]
    assert attack.passes_per_image == 3
    assert not model[2]._forward_hooks


def test_inner_steps_follow_the_gradient_above_the_first_layers() -> None:
    """Written out: a net in two parts, the upper one's gradient kept for the inner step."""
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    first, rest = model[:3], model[3:]
    ball = Linf(0.2)
    whole = replace(FULL, threat_model=ball, num_steps=1, step_size=0.1, random_start_probability=0)
    found = FirstLayers(attack=whole, until="2", inner_steps=1)(model, images, labels)
    point = images.clone().requires_grad_()
    middle = first(point)
    (above,) = torch.autograd.grad(
        F.cross_entropy(rest(middle), labels, reduction="sum"), middle, retain_graph=True
    )
    (gradient,) = torch.autograd.grad(middle, point, above)
    moved = (images + 0.1 * gradient.sign()).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(first(moved), moved, above)
    step = (moved.detach() + 0.1 * gradient.sign() - images).clamp(-0.2, 0.2)
    torch.testing.assert_close(found, (images + step).clamp(0, 1))
    assert not torch.equal(found, replace(whole, num_steps=2)(model, images, labels))


def test_without_inner_steps_it_is_the_attack_itself() -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    attack = FirstLayers(attack=FULL, until="2", inner_steps=0)
    assert torch.equal(
        attack(model, images, labels, generator=seeded()),
        FULL(model, images, labels, generator=seeded()),
    )


def test_layers_that_are_not_there_are_refused() -> None:
    images, labels = tiny_images(), tiny_labels()
    with pytest.raises(ValueError, match='until="stem": the model has 0, 1, 2'):
        FirstLayers(attack=FULL, until="stem")(tiny_net(), images, labels)
    with pytest.raises(ValueError, match="only a module has first layers"):
        FirstLayers(attack=FULL, until="2")(lambda images: images.flatten(1), images, labels)
    with pytest.raises(ValueError, match="inner_steps -1: give at least 0"):
        FirstLayers(attack=FULL, until="2", inner_steps=-1)


# --- in training


@pytest.mark.parametrize(("progress", "steps"), [(0.0, 1), (0.5, 2), (0.99, 3)])
def test_methods_attack_as_training_has_come(progress: float, steps: int) -> None:
    model = Seen(tiny_branched_net().train())
    growing = GrowingSteps(attack=FULL, first_steps=1)
    method = AdvProp(attack=ReducedResolution(attack=growing, resolution=0.5))
    batch = Batch(images=tiny_images(), labels=tiny_labels())
    method.forward_backward(model, batch, Context(progress=progress, generator=seeded()))
    assert model.pixels == [16] * steps + [64, 64]
    assert method.passes_per_image == 2 / 4 + 2


def test_settings_name_them() -> None:
    recipe = RECIPES["mnist5k"].build()
    assert recipe.method.build().attack == recipe.method.attack.build()
    settings = ["method.attack.first_steps=1", "method.attack.resolution=0.5"]
    attack = apply_overrides(recipe, settings).method.build().attack
    whole = recipe.method.attack.build()
    growing = GrowingSteps(attack=whole, first_steps=1)
    assert attack == ReducedResolution(attack=growing, resolution=0.5)
    with pytest.raises(ValueError, match="first_steps 9: give 0 to num_steps, 3"):
        apply_overrides(recipe, ["method.attack.first_steps=9"])
    settings = ["method.attack.inner_steps=2", "method.attack.until=model.stages.0"]
    attack = apply_overrides(recipe, settings).method.build().attack
    assert attack == FirstLayers(attack=whole, until="model.stages.0", inner_steps=2)
    with pytest.raises(ValueError, match="inner_steps 2 without until: name the last"):
        apply_overrides(recipe, settings[:1])
    with pytest.raises(ValueError, match="go with neither first_steps nor resolution"):
        apply_overrides(recipe, [*settings, "method.attack.resolution=0.5"])
