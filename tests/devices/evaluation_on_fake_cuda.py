"""Evaluation on fake CUDA tensors: `test_fake_cuda.py` runs this file in a new Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fake_cuda import DEVICE, Findings, fake_cuda
from tiny import IMAGE_SHAPE, NUM_CLASSES, tiny_net
from torch import nn

from advprop.attacks.pgd import PGD
from advprop.attacks.random_search import random_search
from advprop.attacks.threat_models import L2, Linf, ThreatModel
from advprop.evaluation import autoattack
from advprop.evaluation.accuracy import evaluate_clean, evaluate_noise
from advprop.evaluation.autoattack import evaluate_autoattack
from advprop.evaluation.clean_report import report_clean
from advprop.evaluation.gallery import record_gallery, record_predictions
from advprop.evaluation.probes import (
    probe_black_box,
    probe_gradients,
    probe_outputs,
    probe_standardisation,
)
from advprop.evaluation.robustness import evaluate_adversarial, evaluate_curve, evaluate_transfer
from advprop.randomness import ImageStreams
from advprop.shapes import Batch

pytestmark = pytest.mark.full

BATCH_SIZE = 4
LINF = Linf(4 / 255)
ATTACK = PGD(threat_model=LINF, num_steps=1, step_size=1 / 255)
NAMES = [f"class {number}" for number in range(NUM_CLASSES)]


def batches(count: int) -> list[Batch]:
    images = torch.rand(BATCH_SIZE, *IMAGE_SHAPE, device=DEVICE)
    labels = torch.zeros(BATCH_SIZE, dtype=torch.int64, device=DEVICE)
    return [
        Batch(images=images, labels=labels, indices=number * BATCH_SIZE + torch.arange(BATCH_SIZE))
        for number in range(count)
    ]


@pytest.fixture
def found() -> Iterator[Findings]:
    with fake_cuda() as found:
        yield found


@pytest.fixture
def model(found: Findings) -> nn.Module:
    model = tiny_net().to(DEVICE).eval()
    found.clear()
    return model


Evaluation = Callable[[nn.Module, list[Batch]], Any]
ATTACKED = {"attack": ATTACK, "restarts": 2}
EVALUATIONS: dict[str, Evaluation] = {
    "report": lambda fn, of: report_clean(fn, of, class_names=NAMES),
    "adversarial": lambda fn, of: evaluate_adversarial(fn, of, attacked_logits_fn=fn, **ATTACKED),
    "curve": lambda fn, of: evaluate_curve(fn, of, attacks=[ATTACK], attacked_logits_fn=fn),
    "transfer": lambda fn, of: evaluate_transfer(fn, of, source_logits_fn=fn, **ATTACKED),
    "outputs": lambda fn, of: probe_outputs(fn, of[0].images),
    "gradients": lambda fn, of: probe_gradients(fn, of[0].images, threat_model=L2(1.0)),
    "black box": lambda fn, of: probe_black_box(
        fn, of[0], attack=ATTACK, attacked_logits_fn=fn, threat_model=LINF
    ),
    "standardisation": lambda fn, of: probe_standardisation(fn, fn, of[0]),
    "gallery": lambda fn, of: record_gallery(fn, of[0], attack=ATTACK, class_names=NAMES),
    "predictions": lambda fn, of: record_predictions(fn, of, class_names=NAMES),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluation_stays_on_the_device(name: str, model: nn.Module) -> None:
    EVALUATIONS[name](model, batches(2))


@pytest.mark.parametrize("ball", [LINF, L2(1.0)])
def test_autoattack_stays_on_the_device(
    ball: ThreatModel, model: nn.Module, found: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found.number = BATCH_SIZE  # of images that are still right
    monkeypatch.setattr(autoattack, "ITERATIONS", 2)
    monkeypatch.setattr(autoattack, "QUERIES", 2)
    evaluate_autoattack(model, batches(1), threat_model=ball, attacked_logits_fn=model)


VALIDATIONS: dict[str, Evaluation] = {
    "clean": evaluate_clean,
    "noise": lambda fn, of: evaluate_noise(fn, of, standard_deviation=0.1),
}


@pytest.mark.parametrize("name", VALIDATIONS)
def test_accuracies_wait_once_however_many_batches(
    name: str, model: nn.Module, found: Findings
) -> None:
    VALIDATIONS[name](model, batches(3))
    assert found.waits == {("copy to cpu", "evaluation/accuracy.py:joined"): found.waits.total()}
    assert found.waits.total() == 1


def test_a_random_search_does_not_wait(model: nn.Module, found: Findings) -> None:
    (batch,) = batches(1)
    streams = ImageStreams.for_batch(0, 0, batch.indices)
    kinds = {"threat_model": LINF, "num_queries": 5, "streams": streams}
    random_search(model, batch.images, batch.labels, **kinds)
    assert not found.waits
