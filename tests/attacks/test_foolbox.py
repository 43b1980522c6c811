"""foolbox as an oracle: the same images after every number of steps from the same start."""

from __future__ import annotations

import warnings
from typing import Any

import eagerpy
import pytest
import torch
from tiny import NUM_CLASSES, seeded, tiny_images, tiny_labels, tiny_net
from torch import Tensor

from advprop.attacks.fgsm import fgsm
from advprop.attacks.objectives import given, untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import L2, Linf, ThreatModel
from advprop.evaluation.robustness import attack_with_restarts
from advprop.randomness import ImageStreams
from advprop.shapes import Batch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # foolbox imports an old name of scipy's
    import foolbox
    from foolbox.attacks.gradient_descent_base import (
        BaseGradientDescent,
        L2BaseGradientDescent,
        LinfBaseGradientDescent,
    )

STEP_SIZES = {Linf: 0.01, L2: 0.3}
TOLERANCES = {Linf: 0.0, L2: 5e-7}
"""Linf agrees bit for bit; in L2, lengths are computed in another order."""


def from_start(base: type[BaseGradientDescent], start: Tensor) -> type[BaseGradientDescent]:
    """foolbox's attack, its random start replaced."""

    class FromStart(base):  # type: ignore[valid-type,misc]
        def get_random_start(self, clean: eagerpy.Tensor, epsilon: float) -> eagerpy.Tensor:
            return eagerpy.astensor(clean.raw + start)

    return FromStart


def by_foolbox(
    ball: ThreatModel, start: Tensor | None, steps: int, goal: Tensor, *, targeted: bool
) -> Tensor:
    base = LinfBaseGradientDescent if isinstance(ball, Linf) else L2BaseGradientDescent
    if start is not None:
        base = from_start(base, start)
    attack = base(
        rel_stepsize=1.0,
        abs_stepsize=STEP_SIZES[type(ball)],
        steps=steps,
        random_start=start is not None,
    )
    criteria = foolbox.criteria
    aim = criteria.TargetedMisclassification if targeted else criteria.Misclassification
    model = foolbox.PyTorchModel(tiny_net().eval(), bounds=(0, 1), device="cpu")
    adversarial, _, _ = attack(model, tiny_images(), aim(goal), epsilons=ball.epsilon)
    return adversarial


@pytest.mark.parametrize("ball", [Linf(8 / 255), L2(1.0)], ids=str)
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("random_start", [False, True], ids=["from clean", "from a start"])
def test_pgd_step_by_step(ball: ThreatModel, targeted: bool, random_start: bool) -> None:
    images, labels = tiny_images(), tiny_labels()
    goal = (labels + 1) % NUM_CLASSES if targeted else labels
    start = ball.random_start(images, generator=seeded(4)) if random_start else None
    for steps in range(1, 6):
        ours = PGD(
            threat_model=ball,
            num_steps=steps,
            step_size=STEP_SIZES[type(ball)],
            random_start_probability=float(random_start),
            targets=given if targeted else untargeted,
        )(tiny_net().eval(), images, goal, generator=seeded(4))
        theirs = by_foolbox(ball, start, steps, goal, targeted=targeted)
        assert not torch.equal(theirs, images)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCES[type(ball)])


@pytest.mark.parametrize(
    ("ball", "attack"),
    [
        (Linf(8 / 255), foolbox.attacks.LinfFastGradientAttack()),
        (L2(1.0), foolbox.attacks.L2FastGradientAttack()),
    ],
    ids=["linf", "l2"],
)
def test_fgsm(ball: ThreatModel, attack: foolbox.Attack) -> None:
    images, labels = tiny_images(), tiny_labels()
    model = foolbox.PyTorchModel(tiny_net().eval(), bounds=(0, 1), device="cpu")
    theirs, _, _ = attack(model, images, labels, epsilons=ball.epsilon)
    ours = fgsm(ball)(tiny_net().eval(), images, labels)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCES[type(ball)])


@pytest.mark.parametrize("ball", [Linf(8 / 255), L2(1.0)], ids=str)
def test_restarts(ball: ThreatModel) -> None:
    """The same images are fooled as by foolbox's repetition from the same starts."""
    restarts, images, model = 4, tiny_images(32), tiny_net().eval()
    labels = model(images).argmax(dim=1)
    starts = [
        ball.random_start(images, generator=ImageStreams.for_batch(0, 0, range(32), [restart] * 32))
        for restart in range(restarts)
    ]
    base = LinfBaseGradientDescent if isinstance(ball, Linf) else L2BaseGradientDescent

    class FromStarts(base):  # type: ignore[valid-type,misc]
        def get_random_start(self, clean: eagerpy.Tensor, epsilon: float) -> eagerpy.Tensor:
            return eagerpy.astensor(clean.raw + starts[len(used)])

        def run(self, *inputs: Any, **options: Any) -> Any:
            adversarial = super().run(*inputs, **options)
            used.append(adversarial)
            return adversarial

    used: list[Any] = []
    size = STEP_SIZES[type(ball)]
    theirs = FromStarts(rel_stepsize=1.0, abs_stepsize=size, steps=2, random_start=True)
    _, _, fooled = theirs.repeat(restarts)(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"),
        images,
        foolbox.criteria.Misclassification(labels),
        epsilons=ball.epsilon,
    )
    ours = PGD(threat_model=ball, num_steps=2, step_size=size, targets=untargeted)
    batch = Batch(images=images, labels=labels)
    _, correct = attack_with_restarts(
        ours, batch, attacked_logits_fn=model, logits_fn=model, restarts=restarts
    )
    assert len(used) == restarts
    assert torch.equal(~correct, fooled)
