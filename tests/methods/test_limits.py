"""Every method has a limit that equals a simpler one, bit for bit."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable

import pytest
import torch
from tiny import (
    IMAGE_SHAPE,
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
from advprop.attacks.threat_models import L2, Linf
from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.surgery import remove_auxiliary_norms
from advprop.methods.adversarial import Adversarial
from advprop.methods.advprop import AdvProp
from advprop.methods.advprop_lean import AdvPropLean
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.methods.fast import Fast
from advprop.methods.mixed import Mixed
from advprop.methods.pyramid import Pyramid
from advprop.methods.step import Context
from advprop.methods.universal import Universal
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch

ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=2, step_size=6 / 255)
FAST = Fast(threat_model=Linf(8 / 255), attacked_fraction=0.25)
PYRAMID = PyramidPGD(scales=(4, 3, 1), num_steps=2)
FACTS = TrainingFacts(num_images=8, image_shape=IMAGE_SHAPE)
NO_ATTACK = PGD(threat_model=Linf(0.0), num_steps=1, step_size=0.1)


def batch_of(seed: int) -> Batch:
    images, labels = tiny_images(seed=10 + seed), tiny_labels(seed=20 + seed)
    return Batch(images=images, labels=labels, indices=torch.arange(8))


def trained(method: Method, model: nn.Module, *, steps: int = 3) -> nn.Module:
    """`model` after a few steps of SGD with momentum and weight decay."""
    method.prepare(FACTS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    torch.manual_seed(3)
    for step in range(steps):
        optimizer.zero_grad()
        method.forward_backward(
            model.train(),
            batch_of(seed=step),
            Context(progress=step / steps, step=step, generator=seeded(step)),
        )
        optimizer.step()
    return model


def one_step(method: Method, model: nn.Module, **context: object) -> dict[str, Tensor | None]:
    """The gradients of one step."""
    method.prepare(FACTS)
    method.forward_backward(
        model.train(),
        Batch(images=tiny_images(), labels=tiny_labels(), indices=torch.arange(8)),
        Context(generator=seeded(), **context),  # type: ignore[arg-type]
    )
    return gradients(model)


def same_state(first: nn.Module, second: nn.Module) -> bool:
    return same_tensors(first.state_dict(), second.state_dict())


def plain(model: nn.Module, keep: str) -> nn.Module:
    return remove_auxiliary_norms(copy.deepcopy(model), keep=keep)


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


@pytest.mark.parametrize("form", ["separate", "joint", "auto"])
@pytest.mark.parametrize("synchronise", [True, False])
def test_fast_without_attacked_images_is_vanilla(form: str, synchronise: bool) -> None:
    method = dataclasses.replace(FAST, attacked_fraction=0.0, form=form, synchronise=synchronise)
    model = trained(method, tiny_branched_net(), steps=5)
    vanilla = trained(Vanilla(), tiny_net(), steps=5)
    assert same_state(plain(model, "clean"), vanilla)
    for layer in (1, 4):  # the adversarial branch is as it was
        assert same_state(plain(model, "adversarial")[layer], tiny_net()[layer])
    assert method.passes_per_image == 1


def test_fast_without_attacked_images_needs_no_second_one() -> None:
    model, vanilla = tiny_branched_net().train(), tiny_net().train()
    method = dataclasses.replace(FAST, attacked_fraction=0.0)
    for chosen, net in ((method, model), (Vanilla(), vanilla)):
        metrics = chosen.forward_backward(net, tiny_images(1), tiny_labels(1))
        assert list(metrics.kinds) == ["clean"]
    assert same_tensors(gradients(remove_auxiliary_norms(model)), gradients(vanilla))


@pytest.mark.parametrize("beta", [0.5, 0.3])
def test_fast_not_synchronised_is_the_gradient_of_the_weighted_sum(beta: float) -> None:
    images, labels = tiny_images(), tiny_labels()
    model = tiny_branched_net().train()
    seen: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    method = dataclasses.replace(FAST, beta=beta, synchronise=False, form="separate")
    metrics = method.forward_backward(model, images, labels, Context(generator=seeded()))
    handle.remove()
    noise, _, adversarial = seen
    reference = tiny_branched_net().train()
    losses = {}
    for kind, branch, points, truth in (
        ("noise", "adversarial", noise, labels[6:]),
        ("clean", "clean", images[:6], labels[:6]),
        ("adversarial", "adversarial", adversarial, labels[6:]),
    ):
        with use_branch(reference, branch):
            losses[kind] = nn.functional.cross_entropy(reference(points), truth, reduction="sum")
    whole = losses["clean"] + (1 - beta) * losses["noise"] + beta * losses["adversarial"]
    (whole / 8).backward()
    closely(gradients(model).items(), gradients(reference))
    torch.testing.assert_close(metrics.loss, whole.detach() / 8)


@pytest.mark.parametrize("synchronise", [True, False])
@pytest.mark.parametrize(("fraction", "beta"), [(0.25, 0.5), (0.5, 0.5), (0.75, 0.2)])
def test_fast_joint_equals_separate(synchronise: bool, fraction: float, beta: float) -> None:
    found = {}
    for form in ("separate", "joint", "auto"):
        method = dataclasses.replace(
            FAST, attacked_fraction=fraction, beta=beta, synchronise=synchronise, form=form
        )
        model = tiny_branched_net()
        grads = one_step(method, model)
        found[form] = grads, trained(method, tiny_branched_net()).state_dict()
    closely(found["joint"][0].items(), found["separate"][0])
    closely(found["joint"][1].items(), found["separate"][1])
    assert same_tensors(found["auto"][0], found["joint"][0])


@pytest.mark.parametrize("ball", [Linf(0.0), L2(0.0)], ids=str)
@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_advprop_lean_is_vanilla_at_epsilon_zero(ball: Linf | L2, fraction: float) -> None:
    lean = AdvPropLean(threat_model=ball, attacked_fraction=fraction)
    found, vanilla = one_step(lean, tiny_net()), one_step(Vanilla(), tiny_net())
    closely(found.items(), vanilla)  # the mean over a batch as that of its two parts


def test_advprop_lean_without_attacked_images_is_vanilla() -> None:
    lean = AdvPropLean(threat_model=Linf(8 / 255), attacked_fraction=0.0)
    vanilla = trained(Vanilla(), tiny_net(), steps=5)
    assert same_state(trained(lean, tiny_net(), steps=5), vanilla)
