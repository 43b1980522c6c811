"""Predictions among some classes, and labels that accept several."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from advprop.evaluation.accuracy import accepted_predictions, evaluate_clean
from advprop.shapes import Batch

LOGITS = torch.tensor([[0.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 2.0, 3.0]])


# an image's red value is its row of LOGITS
IMAGES = torch.arange(3).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 10


def batches(labels: list[int]) -> list[Batch]:
    """Images 0 and 1, then 2."""
    return [
        Batch(images=IMAGES[part], labels=torch.tensor(labels)[part], indices=part)
        for part in torch.arange(3).split(2)
    ]


def rows(*rows: int) -> dict[str, Any]:
    return {"batches": batches([0, 0, 0]), "rows": torch.tensor(rows)}


def logits_fn(images: torch.Tensor) -> torch.Tensor:
    return LOGITS[(images[:, 0, 0, 0] * 10).round().long()]


def test_the_identity_is_clean_accuracy() -> None:
    correct = accepted_predictions(logits_fn, **rows(1, 1, 3), accepted=torch.eye(4).bool())
    assert correct.tolist() == [True, False, True]
    clean = evaluate_clean(logits_fn, batches([1, 1, 3]))
    assert clean["clean_accuracy"] == correct.double().mean()


def test_only_some_classes_compete() -> None:
    # by hand: of outputs 2 and 0, in this order, 2 wins, then 0, then 2
    correct = accepted_predictions(
        logits_fn, **rows(2, 0, 0), accepted=torch.eye(4).bool(), among=torch.tensor([2, 0])
    )
    assert correct.tolist() == [True, True, False]


def test_images_may_have_several_right_classes() -> None:
    accepted = torch.tensor([[False, True, False, True], [False, False, True, False]])
    correct = accepted_predictions(logits_fn, **rows(0, 1, 0), accepted=accepted)
    assert correct.tolist() == [True, False, True]


def test_rows_are_those_of_the_data_set_however_few_are_tested() -> None:
    last = batches([0, 0, 0])[1:]
    every_row = torch.tensor([0, 0, 3])
    found = accepted_predictions(logits_fn, last, rows=every_row, accepted=torch.eye(4).bool())
    assert found.tolist() == [True]


def test_no_images_are_told() -> None:
    none = torch.tensor([], dtype=torch.int64)
    with pytest.raises(ValueError, match="set is empty"):
        accepted_predictions(logits_fn, [], rows=none, accepted=torch.eye(4).bool())
