"""How sure an accuracy is, on the images that it was measured on."""

from __future__ import annotations

import numpy as np
from torch import Tensor

_RESAMPLES = 10_000  # with 1,000 the ends themselves would move by a twelfth of a deviation
_SEED = 0


def bootstrap_interval(scores: Tensor) -> list[float]:
    """The 95 % percentile bootstrap interval [low, high] of the mean of `scores`, over images.

    `scores` [num_images] tell whether an image was right, or how often (a share of several
    tests of it, which then count as one image). The same scores give the same interval, in any
    order. Of images drawn with replacement, the numbers that have each value are multinomial (for
    right and wrong, binomial); drawing these numbers is the bootstrap, without its loop.
    ValueError: no scores.
    """
    if len(scores) == 0:
        raise ValueError("no images to evaluate on: the set is empty")
    values, counts = np.unique(scores.cpu().double().numpy(), return_counts=True)
    count = int(counts.sum())
    drawn = np.random.default_rng(_SEED).multinomial(count, counts / count, size=_RESAMPLES)
    # an interval's ends are means that some resample has, as in the binomial distribution
    low, high = np.quantile(drawn @ values / count, (0.025, 0.975), method="inverted_cdf")
    return [float(low), float(high)]
