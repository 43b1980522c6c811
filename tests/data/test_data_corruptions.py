"""Corrupted images depend on image, corruption and severity, and on nothing else."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest

from advprop.data import corruptions
from advprop.data.corruptions import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    check_installed,
    corrupted,
    padded_size,
)

ALL = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
RANDOM = ("gaussian_noise", "impulse_noise", "glass_blur", "frost", "elastic_transform", "spatter")


def smooth(channels: int, height: int, width: int) -> np.ndarray:
    """A picture with edges, not noise, that corruptions are visible on."""
    rows, columns = np.mgrid[:height, :width]
    waves = [
        127 + 60 * np.sin((k + 1) * rows / 5) + 60 * (columns // 6 % 2) for k in range(channels)
    ]
    return np.stack(waves).clip(0, 255).astype(np.uint8)


def digest(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 40), (3, 20, 45), (1, 8, 8)])
def test_every_corruption_takes_every_size_and_grey(name: str, shape: tuple[int, ...]) -> None:
    image = smooth(*shape)
    before = image.copy()
    for severity in (1, 5):
        found = corrupted(image, corruption=name, severity=severity)
        assert (found.shape, found.dtype) == (shape, np.uint8)
    assert np.array_equal(image, before)
    assert not np.array_equal(found, image) or (name == "saturate" and shape[0] == 1)


def test_results_do_not_depend_on_order_or_global_streams() -> None:
    image, other = smooth(3, 32, 32), smooth(3, 36, 32)
    first = {name: corrupted(image, corruption=name, severity=3) for name in RANDOM}
    random.seed(7)
    np.random.seed(7)
    state = random.getstate(), np.random.get_state()[1].tolist()
    for name in reversed(RANDOM):
        corrupted(other, corruption=name, severity=3)
        again = corrupted(image, corruption=name, severity=3)
        assert np.array_equal(again, first[name]), name
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state


def test_another_process_makes_the_same_images() -> None:
    code = (
        "import sys, hashlib, numpy; from advprop.data.corruptions import corrupted\n"
        "image = numpy.frombuffer(bytes.fromhex(sys.argv[1]), numpy.uint8).reshape(3, 32, 32)\n"
        "for name in sys.argv[2:]: print(hashlib.sha256("
        "corrupted(image, corruption=name, severity=2).tobytes()).hexdigest())"
    )
    image = smooth(3, 32, 32)
    names = [name for name in RANDOM if name != "glass_blur"]  # numba compiles it for seconds
    arguments = [sys.executable, "-c", code, image.tobytes().hex(), *names]
    printed = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    ours = [digest(corrupted(image, corruption=name, severity=2)) for name in names]
    assert printed.split() == ours


def test_images_and_severities_draw_differently() -> None:
    grey = np.full((3, 32, 32), 128, np.uint8)
    lighter = grey + np.uint8(1)
    draws = [
        corrupted(image, corruption="impulse_noise", severity=severity) == image
        for image, severity in ((grey, 1), (lighter, 1), (grey, 2))
    ]
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_as_strong_on_grey_images(channels: int) -> None:
    image = np.full((channels, 64, 64), 128, np.uint8)
    found = corrupted(image, corruption="gaussian_noise", severity=2)
    # the severity's standard deviation, 0.12 of the range
    assert found.std() == pytest.approx(0.12 * 255, rel=0.05)


def test_without_a_drop_of_water_an_image_stays_as_it_is() -> None:
    # drops are rare on small images, so that some have none; the package makes them black
    images = [np.full((3, 32, 32), 100 + n, np.uint8) for n in range(12)]
    found = [corrupted(image, corruption="spatter", severity=1) for image in images]
    assert all(image.mean() > 90 for image in found)
    unchanged = [np.array_equal(a, b) for a, b in zip(images, found, strict=True)]
    assert any(unchanged)
    assert not all(unchanged)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 16), (3, 40, 20)])
def test_noise_on_small_images_is_as_strong_as_on_large(shape: tuple[int, int, int]) -> None:
    images = [np.full(shape, 100 + n, np.uint8) for n in range(10)]
    changes = np.stack(
        [
            corrupted(image, corruption="gaussian_noise", severity=1).astype(float) - image
            for image in images
        ]
    )
    assert changes.shape[1:] == shape
    # the severity's standard deviation, 0.08 of the range
    assert changes.std() == pytest.approx(0.08 * 255, rel=0.05)


def test_small_images_keep_their_place_in_the_padding() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 21, 30), dtype=np.uint8)
    brighter = corrupted(image, corruption="brightness", severity=1)
    shifts = [
        np.abs(np.roll(brighter.astype(float), (down, right), axis=(1, 2)) - image).mean()
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    ]
    assert int(np.argmin(shifts)) == 4
    assert padded_size(30, 21) == (32, 32)
    assert padded_size(224, 8) == (224, 32)


def test_a_missing_package_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruptions, "_PACKAGE", "no-such-package")
    with pytest.raises(ImportError, match=r'pip install "advprop\[corruptions\]"'):
        check_installed()
