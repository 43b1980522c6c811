"""Attacks with restarts: robust is what survives all, whatever batch it is in."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_images, tiny_net
from torch import Tensor

from advprop.attacks.objectives import untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.random_search import margins, random_search
from advprop.attacks.threat_models import L2, Linf, ThreatModel
from advprop.evaluation.robustness import (
    attack_with_restarts,
    evaluate_adversarial,
    evaluate_curve,
    evaluate_transfer,
)
from advprop.randomness import ImageStreams
from advprop.shapes import Batch, LogitsFn, correct_predictions

COUNT = 24


def noise(epsilon: float) -> PGD:
    """Zero steps: each restart is another random point, some of which happen to fool."""
    return PGD(threat_model=Linf(epsilon), num_steps=0, step_size=0.0)


def pgd(ball: ThreatModel, num_steps: int = 5) -> PGD:
    size = ball.epsilon / 2
    return PGD(threat_model=ball, num_steps=num_steps, step_size=size, targets=untargeted)


def net(seed: int = 0) -> LogitsFn:
    """A tiny net, its logits around zero, so that it names every class now and then."""
    model = tiny_net(seed).double().eval()
    centre = model(tiny_images(COUNT).double()).mean(dim=0).detach()
    return lambda pixels: model(pixels) - centre


def images() -> Batch:
    """Images with the labels that the net gives them, so that all are correct."""
    pixels = tiny_images(COUNT).double()
    return Batch(images=pixels, labels=net()(pixels).argmax(dim=1), indices=torch.arange(COUNT))


def parts(batch: Batch, *sizes: int) -> list[Batch]:
    chosen = torch.arange(len(batch)).split(list(sizes))
    return [Batch(images=batch.images[p], labels=batch.labels[p], indices=p) for p in chosen]


def found(batch: Batch, attack: PGD, restarts: int) -> tuple[Tensor, Tensor]:
    return attack_with_restarts(
        attack, batch, attacked_logits_fn=net(), logits_fn=net(), restarts=restarts
    )


def test_restarts_find_more_and_each_survivor_survived_all() -> None:
    batch, attack = images(), noise(0.3)
    one, many = found(batch, attack, 1)[1], found(batch, attack, 8)[1]
    assert 0 < many.sum() < one.sum()
    assert not (many & ~one).any()
    survived = torch.ones(COUNT, dtype=torch.bool)
    for restart in range(8):  # the same attacks, every one on all images
        streams = ImageStreams.for_batch(0, 0, batch.indices, [restart] * COUNT)
        attacked = attack(net(), batch.images, batch.labels, generator=streams)
        survived &= correct_predictions(net()(attacked), batch.labels)
    assert torch.equal(many, survived)


def test_the_best_perturbation_is_kept() -> None:
    batch = images()
    (few, _), (many, survived) = found(batch, noise(0.3), 2), found(batch, noise(0.3), 8)
    before, after = (margins(net()(version), batch.labels) for version in (few, many))
    assert (after <= before).all()
    assert (after < before).any()
    assert torch.equal(after > 0, survived)


@pytest.mark.parametrize("ball", [Linf(0.05), L2(0.5)], ids=str)
def test_results_do_not_depend_on_the_batch(ball: ThreatModel) -> None:
    batch, attack = images(), pgd(ball, num_steps=2)
    whole = found(batch, attack, 4)
    split = [found(part, attack, 4) for part in parts(batch, 5, 1, 18)]
    torch.testing.assert_close(torch.cat([a for a, _ in split]), whole[0], rtol=0, atol=1e-9)
    assert torch.equal(torch.cat([correct for _, correct in split]), whole[1])


def test_images_wrong_from_the_start_are_not_attacked() -> None:
    batch = images()
    labels = batch.labels.clone()
    labels[:10] = (labels[:10] + 1) % 5
    seen: list[int] = []

    def spy(shown: Tensor) -> Tensor:
        seen.append(len(shown))
        return net()(shown)

    wrong = Batch(images=batch.images, labels=labels, indices=batch.indices)
    result = evaluate_adversarial(net(), [wrong], attack=pgd(Linf(1e-9)), attacked_logits_fn=spy)
    assert result["adversarial_accuracy"] == 14 / COUNT
    assert result["num_attacked"] == 14
    assert set(seen) == {14}


def test_nothing_left_to_attack() -> None:
    batch = images()
    wrong = Batch(images=batch.images, labels=(batch.labels + 1) % 5)
    result = evaluate_adversarial(net(), [wrong], attack=pgd(Linf(0.1)), attacked_logits_fn=net())
    assert result["adversarial_accuracy"] == 0.0
    assert result["perturbation"] == 0.0
    assert "reached" not in result


def test_a_curve_falls_from_clean_accuracy() -> None:
    attacks = [pgd(Linf(0.0), 0), *(pgd(Linf(e)) for e in (0.01, 0.05, 0.2)), pgd(L2(0.5))]
    points = evaluate_curve(net(), [images()], attacks=attacks, attacked_logits_fn=net())
    accuracies = [point["accuracy"] for point in points]
    assert accuracies[0] == 1.0
    assert accuracies[:4] == sorted(accuracies[:4], reverse=True)
    assert accuracies[3] < accuracies[0]
    for point in points:
        assert point["largest"] <= point["epsilon"] + 1e-7
    assert [point["threat_model"] for point in points] == ["Linf"] * 4 + ["L2"]


def test_transfer_shows_one_models_images_to_another() -> None:
    batch = images()
    options = {"attack": pgd(Linf(0.1)), "restarts": 2}
    itself = evaluate_transfer(net(), [batch], source_logits_fn=net(), **options)
    assert itself["transfer_accuracy"] == itself["source_accuracy"] < 1.0
    white = evaluate_adversarial(net(), [batch], attacked_logits_fn=net(), **options)
    assert itself["transfer_accuracy"] == white["adversarial_accuracy"]
    other = evaluate_transfer(net(), [batch], source_logits_fn=net(7), **options)
    assert other["transfer_accuracy"] > itself["transfer_accuracy"]
    assert other["num_attacked"] == COUNT


@pytest.mark.parametrize("ball", [Linf(0.1), L2(1.0)], ids=str)
def test_random_search_stays_inside_and_gets_better_with_queries(ball: ThreatModel) -> None:
    batch = images()
    streams = ImageStreams.for_batch(0, 0, batch.indices)
    least = []
    for queries in (1, 10, 60):
        searched = random_search(
            net(),
            batch.images,
            batch.labels,
            threat_model=ball,
            num_queries=queries,
            streams=streams,
        )
        change = searched - batch.images
        torch.testing.assert_close(ball.project(change), change)
        assert searched.min() >= 0
        assert searched.max() <= 1
        least.append(margins(net()(searched), batch.labels))
    assert least[2].mean() < least[1].mean() < least[0].mean()


def test_margins_are_negative_where_wrong() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 1.0, 5.0]])
    assert margins(logits, torch.tensor([0, 1])).tolist() == [1.0, -4.0]
    assert margins(logits, torch.eye(3)[[0, 1]]).tolist() == [1.0, -4.0]
