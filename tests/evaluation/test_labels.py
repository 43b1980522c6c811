"""Several labels an image: measures against other libraries, and the attack's choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from tiny import NUM_CLASSES, seeded, tiny_images, tiny_net

from advprop.attacks.objectives import untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.evaluation.accuracy import by_label, evaluate_clean, evaluate_noise, scored
from advprop.evaluation.labels import report_labels
from advprop.evaluation.robustness import evaluate_adversarial, evaluate_curve
from advprop.shapes import Batch

NAMES = tuple("abcde")
MODEL = tiny_net().eval()
ATTACK = PGD(threat_model=Linf(0.1), num_steps=3, step_size=0.05, targets=untargeted)


def batches() -> list[Batch]:
    """Fifty images; label 1 is unknown for some, label 3 present in all."""
    images = tiny_images(50)
    labels = torch.rand(50, NUM_CLASSES, generator=seeded()).round()
    labels[::3, 1], labels[:, 3] = torch.nan, 1.0
    indices = torch.arange(50)
    return [
        Batch(images=images[part], labels=labels[part], indices=indices[part])
        for part in (slice(30), slice(30, None))
    ]


def joined() -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        logits = torch.cat([MODEL(batch.images) for batch in batches()])
    return logits, torch.cat([batch.labels for batch in batches()])


def test_a_score_is_the_share_of_known_labels() -> None:
    logits = torch.tensor([[1.0, -1.0, 2.0, -3.0]]).expand(3, 4)
    labels = torch.tensor([[1.0, 0, 1, 0], [0, 0, torch.nan, 1], [torch.nan] * 4])
    assert scored(logits, labels).tolist() == pytest.approx([1, 1 / 3, 0])


def test_measures_are_those_of_scikit_learn() -> None:
    logits, labels = joined()
    found = by_label(logits.double(), labels)
    assert found[3] == {}
    for place in (0, 1, 2, 4):
        known = ~labels[:, place].isnan().numpy()
        truth, sure = labels[:, place].numpy()[known], logits[:, place].numpy()[known]
        assert found[place] == pytest.approx(
            {
                "auroc": roc_auc_score(truth, sure),
                "average_precision": average_precision_score(truth, sure),
                "f1": f1_score(truth, sure > 0, zero_division=0),
            },
            abs=1e-6,
        )


def test_report() -> None:
    logits, labels = joined()
    report = report_labels(MODEL, batches(), class_names=NAMES)
    scores = scored(logits, labels)
    assert report["clean_accuracy"] == pytest.approx(scores.mean().item())
    assert report["ci95"][0] < report["clean_accuracy"] < report["ci95"][1]
    assert evaluate_clean(MODEL, batches())["clean_accuracy"] == report["clean_accuracy"]
    each = [roc_auc_score(labels[:, n], logits[:, n]) for n in (0, 2, 4)]
    (unknown,) = (entry["auroc"] for entry in report["per_class"] if entry["class"] == "b")
    assert report["clean_auroc"] == pytest.approx(np.mean([*each, unknown]))
    assert "auroc" not in report["per_class"][3]
    assert [entry["num_images"] for entry in report["per_class"]] == [50, 33, 50, 50, 50]
    assert report["per_class"][3]["num_present"] == 50
    assert sum(part["num_images"] for part in report["calibration"]["bins"]) == 233
    assert "confusion" not in report


def test_noise() -> None:
    clean = report_labels(MODEL, batches(), class_names=NAMES)
    found = evaluate_noise(MODEL, batches(), standard_deviation=0.0)
    for measure in ("accuracy", "auroc", "average_precision", "f1"):
        assert found[f"noise_{measure}"] == pytest.approx(clean[f"clean_{measure}"])
    noisy = evaluate_noise(MODEL, batches(), standard_deviation=0.5)
    assert noisy["noise_auroc"] != found["noise_auroc"]


@pytest.mark.parametrize("restarts", [1, 3])
def test_an_attack_lowers_all_measures(restarts: int) -> None:
    clean = report_labels(MODEL, batches(), class_names=NAMES)
    functions = {"attacked_logits_fn": MODEL, "restarts": restarts}
    found = evaluate_adversarial(MODEL, batches(), attack=ATTACK, **functions)
    for measure in ("auroc", "average_precision"):
        assert found[f"adversarial_{measure}"] < clean[f"clean_{measure}"]
    assert found["num_attacked"] == found["num_images"] == 50
    assert 0.5 < found["reached"] <= 1 + 1e-6
    (point,) = evaluate_curve(MODEL, batches(), attacks=[ATTACK], **functions)
    assert point["accuracy"] == found["adversarial_accuracy"]


class Right:
    """An attack that shows each image's known labels in its first pixels."""

    passes_per_image = 0.0

    def __call__(
        self, logits_fn: object, images: torch.Tensor, labels: torch.Tensor, **_: object
    ) -> torch.Tensor:
        shown = images.flatten(1).clone()
        shown[:, :NUM_CLASSES] = labels.nan_to_num(0.5)
        return shown.reshape(images.shape)


def test_images_that_an_attack_makes_better_stay_clean() -> None:
    def first_pixels(images: torch.Tensor) -> torch.Tensor:
        return 4 * images.flatten(1)[:, :NUM_CLASSES] - 2

    found = evaluate_adversarial(
        first_pixels, batches(), attack=Right(), attacked_logits_fn=first_pixels
    )
    clean = evaluate_clean(first_pixels, batches())
    assert found["adversarial_accuracy"] == clean["clean_accuracy"] < 1
    assert found["perturbation"] == 0
