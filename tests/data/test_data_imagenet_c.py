"""Corrupted images on disk, laid out as ImageNet-C: what is missing or mixed is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advprop.data.sets.stored import (
    StoredSplit,
    check_imagenet_c,
    is_imagenet_c,
    load_imagenet_c,
)
from advprop.data.splits import Key

CLASSES = ("n01440764", "n01443537")
CORRUPTIONS = ("fog", "snow")
SEVERITIES = (1, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two corruptions at two severities, two classes of two images of 20 x 14 pixels."""
    for place, name in enumerate(CORRUPTIONS):
        for severity in SEVERITIES:
            for label, wnid in enumerate(CLASSES):
                folder = tmp_path / name / str(severity) / wnid
                folder.mkdir(parents=True)
                for number in range(2):
                    shade = 100 * place + 40 * severity + 10 * label + number
                    Image.new("RGB", (20, 14), (shade,) * 3).save(folder / f"{number}.png")
    return tmp_path


def check(root: Path) -> None:
    check_imagenet_c(root, class_names=CLASSES, corruptions=CORRUPTIONS, severities=SEVERITIES)


def load(folder: Path, classes: tuple[str, ...] = CLASSES) -> StoredSplit:
    return load_imagenet_c(folder, class_names=classes, channels=3)


def test_images_are_neither_resized_nor_cropped(root: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (14, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "fog" / "2" / CLASSES[1] / "0.png")
    split = load(root / "fog" / "2")
    assert split.labels.tolist() == [0, 0, 1, 1]
    image = split.image(2)
    assert torch.equal(image, torch.from_numpy(noise).permute(2, 0, 1) / 255)
    assert split.images([Key(None, 0), Key(None, 2)]).shape == (2, 3, 14, 20)


def test_labels_follow_the_model(root: Path) -> None:
    assert load(root / "snow" / "1", CLASSES[::-1]).labels.tolist() == [1, 1, 0, 0]


def test_the_layout_is_recognised(root: Path, tmp_path: Path) -> None:
    assert is_imagenet_c(root, CLASSES)
    weather = tmp_path / "weather"
    for name in ("fog", "sun"):
        (weather / name / "2023").mkdir(parents=True)
    shutil.rmtree(weather / "fog" / "2023")
    assert not is_imagenet_c(weather, ("fog", "sun"))
    with pytest.raises(OSError, match="no folder"):
        is_imagenet_c(root / "none", CLASSES)


def _resize_one(root: Path) -> None:
    Image.new("RGB", (20, 15)).save(root / "fog" / "1" / CLASSES[1] / "1.png")


FAULTS = {
    "corruption": (lambda r: shutil.rmtree(r / "snow"), r"lacks 1 of 2 corruptions \(snow\)"),
    "severity": (lambda r: shutil.rmtree(r / "fog/2"), r"lacks 1 of 4 severities \(fog/2\)"),
    "class": (
        lambda r: shutil.rmtree(r / "snow/1" / CLASSES[0]),
        r"snow/1 lacks 1 of the model's 2 classes \(n01440764\)",
    ),
    "unknown class": (
        lambda r: (r / "snow/1/tench").mkdir(),
        r"1 classes that the model does not know \(tench\)",
    ),
    "no classes": (
        lambda r: [shutil.rmtree(r / "fog/1" / name) for name in CLASSES],
        "CORRUPTION/SEVERITY/CLASS/images",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_told_before_anything_is_read(root: Path, fault: str) -> None:
    check(root)
    break_it, message = FAULTS[fault]
    break_it(root)
    with pytest.raises(ValueError, match=message):
        check(root)


def test_mixed_sizes_are_told_with_the_file(root: Path) -> None:
    _resize_one(root)
    split = load(root / "fog" / "1")
    with pytest.raises(ValueError, match=r"1\.png has 20 x 15 pixels, others .* 20 x 14"):
        split.images([Key(None, index) for index in range(4)])


def test_an_empty_class_is_told(root: Path) -> None:
    for path in (root / "fog/1" / CLASSES[0]).iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no images for the class n01440764"):
        load(root / "fog" / "1")
