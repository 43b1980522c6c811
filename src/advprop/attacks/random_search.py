"""A cheap black-box attack: random squares, kept if they help (after the Square attack)."""

from __future__ import annotations

import torch
from torch import Tensor

from advprop.attacks.pgd import check_images
from advprop.attacks.threat_models import ThreatModel
from advprop.randomness import ImageStreams
from advprop.shapes import Images, Labels, Logits, LogitsFn

_LARGEST, _SMALLEST = 0.8, 0.1
"""The squares' side as a share of the image's shorter side, from the first query to the last."""


@torch.no_grad()
def random_search(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    *,
    threat_model: ThreatModel,
    num_queries: int,
    streams: ImageStreams,
) -> Images:
    """Return each image's version of smallest margin among `num_queries` random ones.

    Each version has a perturbation of the threat model's full size. The first is vertical stripes
    of random sign. Each further query sets one square of the best perturbation so far to a random
    sign for each channel, and is kept if the margin falls (after Andriushchenko et al. 2020). Since
    it uses no gradients, misleading ones do not fool it; it belongs beside a white-box attack,
    which should be far stronger. The result has the shape and type of `images`.
    """
    check_images(images)
    channels, height, width = images.shape[1:]
    stripes = _signs(streams.draw((len(images), channels, 1, width), "stripes", normal=False))
    best = stripes.to(images, non_blocking=True).expand(-1, -1, height, -1)
    adversarial = _perturbed(images, best, threat_model)
    least = margins(logits_fn(adversarial), labels)
    drawn = streams.draw((len(images), num_queries, channels + 2), "squares", normal=False)
    drawn = drawn.to(images.device, non_blocking=True)
    for query in range(1, num_queries):
        share = _LARGEST * (_SMALLEST / _LARGEST) ** (query / num_queries)
        inside, signs = _squares(drawn[:, query], height, width, share)
        pattern = best.where(~inside, signs.to(images.dtype))
        candidate = _perturbed(images, pattern, threat_model)
        margin = margins(logits_fn(candidate), labels)
        better = margin < least
        least = margin.where(better, least)
        column = better[:, None, None, None]
        best, adversarial = pattern.where(column, best), candidate.where(column, adversarial)
    return adversarial


def margins(logits: Logits, labels: Labels) -> Tensor:
    """Return each image's logit of its label minus the largest other; negative if misclassified."""
    truth = labels if labels.ndim == 1 else labels.argmax(dim=1)
    own = logits.gather(1, truth[:, None])[:, 0]
    return own - logits.scatter(1, truth[:, None], -torch.inf).amax(dim=1)


def _squares(drawn: Tensor, height: int, width: int, share: float) -> tuple[Tensor, Tensor]:
    """Return the pixels of each image's square, booleans [n, 1, H, W], and signs, [n, C, 1, 1]."""
    side = max(1, round(share * min(height, width)))
    inside = []
    for size, unit in ((height, drawn[:, 0:1]), (width, drawn[:, 1:2])):
        first = (unit * (size - side + 1)).floor()
        place = torch.arange(size, device=drawn.device)[None]
        inside.append((place >= first) & (place < first + side))
    rows, columns = inside
    return (rows[:, None, :, None] & columns[:, None, None, :]), _signs(drawn[:, 2:, None, None])


def _signs(unit: Tensor) -> Tensor:
    return (unit < 0.5).float().mul_(2).sub_(1)


def _perturbed(images: Images, pattern: Tensor, threat_model: ThreatModel) -> Images:
    return (images + threat_model.epsilon * threat_model.ascent_direction(pattern)).clamp(0.0, 1.0)
