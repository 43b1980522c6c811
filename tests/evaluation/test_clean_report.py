"""The figures of the clean suite, by hand."""

from __future__ import annotations

import pytest
import torch

from advprop.evaluation.accuracy import evaluate_clean
from advprop.evaluation.clean_report import calibration, report_clean
from advprop.shapes import Batch

NAMES = ("ant", "bee", "cat")
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTIONS = torch.tensor([0, 1, 1, 2, 1, 1, 1, 2])


def classifier(images: torch.Tensor) -> torch.Tensor:
    """The class stands in the first value of each image; it is three times as likely as another."""
    classes = images[:, 0, 0, 0].long()
    return torch.log(torch.eye(3)[classes] * 2 + 1)


def batches() -> list[Batch]:
    images = PREDICTIONS.float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return [Batch(images=images[part], labels=LABELS[part]) for part in (slice(3), slice(3, 8))]


def test_classes_and_confusions_are_counted() -> None:
    found = report_clean(classifier, batches(), class_names=NAMES)
    assert (found["clean_accuracy"], found["num_images"]) == (0.5, 8)
    assert found["per_class"] == [
        {"class": "ant", "accuracy": 0.25, "num_images": 4},
        {"class": "bee", "accuracy": 1.0, "num_images": 2},
        {"class": "cat", "accuracy": 0.5, "num_images": 2},
    ]
    assert found["confusion"] == [
        {"class": "ant", "predicted": "bee", "count": 2},
        {"class": "ant", "predicted": "cat", "count": 1},
        {"class": "cat", "predicted": "bee", "count": 1},
    ]
    low, high = found["ci95"]
    assert low < 0.5 < high
    # every confidence is 3 / 5: one bin, and half of it right
    assert found["calibration"]["ece"] == pytest.approx(0.1)
    assert "top5_accuracy" not in found


def test_top5_where_there_are_more_than_five_classes() -> None:
    logits = torch.arange(8.0).repeat(4, 1)  # class 7 first, 3 fifth
    batch = Batch(images=torch.zeros(4, 1, 2, 2), labels=torch.tensor([7, 3, 2, 0]))
    found = report_clean(lambda images: logits, [batch], class_names=list("abcdefgh"))
    assert (found["clean_accuracy"], found["top5_accuracy"]) == (0.25, 0.5)


def test_it_agrees_with_the_quick_figures() -> None:
    logits = torch.randn(60, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 9
    batch = Batch(images=torch.zeros(60, 1, 2, 2), labels=labels)
    quick = evaluate_clean(lambda images: logits, [batch])
    full = report_clean(lambda images: logits, [batch], class_names=[str(n) for n in range(9)])
    assert quick == {name: full[name] for name in quick}


def test_calibration_by_hand() -> None:
    confidences = torch.tensor([0.05, 0.2, 0.9, 0.95, 1.0, 1.0], dtype=torch.double)
    correct = torch.tensor([True, False, True, False, True, True])
    found = calibration(confidences, correct)
    assert found["num_bins"] == 15
    # bins of a fifteenth: (0, 1/15], (2/15, 3/15], (13/15, 14/15], (14/15, 1]
    assert [entry["num_images"] for entry in found["bins"]] == [1, 1, 1, 3]
    assert found["bins"][3]["low"] == 14 / 15
    gaps = (1 - 0.05) + (0.2 - 0) + (1 - 0.9) + 3 * abs(2 / 3 - 2.95 / 3)
    assert found["ece"] == pytest.approx(gaps / 6)


def test_classes_without_images_are_left_out() -> None:
    batch = Batch(images=torch.zeros(2, 1, 2, 2), labels=torch.tensor([0, 0]))
    found = report_clean(classifier, [batch], class_names=NAMES)
    assert [entry["class"] for entry in found["per_class"]] == ["ant"]
    assert found["confusion"] == []


def test_no_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        report_clean(classifier, [], class_names=NAMES)
