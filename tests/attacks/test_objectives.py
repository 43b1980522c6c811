"""What attacks aim at."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from scipy import stats
from tiny import NUM_CLASSES, seeded, tiny_images, tiny_labels, tiny_net
from torch import Tensor
from torch.nn import functional as F

from advprop.attacks.attack import GradientAttack
from advprop.attacks.objectives import (
    TargetedLoss,
    TargetRule,
    given,
    least_likely_class,
    random_other_class,
    untargeted,
)
from advprop.attacks.pgd import PGD
from advprop.attacks.pyramid import PyramidPGD
from advprop.attacks.schedule import GrowingSteps
from advprop.attacks.threat_models import Linf
from advprop.randomness import ImageStreams, Randomness

FROM_THE_IMAGE = PGD(
    threat_model=Linf(0.3), num_steps=4, step_size=0.1, random_start_probability=0.0
)


@pytest.mark.parametrize("streams", [True, False], ids=["streams", "generator"])
@pytest.mark.parametrize("classes", [2, 10])
def test_random_class_is_wrong_and_uniform(classes: int, streams: bool) -> None:
    count = 9000
    labels = torch.arange(count) % classes
    randomness = ImageStreams.for_batch(0, 0, range(count)) if streams else seeded()
    targets, sign = random_other_class(labels, torch.zeros(count, classes), randomness)
    assert sign == -1
    offsets = (targets - labels) % classes
    counts = offsets.bincount(minlength=classes)
    assert counts[0] == 0
    if classes > 2:
        assert stats.chisquare(counts[1:].numpy()).pvalue > 6e-5
        table = torch.zeros(classes, classes).index_put_(
            (labels, targets), torch.ones(count), accumulate=True
        )
        wrong = table[~torch.eye(classes, dtype=torch.bool)]
        assert stats.chisquare(wrong.numpy()).pvalue > 6e-5


def test_random_class_of_an_image_is_the_same_in_any_batch() -> None:
    labels = torch.arange(20) % 7
    whole, _ = random_other_class(
        labels, torch.zeros(20, 7), ImageStreams.for_batch(1, 0, range(20))
    )
    chosen = torch.tensor([13, 2, 8])
    part, _ = random_other_class(
        labels[chosen], torch.zeros(3, 7), ImageStreams.for_batch(1, 0, chosen)
    )
    assert torch.equal(part, whole[chosen])


@pytest.mark.parametrize("rule", [random_other_class, least_likely_class])
def test_soft_labels(rule: TargetRule) -> None:
    count, classes = 3000, 6
    first, second = torch.arange(count) % classes, (torch.arange(count) + 2) % classes
    mixed = 0.7 * F.one_hot(first, classes) + 0.3 * F.one_hot(second, classes)
    logits = torch.randn(count, classes, generator=seeded())
    smoothed = 0.9 * mixed + 0.1 / classes
    for labels in (mixed, smoothed):
        targets, _ = rule(labels, logits, seeded())
        assert (targets != first).all()
        assert (targets != second).all()
        assert len(targets.unique()) == classes


def test_least_likely_class() -> None:
    logits = torch.tensor([[3.0, -1.0, 0.0], [3.0, -1.0, 0.0], [-2.0, -1.0, -3.0]])
    targets, sign = least_likely_class(torch.tensor([0, 1, 0]), logits)
    assert targets.tolist() == [1, 2, 2]
    assert sign == -1


def test_least_likely_class_is_chosen_at_the_starting_point() -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    attack = dataclasses.replace(FROM_THE_IMAGE, targets=least_likely_class)
    chosen, _ = least_likely_class(labels, model(images))
    aimed = dataclasses.replace(FROM_THE_IMAGE, targets=given)
    assert torch.equal(attack(model, images, labels), aimed(model, images, chosen))


@pytest.mark.parametrize("num_steps", [1, 4])
def test_the_target_is_chosen_once_and_kept(num_steps: int) -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    met: list[torch.Tensor] = []

    def rule(
        labels: torch.Tensor, logits: torch.Tensor, generator: Randomness
    ) -> tuple[torch.Tensor, int]:
        met.append(logits)
        return random_other_class(labels, logits, generator)

    attack = dataclasses.replace(FROM_THE_IMAGE, num_steps=num_steps, targets=rule)
    adversarial = attack(model, images, labels, generator=seeded())
    assert len(met) == 1
    assert not met[0].requires_grad
    assert torch.equal(met[0], model(images))
    targets, _ = random_other_class(labels, met[0], seeded())
    aimed = dataclasses.replace(attack, targets=given)
    assert torch.equal(adversarial, aimed(model, images, targets))


def test_untargeted_and_given() -> None:
    labels, logits = tiny_labels(), torch.zeros(8, NUM_CLASSES)
    assert untargeted(labels, logits) == (labels, 1)
    assert given(labels, logits) == (labels, -1)


@pytest.mark.parametrize("rule", [random_other_class, least_likely_class, given])
def test_targets_get_more_likely(rule: TargetRule) -> None:
    model, images, labels = tiny_net().eval(), tiny_images(32), tiny_labels(32)
    targets, _ = rule(labels, model(images), seeded())
    attack = PGD(threat_model=Linf(0.05), num_steps=4, step_size=0.02, targets=given)
    adversarial = attack(model, images, targets, generator=seeded())
    before = F.cross_entropy(model(images), targets, reduction="none")
    assert (F.cross_entropy(model(adversarial), targets, reduction="none") < before).all()


@pytest.mark.parametrize("rule", [random_other_class, least_likely_class])
def test_one_class_has_no_wrong_one(rule: TargetRule) -> None:
    with pytest.raises(ValueError, match="1 class: an attack towards a wrong one needs 2 or more"):
        rule(torch.zeros(4, dtype=torch.int64), torch.zeros(4, 1), None)


@pytest.mark.parametrize("wrong", [-100, 4])
def test_a_label_that_is_no_class(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"labels from .*{wrong}.*: the model has 4 classes"):
        random_other_class(torch.tensor([1, wrong]), torch.zeros(2, 4), None)


# --- any function of images

BY_GRADIENT = {
    "PGD": PGD(threat_model=Linf(0.1), num_steps=6, step_size=0.04),
    "GrowingSteps": GrowingSteps(
        attack=PGD(threat_model=Linf(0.1), num_steps=6, step_size=0.04), first_steps=1
    ),
    "PyramidPGD": PyramidPGD(
        epsilon=0.02, step_size=0.01, scales=(4, 1), multipliers=(4.0, 1.0), num_steps=6
    ),
}
by_gradient = pytest.mark.parametrize("attack", BY_GRADIENT.values(), ids=BY_GRADIENT.keys())


@by_gradient
def test_classification_is_one_objective(attack: GradientAttack) -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    streams = ImageStreams.for_batch(0, 0, range(len(images)))
    objective = TargetedLoss(model, labels, attack.targets, streams)
    found = attack.maximise(objective, images, generator=streams)
    assert torch.equal(found, attack(model, images, labels, generator=streams))


@by_gradient
def test_any_function_of_images_is_raised(attack: GradientAttack) -> None:
    """Brighter above and darker below: as far as the ball and [0, 1] allow."""
    images = tiny_images(margin=0.2)
    signs = torch.ones(8, 1).index_fill(0, torch.arange(4, 8), -1.0)
    found = attack.maximise(lambda images: (signs * images).sum(), images)
    torch.testing.assert_close(found, images + 0.1 * signs.expand(3, 8, 8))
    assert not found.requires_grad


@by_gradient
def test_an_objective_of_other_outputs_than_classes(attack: GradientAttack) -> None:
    """A distance between features: no labels take part, and no parameter gets a gradient."""
    features, images = tiny_net()[:6].eval(), tiny_images()
    with torch.no_grad():
        before = features(images)

    def distance(images: Tensor) -> Tensor:
        return (features(images) - before).square().sum()

    found = attack.maximise(distance, 0.1 * seeded_noise(images) + 0.9 * images)
    assert distance(found) > distance(0.1 * seeded_noise(images) + 0.9 * images)
    assert all(parameter.grad is None for parameter in features.parameters())


def seeded_noise(images: Tensor) -> Tensor:
    return torch.rand(images.shape, generator=seeded())
