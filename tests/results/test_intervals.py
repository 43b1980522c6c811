"""The bootstrap against the distribution that it draws from."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from advprop.results.intervals import bootstrap_interval


@pytest.mark.parametrize(("right", "count"), [(1, 3), (7, 50), (180, 200), (1960, 2000), (9, 10)])
def test_right_and_wrong_give_the_binomial_quantiles(right: int, count: int) -> None:
    low, high = bootstrap_interval(torch.arange(count) < right)
    expected = binom.ppf([0.025, 0.975], count, right / count)
    # 10,000 resamples: a quantile is off by a fraction of the deviation, and by whole images
    tolerance = max(1, 0.1 * binom.std(count, right / count))
    assert low * count == pytest.approx(expected[0], abs=tolerance)
    assert high * count == pytest.approx(expected[1], abs=tolerance)


def test_shares_are_resampled_image_by_image() -> None:
    scores = torch.tensor([0, 1, 1, 2, 3, 3, 3, 4] * 40).double() / 4
    low, high = bootstrap_interval(scores)
    rows = torch.randint(len(scores), (20_000, len(scores)), generator=torch.Generator())
    means = scores[rows].mean(dim=1)
    deviation = float(means.std())
    expected = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    assert [low, high] == pytest.approx(expected, abs=0.1 * deviation)


def _copies(scores: Tensor) -> list[list[float]]:
    return [bootstrap_interval(part) for part in (scores, scores.flip(0), scores.double())]


def test_the_same_scores_give_the_same_interval_in_any_order() -> None:
    first, *others = _copies(torch.arange(100) < 83)
    assert others == [first, first]


@pytest.mark.parametrize("value", [True, False])
def test_without_any_spread_the_interval_is_a_point(value: bool) -> None:
    assert bootstrap_interval(torch.full((20,), value)) == [float(value)] * 2
