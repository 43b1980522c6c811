"""The mean corruption error, computed by hand on toys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from advprop.data.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from advprop.evaluation.corruptions import ALEXNET_ERRORS, corruption_result

Correct = dict[tuple[str, int], Tensor]


def first_right(right: int, count: int = 10) -> Tensor:
    return torch.arange(count) < right


def toy() -> Correct:
    """One more image wrong at each severity; noises worse by three images, nothing else differs."""
    return {
        (name, severity): first_right(10 - severity - 3 * name.endswith("noise"))
        for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
        for severity in SEVERITIES
    }


def test_the_published_yardstick() -> None:
    assert tuple(ALEXNET_ERRORS) == CORRUPTIONS
    assert sum(ALEXNET_ERRORS.values()) / 15 == pytest.approx(0.7890, abs=5e-5)


def test_mean_corruption_error_by_hand() -> None:
    found = corruption_result(toy(), against_alexnet=True)
    # mean errors: (1 + 2 + 3 + 4 + 5) / 50 = 0.3; of the three noises 0.6
    assert found["mean_error"] == pytest.approx((3 * 0.6 + 12 * 0.3) / 15)
    assert found["corruptions_accuracy"] == pytest.approx(1 - 0.36)
    noises = 0.6 / 0.886428 + 0.6 / 0.894468 + 0.6 / 0.922640
    blurs = 0.3 / 0.819880 + 0.3 / 0.826268 + 0.3 / 0.785948 + 0.3 / 0.798360
    weather = 0.3 / 0.866816 + 0.3 / 0.826572 + 0.3 / 0.819324 + 0.3 / 0.564592
    digital = 0.3 / 0.853204 + 0.3 / 0.646056 + 0.3 / 0.717840 + 0.3 / 0.606500
    assert found["mce"] == pytest.approx((noises + blurs + weather + digital) / 15)
    one = found["by_corruption"]["gaussian_noise"]
    assert one["accuracy"] == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2])
    assert (one["mean_error"], one["ce"]) == pytest.approx((0.6, 0.6 / 0.886428))
    assert (list(found["by_corruption"]), found["num_images"]) == (list(CORRUPTIONS), 10)


def test_alexnet_itself_has_an_error_of_one() -> None:
    correct = {
        (name, severity): torch.arange(10_000) >= round(error * 10_000)
        for name, error in ALEXNET_ERRORS.items()
        for severity in SEVERITIES
    }
    assert corruption_result(correct, against_alexnet=True)["mce"] == pytest.approx(1, abs=1e-4)


def test_held_out_corruptions_stand_apart() -> None:
    found = corruption_result(toy(), against_alexnet=True)
    assert list(found["extra"]) == list(EXTRA_CORRUPTIONS)
    assert found["extra"]["speckle_noise"]["mean_error"] == pytest.approx(0.6)
    without = {key: value for key, value in toy().items() if key[0] in CORRUPTIONS}
    assert corruption_result(without, against_alexnet=True) == {
        key: value for key, value in found.items() if key != "extra"
    }


@pytest.mark.parametrize("left_out", [("snow", None), (None, 3)])
def test_no_mean_corruption_error_of_a_part(left_out: tuple[str | None, int | None]) -> None:
    part = {key: value for key, value in toy().items() if not set(key) & set(left_out)}
    found = corruption_result(part, against_alexnet=True)
    assert "mce" not in found
    assert "ce" not in found["by_corruption"]["fog"]
    assert found["severities"] == [s for s in SEVERITIES if s != left_out[1]]


def test_other_images_than_imagenet_have_the_plain_error_only() -> None:
    assert "mce" not in corruption_result(toy())


def test_the_interval_counts_images_not_their_corrupted_copies() -> None:
    # half of the images always right, half never: as uncertain as ten answers, not 750
    found = corruption_result({(n, s): first_right(5) for n in CORRUPTIONS for s in SEVERITIES})
    assert found["ci95"] == [0.2, 0.8]
