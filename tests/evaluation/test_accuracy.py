"""Accuracies against hand-made models whose answers are known."""

from __future__ import annotations

import base64
import io
import math

import pytest
import torch
from PIL import Image
from torch import Tensor

from advprop.attacks.objectives import untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.evaluation.accuracy import evaluate_clean, evaluate_noise
from advprop.evaluation.gallery import record_gallery, record_predictions
from advprop.evaluation.robustness import evaluate_adversarial
from advprop.shapes import Batch

NUM_IMAGES = 400


def brightness_classifier(images: Tensor) -> Tensor:
    """Class 1 for images brighter than 0.5 on average, class 0 else."""
    brightness = images.mean(dim=(1, 2, 3))
    return torch.stack([0.5 - brightness, brightness - 0.5], dim=1)


def batches(distance: float) -> list[Batch]:
    """Even grey images of which half lie `distance` below the boundary, half above."""
    labels = torch.arange(NUM_IMAGES) % 2
    values = 0.5 + distance * (2.0 * labels - 1)
    images = values.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
    indices = torch.arange(NUM_IMAGES)
    return [
        Batch(images=images[part], labels=labels[part], indices=indices[part])
        for part in (slice(0, 150), slice(150, 400))
    ]


def test_clean_accuracy_counts_images_not_batches() -> None:
    wrong = batches(0.1)
    wrong[0] = Batch(images=wrong[0].images, labels=1 - wrong[0].labels)
    found = evaluate_clean(brightness_classifier, wrong)
    assert found == {"clean_accuracy": 250 / 400, "num_images": 400}


def test_noise_accuracy_is_that_of_the_normal_distribution() -> None:
    # the mean of 16 values with deviation 0.2 crosses 0.5 from 0.05 away with probability Phi(-1)
    found = evaluate_noise(brightness_classifier, batches(0.05), standard_deviation=0.2)
    expected = 0.5 * math.erfc(-1 / math.sqrt(2))
    deviation = math.sqrt(expected * (1 - expected) / NUM_IMAGES)
    assert abs(found["noise_accuracy"] - expected) < 4 * deviation


def test_noise_does_not_depend_on_batches() -> None:
    seen: list[Tensor] = []

    def spy(images: Tensor) -> Tensor:
        seen.append(images.clone())
        return brightness_classifier(images)

    parts = batches(0.05)
    whole = Batch(
        images=torch.cat([part.images for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        indices=torch.arange(NUM_IMAGES),
    )
    evaluate_noise(spy, parts, standard_deviation=0.2)
    evaluate_noise(spy, [whole], standard_deviation=0.2)
    assert torch.equal(torch.cat(seen[:2]), seen[2])


@pytest.mark.parametrize(("epsilon", "expected"), [(0.04, 1.0), (0.06, 0.0)])
def test_adversarial_accuracy_falls_where_epsilon_reaches_the_boundary(
    epsilon: float, expected: float
) -> None:
    attack = PGD(threat_model=Linf(epsilon), num_steps=5, step_size=epsilon / 2, targets=untargeted)
    found = evaluate_adversarial(
        brightness_classifier,
        batches(0.05),
        attack=attack,
        attacked_logits_fn=brightness_classifier,
    )
    assert found["adversarial_accuracy"] == expected
    assert found["perturbation"] == pytest.approx(epsilon, rel=1e-4)
    assert (found["threat_model"], found["num_steps"]) == ("Linf", 5)


def test_the_attack_goes_through_the_attacked_function() -> None:
    def blind(images: Tensor) -> Tensor:
        return 0.0 * brightness_classifier(images)

    attack = PGD(
        threat_model=Linf(0.06),
        num_steps=5,
        step_size=0.03,
        targets=untargeted,
        random_start_probability=0.0,
    )
    found = evaluate_adversarial(
        brightness_classifier, batches(0.05), attack=attack, attacked_logits_fn=blind
    )
    assert (found["adversarial_accuracy"], found["perturbation"]) == (1.0, 0.0)


def test_no_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        evaluate_clean(brightness_classifier, [])


def test_the_gallery_shows_what_the_attack_did() -> None:
    attack = PGD(threat_model=Linf(0.1), num_steps=3, step_size=0.05, targets=untargeted)
    batch = Batch(
        images=torch.full((2, 1, 4, 4), 0.45),
        labels=torch.tensor([0, 0]),
        indices=torch.tensor([2, 1]),
    )
    entries = record_gallery(
        brightness_classifier,
        batch,
        attack=attack,
        class_names=["dark", "bright"],
        names=["0", "1", "dark/night\x1b.png"],
    )
    assert [entry.get("name") for entry in entries] == ["dark/night\\x1b.png", None]
    for entry in entries:
        assert (entry["label"], entry["clean_prediction"]) == ("dark", "dark")
        assert entry["adversarial_prediction"] == "bright"
    pictures = {}
    for name in ("clean", "perturbation", "adversarial"):
        header, data = entries[0][name].split(",")
        assert header == "data:image/png;base64"
        pictures[name] = Image.open(io.BytesIO(base64.b64decode(data)))
    assert pictures["clean"].getpixel((0, 0)) == round(0.45 * 255)
    assert pictures["adversarial"].getpixel((0, 0)) == round(0.55 * 255)
    assert pictures["perturbation"].getpixel((0, 0)) == 255  # brighter everywhere, stretched


def test_answers_are_recorded_with_small_pictures_and_names_of_their_pixels() -> None:
    images = torch.tensor([0.2, 0.8, 0.2]).view(-1, 1, 1, 1).expand(-1, 3, 100, 50)
    batch = Batch(images=images, labels=torch.tensor([0, 0, 1]))
    found = record_predictions(
        brightness_classifier, [batch], class_names=["dark", "bright"], names=["a.png"] * 3
    )
    assert [image["name"] for image in found["images"]] == ["a.png"] * 3
    assert found["clean"] == ["dark", "bright", "dark"]
    assert found["confidence"] == pytest.approx([1 / (1 + math.exp(-0.6))] * 3, abs=1e-4)
    assert [image["label"] for image in found["images"]] == ["dark", "dark", "bright"]
    first, second, third = (image["id"] for image in found["images"])
    assert first == third != second
    assert len(first) == 12
    _, data = found["images"][0]["picture"].split(",")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (32, 64)
