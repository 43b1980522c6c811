"""Attacks with the weights of an earlier step."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import same_tensors, seeded, tiny_branched_net, tiny_images, tiny_labels
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from advprop.attacks.pgd import PGD
from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.modes import attack_mode
from advprop.config.overrides import apply_overrides
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Context
from advprop.methods.stale import StaleAdvProp
from advprop.recipes import RECIPES
from advprop.shapes import Batch
from advprop.threat_models import Linf

ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=2, step_size=6 / 255)


class Remembered:
    """The attack, its images kept."""

    passes_per_image = ATTACK.passes_per_image

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def __call__(self, *args: object, **kwargs: object) -> Tensor:
        self.images.append(ATTACK(*args, **kwargs))
        return self.images[-1]


def train(method: AdvProp, model: nn.Module, steps: range) -> list[nn.Module]:
    """`model` before the first step, then after each step's passes, its weights not yet moved."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    seen = [copy.deepcopy(model)]
    for step in steps:
        optimizer.zero_grad()
        context = Context(step=step, generator=seeded(step))
        method.forward_backward(model.train(), tiny_images(seed=step), tiny_labels(), context)
        seen.append(copy.deepcopy(model))
        optimizer.step()
    return seen


@pytest.mark.parametrize(("stale_steps", "used"), [(1, [0, 1, 2, 3, 4]), (2, [0, 1, 1, 3, 3])])
def test_the_attack_uses_the_weights_of_an_earlier_step(stale_steps: int, used: list[int]) -> None:
    attack = Remembered()
    method = StaleAdvProp(attack=attack, stale_steps=stale_steps)
    seen = train(method, tiny_branched_net(), range(5))
    for step, origin in enumerate(used):
        with use_branch(seen[origin], "adversarial"), attack_mode(seen[origin]):
            expected = ATTACK(
                seen[origin], tiny_images(seed=step), tiny_labels(), generator=seeded(step)
            )
        assert torch.equal(attack.images[step], expected)
    assert method.passes_per_image == AdvProp(attack=ATTACK).passes_per_image


class Checkpointed(nn.Module):
    """Runs its layers again in each backward pass."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = checkpoint(self.body, images, use_reentrant=False)
        return logits


def test_layers_that_run_again_in_the_attack_have_the_old_weights_too() -> None:
    plain, again = Remembered(), Remembered()
    models = tiny_branched_net(), Checkpointed(tiny_branched_net())
    for attack, model in zip((plain, again), models, strict=True):
        train(StaleAdvProp(attack=attack), model, range(4))
    assert all(torch.equal(*images) for images in zip(plain.images, again.images, strict=True))
    assert same_tensors(models[0].state_dict(), models[1].body.state_dict())


def test_the_present_weights_are_back_when_an_attack_fails() -> None:
    method, model = StaleAdvProp(attack=ATTACK), tiny_branched_net()
    train(method, model, range(2))
    present = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="attacks work in"), use_branch(model, "adversarial"):
        method.attacked(model, Batch(images=2 + tiny_images(), labels=tiny_labels()), Context())
    assert same_tensors(model.state_dict(), present)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_attacks_the_same_old_weights(stop: int) -> None:
    def new() -> StaleAdvProp:
        return StaleAdvProp(attack=ATTACK, stale_steps=2)

    whole = tiny_branched_net()
    train(new(), whole, range(5))
    method, resumed = new(), tiny_branched_net()
    train(method, resumed, range(stop))
    state = method.state_dict()
    method = new()
    method.load_state_dict(state)
    train(method, resumed, range(stop, 5))
    assert same_tensors(whole.state_dict(), resumed.state_dict())
    forgetful = tiny_branched_net()
    train(new(), forgetful, range(stop))
    train(new(), forgetful, range(stop, 5))
    assert not same_tensors(whole.state_dict(), forgetful.state_dict())


def test_a_setting_of_advprop_chooses_it() -> None:
    recipe = RECIPES["mnist5k"].build()
    stale = apply_overrides(recipe, ["method.stale_steps=3"]).method.build()
    assert stale == StaleAdvProp(**vars(recipe.method.build()), stale_steps=3)
    assert type(recipe.method.build()) is AdvProp
    with pytest.raises(ValueError, match="stale_steps -1: give at least 1"):
        apply_overrides(recipe, ["method.stale_steps=-1"])
    with pytest.raises(ValueError, match=r"stale_steps 2 and attack.until model.stages.0"):
        apply_overrides(recipe, ["method.stale_steps=2", "method.attack.until=model.stages.0"])
    with pytest.raises(ValueError, match="no weights to attack"):
        stale.load_state_dict({"weights": "none"})


def test_fresh_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="stale_steps 0: give at least 1, or use AdvProp"):
        StaleAdvProp(attack=ATTACK, stale_steps=0)
