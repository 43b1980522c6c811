"""Fewer attack steps early in training."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
import torch
from tiny import seeded, tiny_branched_net, tiny_images, tiny_labels, tiny_net
from torch import Tensor

from advprop.attacks.attack import Attack
from advprop.attacks.objectives import untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.schedule import GrowingSteps, mean_passes
from advprop.attacks.threat_models import Linf
from advprop.config.overrides import apply_overrides
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.step import Context
from advprop.recipes import RECIPES
from advprop.shapes import Batch

FULL = PGD(threat_model=Linf(8 / 255), num_steps=3, step_size=3 / 255, targets=untargeted)


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


@pytest.mark.parametrize(("progress", "steps"), [(0.0, 1), (0.5, 2), (0.99, 3)])
def test_methods_attack_as_training_has_come(progress: float, steps: int) -> None:
    model = tiny_branched_net().train()
    passes: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0]))
    method = AdvProp(attack=GrowingSteps(attack=FULL, first_steps=1))
    batch = Batch(images=tiny_images(), labels=tiny_labels())
    method.forward_backward(model, batch, Context(progress=progress, generator=seeded()))
    assert len(passes) == steps + 2
    assert method.passes_per_image == 2 + 2


def test_it_is_an_attack_by_itself() -> None:
    attack, images = GrowingSteps(attack=FULL, first_steps=1), tiny_images()
    assert isinstance(attack, Attack)
    found = attack(tiny_net().eval(), images, tiny_labels(), generator=seeded())
    assert torch.equal(found, FULL(tiny_net().eval(), images, tiny_labels(), generator=seeded()))
    assert not found.requires_grad
    assert torch.equal(images, tiny_images())


def test_a_setting_names_it() -> None:
    recipe = RECIPES["mnist5k"].build()
    whole = recipe.method.attack.build()
    assert recipe.method.build().attack == whole
    attack = apply_overrides(recipe, ["method.attack.first_steps=1"]).method.build().attack
    assert attack == GrowingSteps(attack=whole, first_steps=1)
    with pytest.raises(ValueError, match="first_steps 9: give 0 to num_steps, 3"):
        apply_overrides(recipe, ["method.attack.first_steps=9"])
