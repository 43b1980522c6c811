"""Pyramid for networks without batch normalisation, and what recipes make of their attacks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from case import Case
from tiny import seeded, tiny_convnext, tiny_images, tiny_labels, tiny_net, tiny_vit
from torch import Tensor, nn

from advprop.attacks.objectives import random_other_class, untargeted
from advprop.attacks.pyramid import PyramidPGD
from advprop.auxiliary.gradients import branch_parameters
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.config.attacks import PAPER_ATTACK
from advprop.config.methods import method_config
from advprop.config.overrides import apply_overrides
from advprop.config.pyramid import PyramidConfig, pyramid_like
from advprop.methods.pyramid import Pyramid
from advprop.methods.step import Context
from advprop.recipes.builtin import mnist5k

ATTACK = PyramidPGD(
    epsilon=1 / 255,
    num_steps=2,
    step_size=0.75 / 255,
    scales=(4, 3, 1),
    multipliers=(4.0, 2.0, 1.0),
)
# layers that clean and adversarial images share count a batch of each
BOTH = {"clean": 2}
CASES = {
    "pyramid": Case(method=Pyramid(attack=ATTACK), statistics=BOTH, forwards=2),
    "pyramid summed": Case(method=Pyramid(attack=ATTACK, form="summed"), statistics=BOTH),
    "pyramid branch": Case(method=Pyramid(attack=ATTACK, auxiliary_branch=True)),
}

# --- networks with other normalisation

NETS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "vit": (tiny_vit, 8),
    "convnext": (tiny_convnext, 32),
}
"""Each with the edge of its images."""

every_net = pytest.mark.parametrize(("build", "edge"), NETS.values(), ids=NETS)


def some_images(edge: int) -> Tensor:
    return torch.rand(8, 3, edge, edge, generator=seeded())


@every_net
@pytest.mark.parametrize("affine", [False, True], ids=["shared", "affine branches"])
@pytest.mark.parametrize("form", ["separate", "summed"])
def test_a_step_reaches_every_parameter(
    build: Callable[..., nn.Module], edge: int, affine: bool, form: str
) -> None:
    model = build(drop=0.1).train()
    if affine:
        add_auxiliary_norms(model, separate="affine")
    attack = PyramidPGD(num_steps=2, scales=(edge // 4, 2, 1))
    method = Pyramid(attack=attack, auxiliary_branch=affine, form=form)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    metrics = method.forward_backward(
        model, some_images(edge), tiny_labels(), Context(generator=seeded())
    )
    assert metrics.perturbation > 0.01
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-7, name
    optimizer.step()
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())


@every_net
def test_affine_branches_differ_by_their_images_alone(
    build: Callable[..., nn.Module], edge: int
) -> None:
    """At epsilon 0 both branches get the very same gradients, under matched masks."""
    model = add_auxiliary_norms(build(drop=0.3), separate="affine").train()
    method = Pyramid(attack=PyramidPGD(epsilon=0.0), auxiliary_branch=True)
    method.forward_backward(model, some_images(edge), tiny_labels(), Context(generator=seeded()))
    owned = branch_parameters(model)
    for clean, adversarial in zip(owned["clean"], owned["adversarial"], strict=True):
        assert torch.equal(clean.grad, adversarial.grad)


@every_net
def test_adversarial_images_are_learnt(build: Callable[..., nn.Module], edge: int) -> None:
    model = build().train()
    method = Pyramid(attack=PyramidPGD(epsilon=1 / 255, num_steps=2, scales=(edge // 4, 2, 1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for step in range(25):
        optimizer.zero_grad()
        metrics = method.forward_backward(
            model, some_images(edge), tiny_labels(), Context(generator=seeded(step))
        )
        optimizer.step()
        losses.append({kind: float(found.loss) for kind, found in metrics.kinds.items()})
    for kind in ("clean", "adversarial"):
        assert losses[-1][kind] < losses[0][kind] - 0.3


# --- recipes


def test_the_recipes_ball_is_shared_out() -> None:
    """Whatever the scales do, no value changes by more than the recipe's epsilon."""
    recipe = mnist5k()
    attack = recipe.with_method("pyramid").method.build().attack
    assert isinstance(attack, PyramidPGD)
    assert attack.num_steps == recipe.method.attack.num_steps == 3
    assert attack.targets is random_other_class
    assert attack.epsilon == pytest.approx(0.2 / 31)
    assert attack.step_size == pytest.approx(0.1 / 31)
    images, net = tiny_images().repeat(1, 1, 4, 4), tiny_net().eval()  # scales of 4, 2 and 1
    change = (attack(net, images, tiny_labels(), generator=seeded()) - images).abs()
    assert 0.15 < change.max() <= 0.2 + 1e-6


def test_of_an_l2_attack_only_steps_and_targets_are_taken() -> None:
    ball = PAPER_ATTACK.threat_model.model_copy(update={"kind": "l2", "epsilon": 2.0})
    attack = PAPER_ATTACK.model_copy(
        update={"threat_model": ball, "num_steps": 2, "targets": "untargeted"}
    )
    assert pyramid_like(attack).build() == PyramidPGD(num_steps=2, targets=untargeted)


def test_without_a_recipes_attack_it_is_the_papers() -> None:
    assert method_config("pyramid").build().attack == PyramidPGD()
    vanilla = mnist5k().with_method("vanilla")
    assert vanilla.with_method("pyramid").method == PyramidConfig()


def test_other_methods_do_not_take_a_pyramid() -> None:
    pyramid = mnist5k().with_method("pyramid")
    assert pyramid.with_method("advprop").method.attack == PAPER_ATTACK


def test_everything_can_be_set() -> None:
    config = apply_overrides(
        mnist5k().with_method("pyramid"),
        [
            "method.attack.epsilon=6/255",
            "method.attack.scales=7,2,1",
            "method.attack.multipliers=5,2,1",
            "method.attack.random_start_probability=1",
            "method.attack.targets=untargeted",
            "method.matched_masks=false",
            "method.auxiliary_branch=true",
            "method.form=summed",
        ],
    )
    method = config.method.build()
    assert method.auxiliary == ("adversarial",)
    assert (method.form, method.matched_masks) == ("summed", False)
    assert (method.attack.scales, method.attack.multipliers) == ((7, 2, 1), (5, 2, 1))
    assert method.attack.epsilon == 6 / 255
    assert apply_overrides(config, ["method.attack.scales=none"]).method.attack.scales is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.attack.epsilon=6", "did you mean 6/255"),
        ("method.attack.scales=4,1", "give one for each"),
        ("method.form=joint", "form='joint': choose"),
        ("method.adversarial_weight=-1", "at least 0 each"),
        ("method.attack.threat_model.epsilon=0.1", "or method.attack.epsilon"),
    ],
)
def test_what_cannot_be_set(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply_overrides(mnist5k().with_method("pyramid"), [override])


def test_a_configuration_survives_its_file() -> None:
    config = mnist5k().with_method("pyramid")
    assert type(config).model_validate_json(config.model_dump_json()) == config
