"""Every method has a limit that equals a simpler one, bit for bit."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable

import pytest
import torch
from tiny import (
    gradients,
    same_tensors,
    seeded,
    tiny_branched_net,
    tiny_images,
    tiny_labels,
    tiny_net,
    tiny_vit,
)
from torch import Tensor, nn

from advprop.attacks.pgd import PGD
from advprop.attacks.pyramid import PyramidPGD
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms
from advprop.methods.adversarial import Adversarial
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Context, Method
from advprop.methods.mixed import Mixed
from advprop.methods.pyramid import Pyramid
from advprop.methods.universal import Universal
from advprop.methods.vanilla import Vanilla
from advprop.threat_models import L2, Linf

ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=2, step_size=6 / 255)
PYRAMID = PyramidPGD(scales=(4, 3, 1), num_steps=2)
NO_ATTACK = PGD(threat_model=Linf(0.0), num_steps=1, step_size=0.1)


def trained(method: Method, model: nn.Module, *, steps: int = 3) -> nn.Module:
    """`model` after a few steps of SGD with momentum and weight decay."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    torch.manual_seed(3)
    for step in range(steps):
        optimizer.zero_grad()
        method.forward_backward(
            model.train(),
            tiny_images(seed=10 + step),
            tiny_labels(seed=20 + step),
            Context(progress=step / steps, step=step, generator=seeded(step)),
        )
        optimizer.step()
    return model


def one_step(method: Method, model: nn.Module, **context: object) -> dict[str, Tensor | None]:
    """The gradients of one step."""
    method.forward_backward(
        model.train(),
        tiny_images(),
        tiny_labels(),
        Context(generator=seeded(), **context),  # type: ignore[arg-type]
    )
    return gradients(model)


def same_state(first: nn.Module, second: nn.Module) -> bool:
    return same_tensors(first.state_dict(), second.state_dict())


def plain(model: nn.Module, keep: str) -> nn.Module:
    return remove_auxiliary_norms(copy.deepcopy(model), keep=keep)


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


def test_adversarial_training_at_epsilon_zero_is_vanilla() -> None:
    assert same_state(
        trained(Adversarial(attack=NO_ATTACK), tiny_net()), trained(Vanilla(), tiny_net())
    )


def test_mixed_at_epsilon_zero_is_vanilla_on_the_batch_twice() -> None:
    model = tiny_net().train()
    images, labels = tiny_images().repeat(2, 1, 1, 1), tiny_labels().repeat(2)
    Vanilla().forward_backward(model, images, labels)
    for name, gradient in one_step(Mixed(attack=NO_ATTACK), tiny_net()).items():
        # the sum of two means is twice the mean over both
        torch.testing.assert_close(gradient, 2 * model.get_parameter(name).grad)


@pytest.mark.parametrize(
    ("share", "limit"), [(0.0, Vanilla()), (1.0, Adversarial(attack=ATTACK))], ids=["0", "1"]
)
def test_adversarial_share(share: float, limit: Method) -> None:
    method = AdversarialThenClean(attack=ATTACK, adversarial_share=share)
    assert same_state(trained(method, tiny_net()), trained(limit, tiny_net()))
    assert method.passes_per_image == limit.passes_per_image


def test_adversarial_first_then_clean() -> None:
    method = AdversarialThenClean(attack=ATTACK, adversarial_share=0.5)
    for progress, limit in (
        (0.0, Adversarial(attack=ATTACK)),
        (0.49, Adversarial(attack=ATTACK)),
        (0.5, Vanilla()),
        (1.0, Vanilla()),
    ):
        found = one_step(method, tiny_net(), progress=progress)
        assert same_tensors(found, one_step(limit, tiny_net()))


def test_pyramid_with_a_branch_and_masks_of_their_own_is_advprop() -> None:
    method = Pyramid(attack=ATTACK, auxiliary_branch=True, matched_masks=False)
    found = trained(method, tiny_branched_net(dropout=0.3))
    assert same_state(found, trained(AdvProp(attack=ATTACK), tiny_branched_net(dropout=0.3)))


def test_pyramid_without_adversarial_weight_is_vanilla() -> None:
    """Where no layer keeps statistics: those of a shared layer see adversarial images still."""
    found = trained(Pyramid(attack=PYRAMID, adversarial_weight=0.0), tiny_vit())
    assert same_state(found, trained(Vanilla(), tiny_vit()))
    assert not same_state(found, trained(Pyramid(attack=PYRAMID), tiny_vit()))


def test_pyramid_without_clean_weight_is_adversarial_training() -> None:
    found = trained(Pyramid(attack=PYRAMID, clean_weight=0.0), tiny_vit())
    assert same_state(found, trained(Adversarial(attack=PYRAMID), tiny_vit()))


@pytest.mark.parametrize("build", [tiny_net, tiny_vit])
def test_pyramid_at_epsilon_zero_is_vanilla_twice(build: Callable[..., nn.Module]) -> None:
    attack = PyramidPGD(epsilon=0.0, scales=(4, 2, 1))
    vanilla, twice = one_step(Vanilla(), build()), one_step(Pyramid(attack=attack), build())
    assert all(torch.equal(twice[name], 2 * vanilla[name]) for name in vanilla)


def test_a_universal_perturbation_that_never_moves_is_two_clean_passes() -> None:
    still = Universal(epsilon=0.1, step_size=0.0, scales=(4, 2, 1))
    nothing = Pyramid(attack=PyramidPGD(epsilon=0.0, scales=(4, 2, 1)))
    twice = one_step(still, tiny_net())
    for name, gradient in one_step(Vanilla(), tiny_net()).items():
        assert torch.equal(twice[name], 2 * gradient)
    found = trained(dataclasses.replace(still), tiny_vit(drop=0.2))
    assert same_state(found, trained(nothing, tiny_vit(drop=0.2)))
    moving = dataclasses.replace(still, step_size=0.05)
    assert not same_state(found, trained(moving, tiny_vit(drop=0.2)))


def closely(first: Iterable[tuple[str, Tensor | None]], second: dict[str, Tensor | None]) -> None:
    for name, tensor in first:
        torch.testing.assert_close(tensor, second[name], msg=lambda text, name=name: name + text)


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
