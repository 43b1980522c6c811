"""Each red flag is raised by a planted fault, and none by a sound model on sound images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.config.attacks import AttackConfig, ThreatModelConfig
from advprop.config.evaluation import EvaluationConfig
from advprop.data.preprocessing import Preprocessing
from advprop.data.splits import ArraySplit, ImageData
from advprop.models.standardize import Standardized, standardized
from advprop.suites import Subject
from advprop.suites.evaluating import evaluate_trial
from advprop.suites.red_flags import find_overlap, find_red_flags
from advprop.suites.trial import Trial

COUNT, SIDE = 60, 8
STATISTICS = {"mean": [0.5] * 3, "std": [0.25] * 3}
SOUND = EvaluationConfig(
    batch_size=40,
    noise_standard_deviation=0.05,
    attack=AttackConfig(
        threat_model=ThreatModelConfig(epsilon=0.06),
        num_steps=5,
        step_size=0.03,
        targets="untargeted",
    ),
    epsilons=(0.02, 0.06, 0.1),
    l2_epsilons=(0.5,),
)


def pixels(seed: int) -> Tensor:
    """Noise, of which the quarter that is the class (image index modulo 4) is brighter."""
    shown = torch.full((COUNT, 3, SIDE, SIDE), 110.0)
    for index in range(COUNT):
        row, column = divmod(index % 4, 2)
        shown[index, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 25
    noise = torch.randn(shown.shape, generator=torch.Generator().manual_seed(seed))
    return (shown + 8 * noise).round().clamp(0, 255).byte()


def quarters(*, before: nn.Module | None = None, after: nn.Module | None = None) -> nn.Module:
    """Logits are the brightness of the quarters; `before` and `after` are planted faults."""
    head = nn.Linear(12, 4)
    with torch.no_grad():
        head.weight.copy_(10 * torch.eye(4).repeat(1, 3))
        head.bias.zero_()
    layers = [before, nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), head, after]
    return nn.Sequential(*(layer for layer in layers if layer is not None))


def trial(
    model: nn.Module | None = None, evaluation: EvaluationConfig = SOUND, **options: Any
) -> Trial:
    labels = torch.arange(COUNT) % 4
    splits = {name: ArraySplit(pixels=pixels(seed), labels=labels) for name, seed in SPLITS.items()}
    preprocessing = Preprocessing(image_shape=(3, SIDE, SIDE), interpolation="bicubic", crop_pct=1)
    names = ("a", "b", "c", "d")
    data = ImageData(name="quarters", class_names=names, preprocessing=preprocessing, **splits)
    subject = Subject(
        name="planted",
        model=(standardized(quarters(), **STATISTICS).eval() if model is None else model),
        evaluation=evaluation,
        weights="last",
        class_names=names,
        preprocessing=preprocessing,
        load_data=lambda: data,
    )
    return Trial(subject=subject, **{"eval_branch": "clean", "attack_branch": "clean", **options})


SPLITS = {"train": 1, "validation": 2, "test": 3}


def flags(planted: Trial, *suites: str) -> dict[str, dict[str, Any]]:
    found = evaluate_trial(planted, suites=suites or ("clean", "noise", "adversarial"))
    return {flag["flag"]: flag for flag in found["red_flags"]}


class Reversed(nn.Module):
    """Straight through, with the gradient the wrong way round."""

    def forward(self, images: Tensor) -> Tensor:
        return 2 * images.detach() - images


class Rounded(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images * 8).round() / 8


class Noisy(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images + 0.05 * torch.randn_like(images)


class Company(nn.Module):
    """Takes the mean of the batch away."""

    def forward(self, images: Tensor) -> Tensor:
        return images - images.mean(dim=0)


class Waves(nn.Module):
    """Turns to another class and back as brightness grows: a step may be too long to see it."""

    def forward(self, images: Tensor) -> Tensor:
        turn = 2 * math.pi * (images.mean(dim=(1, 2, 3)) / 0.2)
        first = turn.cos() + 0.5 * turn.sin()
        return torch.stack([first, -first, first - 9, first - 9], dim=1)


def plain(**faults: nn.Module) -> Standardized:
    return standardized(quarters(**faults), **STATISTICS).eval()


def test_a_sound_model_raises_none() -> None:
    found = evaluate_trial(trial(), suites=("clean", "noise", "adversarial"))
    assert found["red_flags"] == []
    assert found["suites"]["clean"]["clean_accuracy"] == 1.0
    assert found["suites"]["adversarial"]["adversarial_accuracy"] < 0.5
    assert found["checks"]["overlap"]["quarters test"] == {
        "found": 0,
        "test_images": COUNT,
        "train_images": COUNT,
        "of_train_images": COUNT,
    }


PLANTED: dict[str, tuple[str, Callable[[], Standardized]]] = {
    "reversed gradients": ("masked_gradients", lambda: plain(before=Reversed())),
    "a search without gradients": (
        "black_box_beats_white_box",
        lambda: plain(before=Reversed()),
    ),
    "rounded images": ("zero_gradients", lambda: plain(before=Rounded())),
    "a softmax": ("probabilities", lambda: plain(after=nn.Softmax(dim=1))),
    "noise in the model": ("changing_output", lambda: plain(before=Noisy())),
    "statistics of the batch": ("changing_output", lambda: plain(before=Company())),
}


@pytest.mark.parametrize(("flag", "build"), PLANTED.values(), ids=PLANTED)
def test_faults_of_the_model(flag: str, build: Callable[[], Standardized]) -> None:
    found = flags(trial(build().eval()))
    assert flag in found
    assert found[flag]["page"] == f"docs/red_flags.md#{flag.replace('_', '-')}"
    assert len(found[flag]["message"]) > 40


def test_weights_that_expect_images_as_they_are() -> None:
    mean, std = [0.9, 0.9, 0.9], [0.001, 0.001, 0.001]
    wrong = quarters(before=nn.Hardtanh(0.0, 1.0))  # everything below the mean is 0
    assert "double_standardisation" in flags(trial(Standardized(wrong, mean=mean, std=std).eval()))


def test_an_attack_that_hardly_moves() -> None:
    weak = SOUND.attack.model_copy(update={"step_size": 0.001, "random_start_probability": 0.0})
    found = flags(trial(evaluation=SOUND.model_copy(update={"attack": weak})))
    assert found["small_perturbation"]["suite"] == "adversarial"
    assert "step_size" in found["small_perturbation"]["message"]


def test_accuracy_that_rises_with_epsilon() -> None:
    one_step = AttackConfig(
        threat_model=ThreatModelConfig(epsilon=0.1),
        num_steps=1,
        step_size=0.1,
        random_start_probability=0.0,
        targets="untargeted",
    )
    settings = SOUND.model_copy(
        update={"attack": one_step, "epsilons": (0.1, 0.2), "l2_epsilons": ()}
    )
    waves = Standardized(Waves(), mean=[0.0] * 3, std=[1.0] * 3).eval()
    planted = trial(waves, settings)
    data = planted.subject.load_data()
    grey = ArraySplit(
        pixels=torch.full((COUNT, 3, SIDE, SIDE), 102, dtype=torch.uint8),  # two whole turns
        labels=torch.zeros(COUNT, dtype=torch.int64),
    )
    subject = replace(planted.subject, load_data=lambda: replace(data, test=grey))
    found = flags(replace(planted, subject=subject), "adversarial")
    assert "from 0.0% at Linf epsilon 0.1 to 100.0% at 0.2" in found["rising_accuracy"]["message"]


def test_a_branch_that_is_not_exported() -> None:
    model = add_auxiliary_norms(plain())
    found = flags(trial(model, eval_branch="adversarial", attack_branch="adversarial"))
    assert list(found) == ["other_branch"]
    assert flags(trial(model, all_branches=True)) == {}


def test_test_images_among_the_training_images() -> None:
    planted = trial()
    data = planted.subject.load_data()
    leaked = data.train.pixels.clone()
    leaked[5:8] = data.test.pixels[20:23]
    train = ArraySplit(pixels=leaked, labels=data.train.labels)
    subject = replace(planted.subject, load_data=lambda: replace(data, train=train))
    found = flags(replace(planted, subject=subject))
    assert found["seen_in_training"]["message"].startswith("3 of 60 images tested are among 60")
    bounded = SOUND.model_copy(update={"overlap_images": 0})
    assert flags(replace(planted, subject=replace(subject, evaluation=bounded))) == {}


def test_training_images_that_are_gone_are_no_flag() -> None:
    def gone() -> ImageData:
        raise OSError("photos/train: not there")

    planted = trial()
    split, _ = planted.images
    found = find_overlap(replace(planted.subject, load_data=gone), split, limit=None, bound=9)
    assert found == {"found": 0, "not_compared": "photos/train: not there"}


def test_another_model_fools_better_than_the_attack_on_itself() -> None:
    sound = trial()
    hidden = trial(plain(before=Reversed()), source=sound.subject)
    found = evaluate_trial(hidden, suites=("adversarial", "transfer"))
    transfer = [flag for flag in found["red_flags"] if flag["suite"] == "transfer"]
    assert [flag["flag"] for flag in transfer] == ["black_box_beats_white_box"]
    again = evaluate_trial(replace(sound, source=sound.subject), suites=("adversarial", "transfer"))
    assert again["red_flags"] == []


def test_a_folder_of_another_layout_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "fog" / "1" / "a").mkdir(parents=True)  # as ImageNet-C is
    assert find_red_flags({"corruptions": replace(trial(), folder=tmp_path)}, {}) == ([], {})
