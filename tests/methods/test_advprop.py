"""AdvProp against simpler methods, the paper's algorithm written out, and its own other forms."""

from __future__ import annotations

import pytest
import torch
from case import ATTACK, Case
from test_limits import NO_ATTACK, closely, one_step, plain, same_state, trained
from tiny import (
    gradients,
    same_tensors,
    seeded,
    tiny_branched_net,
    tiny_images,
    tiny_labels,
    tiny_net,
)
from torch import nn

from advprop.attacks.fgsm import fgsm
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import L2, Linf
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.methods.adversarial import Adversarial
from advprop.methods.advprop import AdvProp
from advprop.methods.step import Context
from advprop.methods.vanilla import Vanilla

CASES = {
    "advprop joint": Case(method=AdvProp(attack=ATTACK, form="joint"), distributed=True),
    "advprop summed": Case(
        method=AdvProp(attack=ATTACK, form="summed"), forwards=2, distributed=True
    ),
    "advprop matched": Case(
        method=AdvProp(attack=ATTACK, matched_masks=True), forwards=2, distributed=True
    ),
    # FGSM begins at the image and goes away from its label
    "advprop l2": Case(method=AdvProp(attack=fgsm(L2(1.0))), draws=False, largest=0.1),
}


@pytest.mark.parametrize("ball", [Linf(8 / 255), L2(1.0)], ids=str)
def test_advprop_without_adversarial_weight_is_vanilla(ball: Linf | L2) -> None:
    attack = PGD(threat_model=ball, num_steps=2, step_size=ball.epsilon / 2)
    method = AdvProp(attack=attack, adversarial_weight=0.0, form="separate")
    model = trained(method, tiny_branched_net())
    vanilla = trained(Vanilla(), tiny_net())
    assert same_state(plain(model, "clean"), vanilla)
    assert not same_state(vanilla, tiny_net())


def test_advprop_without_clean_weight_is_adversarial_training() -> None:
    method = AdvProp(attack=ATTACK, clean_weight=0.0, form="separate")
    model = trained(method, tiny_branched_net())
    adversarial = trained(Adversarial(attack=ATTACK), tiny_net())
    assert same_state(plain(model, "adversarial"), adversarial)
    assert not same_state(adversarial, trained(Vanilla(), tiny_net()))


def test_advprop_at_epsilon_zero_is_vanilla_twice() -> None:
    vanilla = one_step(Vanilla(), tiny_net())
    model = tiny_branched_net()
    twice = one_step(AdvProp(attack=NO_ATTACK, form="separate"), model)
    shared = [name for name in vanilla if name.split(".")[0] not in ("1", "4")]
    assert len(shared) == 5
    for name in shared:
        assert torch.equal(twice[name], 2 * vanilla[name])
    for layer in ("1", "4"):
        for kind in ("weight", "bias"):
            for branch in ("clean", "adversarial"):
                found = twice[f"{layer}.branches.{branch}.{kind}"]
                assert torch.equal(found, vanilla[f"{layer}.{kind}"])
    assert same_state(plain(model, "clean"), plain(model, "adversarial"))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.2)], ids=str)
def test_joint_and_summed_equal_separate(weights: tuple[float, float]) -> None:
    found = {}
    for form in ("separate", "joint", "summed", "auto"):
        model = tiny_branched_net()
        method = AdvProp(
            attack=ATTACK, clean_weight=weights[0], adversarial_weight=weights[1], form=form
        )
        grads = one_step(method, model)
        metrics = method.forward_backward(
            model, tiny_images(), tiny_labels(), Context(generator=seeded())
        )
        found[form] = grads, model.state_dict(), metrics
    for name in ("joint", "summed", "auto"):
        closely(found[name][0].items(), found["separate"][0])
        closely(found[name][1].items(), found["separate"][1])
        torch.testing.assert_close(found[name][2].loss, found["separate"][2].loss)
        for kind in ("clean", "adversarial"):
            torch.testing.assert_close(
                found[name][2].kinds[kind].loss, found["separate"][2].kinds[kind].loss
            )
    # "auto" without DistributedDataParallel keeps one graph in memory at a time
    assert same_tensors(found["auto"][0], found["separate"][0])


def test_advprop_is_written_out_by_hand() -> None:
    """Algorithm 1 of the paper, with a separate net for each branch."""
    clean_net, adversarial_net = tiny_net().train(), tiny_net().train()
    images, labels = tiny_images(), tiny_labels()
    adversarial_net.eval()
    adversarial = ATTACK(adversarial_net, images, labels, generator=seeded())
    adversarial_net.train()
    adversarial_net.zero_grad()
    clean_loss = nn.functional.cross_entropy(clean_net(images), labels)
    adversarial_loss = nn.functional.cross_entropy(adversarial_net(adversarial), labels)
    (clean_loss + adversarial_loss).backward()

    model = add_auxiliary_norms(tiny_net())
    metrics = AdvProp(attack=ATTACK).forward_backward(
        model.train(), images, labels, Context(generator=seeded())
    )
    torch.testing.assert_close(metrics.loss, (clean_loss + adversarial_loss).detach())
    found = gradients(model)
    clean, other = gradients(clean_net), gradients(adversarial_net)
    for name in clean:
        layer, kind = name.split(".")
        if layer in ("1", "4"):
            torch.testing.assert_close(found[f"{layer}.branches.clean.{kind}"], clean[name])
            torch.testing.assert_close(found[f"{layer}.branches.adversarial.{kind}"], other[name])
        else:
            torch.testing.assert_close(found[name], clean[name] + other[name])
