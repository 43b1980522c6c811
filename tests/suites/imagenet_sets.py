"""Small copies of ImageNet's test sets, and a model that reads its prediction off the image."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from advprop.config.attacks import AttackConfig, ThreatModelConfig
from advprop.config.evaluation import EvaluationConfig
from advprop.data.preprocessing import Preprocessing
from advprop.models.standardize import standardized
from advprop.suites.imagenet.classes import imagenet_wnids
from advprop.suites.registry import SUITES
from advprop.suites.subjects import Subject
from advprop.suites.trial import Trial

SIZE = 8


class Reader(nn.Module):
    """The image's colour tells which output is largest; those beside it follow."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        red, green, _ = (255 * images).mean(dim=(2, 3)).round().T
        told = 256 * (red / 60).round() + green
        return -(torch.arange(self.num_classes) - told[:, None]).abs()


def subject(
    class_names: Sequence[str] | None = None, *, preprocessing: Preprocessing | None = None
) -> Subject:
    """A model of `class_names`, by default ImageNet's."""
    names = tuple(imagenet_wnids() if class_names is None else class_names)
    model = standardized(Reader(len(names)), mean=[0.0] * 3, std=[1.0] * 3)
    attack = AttackConfig(threat_model=ThreatModelConfig(epsilon=0), num_steps=0, step_size=0)
    return Subject(
        name="reader",
        model=model.eval(),
        evaluation=EvaluationConfig(batch_size=100, attack=attack),
        weights="none",
        class_names=names,
        preprocessing=preprocessing or Preprocessing(image_shape=(3, SIZE, SIZE), crop_pct=1.0),
    )


def picture(output: int, size: int = SIZE) -> Image.Image:
    """An image that `Reader` predicts `output` for."""
    return Image.new("RGB", (size, size), (60 * (output // 256), output % 256, 0))


def write_classes(root: Path, outputs: Mapping[str, Sequence[int]], size: int = SIZE) -> Path:
    """A folder for each class; in it a picture for each prediction."""
    for name, predicted in outputs.items():
        (root / name).mkdir(parents=True)
        for number, output in enumerate(predicted):
            picture(output, size).save(root / name / f"{number}.png")
    return root


def found_by(
    suite: str, folder: Path, tested: Subject | None = None, *, limit: int | None = None
) -> dict[str, Any]:
    """What the suite finds, without its warning that the set is small."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*the published set has")
        return SUITES[suite].run(trial(suite, folder, tested, limit=limit))


def trial(
    suite: str, folder: Path, tested: Subject | None = None, *, limit: int | None = None
) -> Trial:
    """A trial of `suite` on `folder`."""
    open_folder = SUITES[suite].open_folder
    assert open_folder is not None
    return Trial(
        subject=tested or subject(),
        eval_branch="clean",
        attack_branch="clean",
        folder=folder,
        open_folder=open_folder,
        limit=limit,
    )
