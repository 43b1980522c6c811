"""Predictions among some classes, and labels that accept several."""

from __future__ import annotations

import pytest
import torch

from advprop.evaluation.accepted import accepted_predictions
from advprop.evaluation.accuracy import evaluate_clean
from advprop.evaluation.intervals import bootstrap_interval
from advprop.shapes import Batch

LOGITS = torch.tensor([[0.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 2.0, 3.0]])


def batch(labels: list[int]) -> list[Batch]:
    # an image's red value is its row of LOGITS
    images = torch.arange(len(labels)).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 10
    return [
        Batch(images=part, labels=torch.tensor(labels[start : start + 2]))
        for start, part in ((0, images[:2]), (2, images[2:]))
        if len(part)
    ]


def logits_fn(images: torch.Tensor) -> torch.Tensor:
    return LOGITS[(images[:, 0, 0, 0] * 10).round().long()]


def test_the_identity_is_clean_accuracy() -> None:
    labels = [1, 1, 3]
    correct = accepted_predictions(logits_fn, batch(labels), accepted=torch.eye(4).bool())
    assert correct.tolist() == [True, False, True]
    clean = evaluate_clean(logits_fn, batch(labels))
    assert clean["clean_accuracy"] == correct.double().mean()


def test_only_some_classes_compete() -> None:
    # by hand: of outputs 2 and 0, in this order, 2 wins, then 0, then 2
    correct = accepted_predictions(
        logits_fn, batch([2, 0, 0]), accepted=torch.eye(4).bool(), among=torch.tensor([2, 0])
    )
    assert correct.tolist() == [True, True, False]


def test_labels_may_accept_several_classes_or_none_of_the_predicted() -> None:
    accepted = torch.tensor([[False, True, False, True], [False, False, True, False]])
    correct = accepted_predictions(logits_fn, batch([0, 1, 0]), accepted=accepted)
    assert correct.tolist() == [True, False, True]


def test_wrong_sizes_are_told() -> None:
    with pytest.raises(ValueError, match="4 outputs, the labels are about 5 classes"):
        accepted_predictions(logits_fn, batch([0, 1, 0]), accepted=torch.eye(5).bool())
    with pytest.raises(ValueError, match="set is empty"):
        accepted_predictions(logits_fn, [], accepted=torch.eye(4).bool())


def test_bootstrap_interval_is_that_of_resampled_images() -> None:
    correct = torch.arange(200) < 150
    low, high = bootstrap_interval(correct)
    assert [low, high] == bootstrap_interval(correct.flip(0))
    generator = torch.Generator().manual_seed(1)
    means = correct.double()[torch.randint(200, (4000, 200), generator=generator)].mean(dim=1)
    expected = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    # the ends of 1,000 resamples move by about a tenth of the interval's half
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.012)
    assert bootstrap_interval(torch.ones(5).bool()) == [1, 1]
    with pytest.raises(ValueError, match="no images"):
        bootstrap_interval(torch.ones(0).bool())
