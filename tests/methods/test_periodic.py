"""Attacks in every n-th step, and in the others what images carry from the last one."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from tiny import IMAGE_SHAPE, same_tensors, tiny_branched_net, tiny_images, tiny_labels
from torch import Tensor, nn

from advprop.attacks.pgd import PGD
from advprop.config.overrides import apply_overrides
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Context, StepMetrics, TrainingFacts
from advprop.methods.periodic import PeriodicAdvProp
from advprop.methods.warping import kept_of
from advprop.randomness import ImageStreams
from advprop.recipes import RECIPES
from advprop.shapes import Batch
from advprop.threat_models import L2, Linf, ThreatModel

EPSILON = 8 / 255
MODEL = Linf(EPSILON)
FACTS = TrainingFacts(num_images=8, image_shape=IMAGE_SHAPE)


class Counted:
    """An attack that keeps the images it gave."""

    def __init__(self, threat_model: ThreatModel = MODEL) -> None:
        self.attack = PGD(threat_model=threat_model, num_steps=2, step_size=6 / 255)
        self.images: list[Tensor] = []

    @property
    def passes_per_image(self) -> float:
        return self.attack.passes_per_image

    def __call__(self, *args: object, **kwargs: object) -> Tensor:
        self.images.append(self.attack(*args, **kwargs))
        return self.images[-1]


def periodic(attack: Counted, threat_model: ThreatModel = MODEL, every: int = 2) -> PeriodicAdvProp:
    method = PeriodicAdvProp(attack=attack, threat_model=threat_model, attack_every=every)
    method.prepare(FACTS)
    return method


def step(
    method: AdvProp, model: nn.Module, number: int, frames: Tensor | None = None
) -> StepMetrics:
    """The whole data set in one batch, so that each step is an epoch."""
    batch = Batch(
        images=tiny_images(), labels=tiny_labels(), indices=torch.arange(8), frames=frames
    )
    streams = ImageStreams.for_batch(0, number, batch.indices)
    context = Context(step=number, epoch=number, generator=streams)
    return method.forward_backward(model, batch, context)


def train(method: AdvProp, model: nn.Module, steps: range) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number in steps:
        optimizer.zero_grad()
        step(method, model.train(), number)
        optimizer.step()


def shown_in(method: PeriodicAdvProp, number: int, frames: Tensor | None = None) -> Tensor:
    """The adversarial images of one step."""
    seen: list[Tensor] = []
    model = tiny_branched_net().train()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    step(method, model, number, frames)
    return seen[-1]


def test_an_attack_in_every_step_is_advprop() -> None:
    one, other = tiny_branched_net(), tiny_branched_net()
    train(AdvProp(attack=Counted()), one, range(4))
    train(periodic(Counted(), every=1), other, range(4))
    assert same_tensors(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("threat_model", [MODEL, L2(1.0)], ids=str)
def test_between_attacks_images_show_what_the_last_one_found(threat_model: ThreatModel) -> None:
    attack = Counted(threat_model)
    method = periodic(attack, threat_model, every=3)
    images = [shown_in(method, number) for number in range(5)]
    assert len(attack.images) == 2  # in the steps 0 and 3
    assert method.passes_per_image == 2 + 2 / 3
    for number, source in enumerate([0, 0, 0, 1, 1]):
        kept_to = 0 if number in (0, 3) else EPSILON / 127
        assert (images[number] - attack.images[source]).abs().max() <= kept_to
    assert not torch.equal(attack.images[0], attack.images[1])


def test_what_was_never_attacked_is_under_noise() -> None:
    attack = Counted()
    images = shown_in(periodic(attack), 1)
    change = (images - tiny_images()).abs()
    assert not attack.images
    assert 0.3 * EPSILON < change.mean() < 0.6 * EPSILON
    assert change.max() <= EPSILON + 1e-6


def test_a_flipped_view_shows_the_perturbation_flipped() -> None:
    attack = Counted()
    method = periodic(attack)
    flip = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]).expand(8, -1, -1)
    shown_in(method, 0, flip)
    found = (attack.images[0] - tiny_images()).flip(3)
    expected = (tiny_images() + found).clamp(0, 1)
    torch.testing.assert_close(shown_in(method, 1), expected, rtol=0, atol=EPSILON / 100)


def test_what_a_view_left_out_is_as_it_was() -> None:
    before, new = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    upper_left = torch.tensor([[0.5, 0.0, -0.5], [0.0, 0.5, -0.5]])
    upper_right_flipped = torch.tensor([[-0.5, 0.0, 0.5], [0.0, 0.5, -0.5]])
    frames = torch.stack([upper_left, upper_right_flipped])
    kept = kept_of(new, before, frames)
    expected = torch.zeros(2, 1, 8, 8)
    expected[0, :, :4, :4] = 1
    expected[1, :, :4, 4:] = 1
    assert torch.equal(kept, expected)


def test_it_goes_on_from_a_checkpoint() -> None:
    whole, resumed = tiny_branched_net(), tiny_branched_net()
    train(periodic(Counted()), whole, range(5))
    method = periodic(Counted())
    train(method, resumed, range(3))
    state = copy.deepcopy(method.state_dict())
    method = periodic(Counted())
    method.load_state_dict(state)
    train(method, resumed, range(3, 5))
    assert same_tensors(whole.state_dict(), resumed.state_dict())


def test_a_setting_of_advprop_chooses_it() -> None:
    recipe = RECIPES["mnist5k"].build()
    method = apply_overrides(recipe, ["method.attack_every=3"]).method.build()
    assert isinstance(method, PeriodicAdvProp)
    assert method.threat_model == recipe.method.attack.threat_model.build()
    assert method.passes_per_image == recipe.method.attack.num_steps / 3 + 2
    assert type(recipe.method.build()) is AdvProp


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["method.attack_every=0"], "attack_every 0: give at least 1"),
        (["method.attack_every=2", "method.stale_steps=1"], "attack_every 2 and stale_steps 1"),
    ],
)
def test_wrong_settings(settings: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply_overrides(RECIPES["mnist5k"].build(), settings)


def test_mixtures_of_images_are_refused() -> None:
    recipe = RECIPES["from_scratch"].build()
    with pytest.raises(ValueError, match="method advprop: each image carries a perturbation"):
        apply_overrides(recipe, ["method.attack_every=2", "data.mixing.mixup=0.2"])


def test_it_says_what_it_needs() -> None:
    method = dataclasses.replace(periodic(Counted()))
    with pytest.raises(ValueError, match="PeriodicAdvProp keeps a perturbation for each image"):
        step(method, tiny_branched_net(), 0)
