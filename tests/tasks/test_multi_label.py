"""Several labels an image, some of them unknown."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from tiny import NUM_CLASSES, seeded, tiny_images, tiny_net
from torch import Tensor, nn

from advprop.attacks.objectives import (
    TargetRule,
    given,
    least_likely_class,
    random_other_class,
    untargeted,
)
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.randomness import ImageStreams
from advprop.shapes import Batch
from advprop.tasks.multi_label import MultiLabel

NAN = math.nan
LABELS = torch.tensor([[1.0, 0.0, NAN], [NAN, 0.0, 1.0], [NAN, NAN, NAN]])
LOGITS = torch.tensor([[2.0, 1.0, 9.0], [-9.0, -3.0, 0.5], [1.0, 2.0, 3.0]])


def entropy(logit: float, label: float, weight: float = 1.0) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -(weight * label * math.log(probability) + (1 - label) * math.log(1 - probability))


@pytest.mark.parametrize("weights", [None, (3.0, 5.0, 7.0)], ids=str)
def test_loss_by_hand(weights: tuple[float, ...] | None) -> None:
    by_label = weights or (1, 1, 1)
    known = [
        entropy(LOGITS[row, column].item(), label, by_label[column])
        for row, labels in enumerate(LABELS.tolist())
        for column, label in enumerate(labels)
        if not math.isnan(label)
    ]
    assert len(known) == 4
    found = MultiLabel(weights).loss(LOGITS, LABELS)
    assert found.item() == pytest.approx(sum(known) / 4, rel=1e-6)


def test_unknown_labels_get_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    MultiLabel().loss(logits, LABELS).backward()
    assert torch.equal(logits.grad == 0, LABELS.isnan())
    assert MultiLabel().loss(LOGITS[2:], LABELS[2:]) == 0


def test_label_accuracy() -> None:
    """Right are the first label and the two known ones of the second image, wrong is one."""
    assert MultiLabel().metrics(LOGITS, LABELS) == {"accuracy": torch.tensor(0.75)}
    assert MultiLabel().metrics(LOGITS[2:], LABELS[2:])["accuracy"] == 0


@pytest.mark.parametrize(
    "labels",
    [torch.zeros(3, dtype=torch.int64), torch.zeros(3, 3).long(), torch.zeros(3, 2)],
    ids=["classes", "integers", "too few"],
)
def test_other_labels_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"for logits of shape \(3, 3\): several labels an image"):
        MultiLabel().loss(LOGITS, labels)
    with pytest.raises(ValueError, match="2 positive_weights for 3 labels"):
        MultiLabel((1.0, 2.0)).loss(LOGITS, LABELS)


def goal(rule: TargetRule, labels: Tensor, logits: Tensor, **options: object) -> Tensor:
    """The labels that an attack at `logits` aims at, NaN where none, from its objective's gradient.

    Binary cross-entropy has the gradient probability minus label.
    """
    points, options = (
        logits[:, :, None, None].clone().requires_grad_(),
        {"generator": None, **options},
    )
    objective = MultiLabel().objective(nn.Flatten(), points, labels, rule, **options)
    (gradient,) = torch.autograd.grad(objective(points), points)
    sign = 1 if rule is untargeted else -1
    return (logits.sigmoid() - sign * gradient.flatten(1)).where(gradient.flatten(1) != 0, NAN)


@pytest.mark.parametrize("rule", [untargeted, given])
def test_rules_without_a_wrong_class_keep_the_labels(rule: TargetRule) -> None:
    torch.testing.assert_close(goal(rule, LABELS, LOGITS), LABELS, equal_nan=True)


def test_the_least_likely_class_is_the_surest_label() -> None:
    """Of the first image its first label, of the second its second, wherever both are right."""
    expected = torch.tensor([[0.0, NAN, NAN], [NAN, 1.0, NAN], [NAN, NAN, NAN]])
    found = goal(least_likely_class, LABELS, LOGITS)
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_a_random_wrong_class_is_one_known_label_flipped() -> None:
    count = 3000
    labels = torch.tensor([1.0, 0.0, NAN, 0.0, 1.0]).expand(count, 5)
    streams = ImageStreams.for_batch(0, 0, range(count))
    found = goal(random_other_class, labels, torch.zeros(count, 5), generator=streams)
    flips = (~found.isnan()).sum(dim=0)
    assert flips.sum() == count
    torch.testing.assert_close(found.nansum(dim=0) / flips, 1 - labels[0], equal_nan=True)
    assert stats.chisquare(flips[[0, 1, 3, 4]].numpy()).pvalue > 1e-3


def test_a_single_label_can_be_flipped() -> None:
    found = goal(random_other_class, LABELS[:, :1], LOGITS[:, :1])
    torch.testing.assert_close(found, torch.tensor([[0.0], [NAN], [NAN]]), equal_nan=True)


@pytest.mark.parametrize("rule", [untargeted, least_likely_class, random_other_class])
def test_attacks_raise_the_loss(rule: TargetRule) -> None:
    model, images = tiny_net().eval(), tiny_images()
    labels = (model(images) > 0).float().detach()
    labels[:, 0] = NAN
    attack = PGD(threat_model=Linf(0.1), num_steps=4, step_size=0.05, targets=rule)
    batch = Batch(images=images, labels=labels)
    found = MultiLabel().adversarial_images(attack, model, batch, seeded())
    assert labels.shape == (8, NUM_CLASSES)
    assert MultiLabel().loss(model(found), labels) > MultiLabel().loss(model(images), labels)
