"""The cost of a method's step: what the formula says is what the step runs."""

from __future__ import annotations

import pytest
import timm
import torch
from tiny import tiny_vit, with_views
from torch import nn

from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.auxiliary.token import add_auxiliary_tokens
from advprop.config.methods import METHODS, method_config
from advprop.cost.step import (
    FlopCounter,
    StepCost,
    empty_batch,
    facts_of,
    step_cost,
    without_attack,
)
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.advprop_lean import AdvPropLean
from advprop.methods.base import Method
from advprop.methods.fast import Fast
from advprop.methods.fine_grained import FineGrained
from advprop.methods.mixed import Mixed
from advprop.methods.pyramid import Pyramid
from advprop.methods.sam import SAM
from advprop.methods.step import Context
from advprop.methods.vanilla import Vanilla
from advprop.models.small_resnet import SmallResNet

SHAPE = (3, 32, 32)
ATTACK = PGD(threat_model=Linf(0.1), num_steps=3, step_size=0.05)


def empty_model(method: Method) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = SmallResNet(num_classes=5, in_chans=3, width=8, stem_stride=1)
    return add_auxiliary_norms(model, method.auxiliary) if method.auxiliary else model


def cost_of(method: Method, batch_size: int = 4) -> StepCost:
    return step_cost(empty_model(method), method, empty_batch(batch_size, SHAPE))


def executed_flops(method: Method, progress: float, batch_size: int = 4) -> float:
    """FLOPs an image of the whole step, its own attack included."""
    batch = with_views(empty_batch(batch_size, SHAPE), method.views)
    method.prepare(facts_of(batch))
    with FlopCounter() as counter:
        method.forward_backward(empty_model(method).train(), batch, Context(progress=progress))
    return counter.flops / batch_size


@pytest.mark.parametrize("kind", METHODS)
def test_the_cost_of_a_step_is_what_the_step_executes(kind: str) -> None:
    method = method_config(kind).build()
    cost = cost_of(method, 10)  # of which a fifth are 2 images
    # adversarial images for half of training, clean ones after: any other method does not change
    executed = (executed_flops(method, 0.0, 10) + executed_flops(method, 0.999, 10)) / 2
    assert cost.flops_per_image == pytest.approx(executed, rel=1e-6)  # those of a pass are rounded
    stated = pytest.approx(method.passes_per_image, rel=1e-12)  # sums of thirds
    assert cost.training_passes + cost.attack_passes == stated


def test_advprop_lean_costs_and_holds_what_vanilla_does() -> None:
    """But for the images' gradient through the first layer."""
    vanilla = cost_of(Vanilla())
    lean = cost_of(AdvPropLean(threat_model=Linf(0.1), attacked_fraction=0.5))
    assert (lean.training_passes, lean.attack_passes) == (1, 0)
    first_layer = 2 * 32 * 32 * 8 * 3 * 9
    assert lean.flops_per_image == pytest.approx(vanilla.flops_per_image + first_layer, rel=1e-9)
    assert lean.activation_bytes < 1.2 * vanilla.activation_bytes


def test_a_phase_counts_by_its_share() -> None:
    method = AdversarialThenClean(attack=ATTACK, adversarial_share=0.25)
    cost = cost_of(method)
    assert (cost.training_passes, cost.attack_passes) == (1, 0.75)
    executed = 0.25 * executed_flops(method, 0.0) + 0.75 * executed_flops(method, 0.999)
    assert cost.flops_per_image == executed


def test_kinds_of_steps_count_by_their_shares() -> None:
    every_fourth, vanilla = cost_of(SAM(every=4)), cost_of(Vanilla())
    assert every_fourth.training_passes == SAM(every=4).passes_per_image == 1.25
    assert every_fourth.flops_per_image == 1.25 * vanilla.flops_per_image
    assert every_fourth.activation_bytes == pytest.approx(vanilla.activation_bytes, rel=0.01)


def test_an_attack_step_is_about_two_thirds_of_a_training_pass() -> None:
    cost = cost_of(Mixed(attack=ATTACK))
    assert cost.attack_flops == 2 * cost.forward_flops
    first_layer = 2 * 32 * 32 * 8 * 3 * 9
    assert cost.training_flops == 3 * cost.forward_flops - first_layer


def test_separate_passes_hold_one_graph_and_joint_ones_two() -> None:
    vanilla = cost_of(Vanilla()).activation_bytes
    separate = cost_of(AdvProp(attack=ATTACK, form="separate")).activation_bytes
    joint = cost_of(AdvProp(attack=ATTACK, form="joint")).activation_bytes
    mixed = cost_of(Mixed(attack=ATTACK)).activation_bytes
    assert separate == vanilla
    assert mixed == pytest.approx(2 * vanilla, rel=0.01)
    # the halves that go through different layers are joined again in a tensor of their own
    assert joint >= mixed


@pytest.mark.parametrize("form", ["separate", "joint"])
def test_fast_costs_a_pass_with_an_images_gradient_for_each_that_it_attacks(form: str) -> None:
    vanilla = cost_of(Vanilla(), 8)
    fast = cost_of(Fast(threat_model=Linf(0.1), attacked_fraction=0.25, form=form), 8)
    assert (fast.training_passes, fast.attack_passes) == (1.25, 0)
    # in its noise pass the first layer gives a gradient of the images too
    first_layer = 2 * 32 * 32 * 8 * 3 * 9
    expected = 1.25 * vanilla.training_flops + 0.25 * first_layer
    assert fast.flops_per_image == pytest.approx(expected, rel=1e-6)
    # one graph of 6 images at most, or one of 8 whose parts are joined again in each layer
    share = fast.activation_bytes / vanilla.activation_bytes
    assert share == pytest.approx(0.75, rel=0.02) if form == "separate" else 1 <= share < 1.5


def test_rounding_of_a_share_of_the_batch_is_no_attack() -> None:
    fast = cost_of(Fast(threat_model=Linf(0.1), attacked_fraction=0.2), 8)  # 2 of 8
    assert (fast.training_passes, fast.attack_passes) == (1.25, 0)


def test_activations_grow_with_the_batch_and_flops_an_image_do_not() -> None:
    small, large = cost_of(Vanilla(), 2), cost_of(Vanilla(), 64)
    assert small.flops_per_image == large.flops_per_image
    assert large.activation_bytes == pytest.approx(32 * small.activation_bytes, rel=0.02)


def test_checkpointing_trades_a_forward_pass_for_activations() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet10t", num_classes=5)
    plain = step_cost(model, Vanilla(), empty_batch(4, SHAPE))
    model.set_grad_checkpointing(True)
    spared = step_cost(model, Vanilla(), empty_batch(4, SHAPE))
    assert spared.activation_bytes < 0.8 * plain.activation_bytes
    assert plain.training_flops < spared.training_flops <= plain.training_flops * 4 / 3


def test_several_devices_take_the_form_that_allows_one_backward() -> None:
    def form(method: Method, devices: int = 2) -> str:
        return method.on_devices(empty_model(method), devices).form

    assert form(AdvProp(attack=ATTACK)) == "joint"
    assert form(AdvProp(attack=ATTACK, matched_masks=True)) == "summed"
    assert form(AdvProp(attack=ATTACK), devices=1) == "auto"
    assert form(AdvProp(attack=ATTACK, form="separate")) == "separate"
    assert form(Pyramid(attack=ATTACK)) == "summed"
    tokens = AdvProp(attack=ATTACK).on_devices(add_auxiliary_tokens(tiny_vit()), 2)
    assert tokens.form == "summed"
    assert Vanilla().on_devices(empty_model(Vanilla()), 2) == Vanilla()


def test_without_its_attack_a_method_keeps_its_training_passes() -> None:
    two = FineGrained(attacks={"weak": ATTACK, "strong": ATTACK})
    assert without_attack(two).passes_per_image == 3
    cost = cost_of(two)
    assert (cost.training_passes, cost.attack_passes) == (3, 6)
    assert without_attack(AdvProp(attack=ATTACK)).passes_per_image == 2
    assert without_attack(Vanilla()) == Vanilla()


def test_views_are_counted_without_data_that_have_them() -> None:
    cost = cost_of(FineGrained(attacks={"weak": ATTACK}, views=("crops", "colours")))
    assert (cost.training_passes, cost.attack_passes) == (4, 3)
