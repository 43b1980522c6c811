"""Bootstrap confidence intervals of an accuracy over test images."""

from __future__ import annotations

import numpy as np
from torch import Tensor

_RESAMPLES = 10_000  # with 1,000 the ends would vary by a twelfth of a standard deviation
_SEED = 0


def bootstrap_interval(scores: Tensor) -> list[float]:
    """Return the 95 % percentile bootstrap interval [low, high] of the mean of `scores`.

    `scores` [num_images], not empty, hold 1 for a correct image and 0 for a wrong one, or the
    fraction of an image's tests that were correct. The interval is deterministic and ignores the
    order of scores. Resampling images with replacement gives each value a multinomial count, so the
    counts are drawn directly and no loop over resamples is needed.
    """
    values, counts = np.unique(scores.cpu().double().numpy(), return_counts=True)
    count = int(counts.sum())
    drawn = np.random.default_rng(_SEED).multinomial(count, counts / count, size=_RESAMPLES)
    # both ends are means of actual resamples, as with a binomial distribution
    low, high = np.quantile(drawn @ values / count, (0.025, 0.975), method="inverted_cdf")
    return [float(low), float(high)]
