"""Maps of the parts of an image that matter to a model: input gradients and Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from advprop.shapes import Images, Logits, LogitsFn

Maps: TypeAlias = Float[Tensor, "batch 1 height width"]
"""A map for each image, from 0 (black) to 1 (white)."""

_BRIGHTEST = 0.99  # the quantile of the gradients' sizes that becomes white


def input_gradients(logits_fn: LogitsFn, images: Images, labels: Int[Tensor, " batch"]) -> Maps:
    """Return the absolute gradient of the label's logit in each pixel, the largest over channels.

    Simonyan, Vedaldi and Zisserman (2014), section 3. The brightest 1 % of the pixels are white, so
    that a few large gradients do not hide all others. Parameters get no gradient.
    """
    gradient = _gradient(logits_fn, images, labels).abs().amax(dim=1, keepdim=True)
    white = gradient.flatten(1).quantile(_BRIGHTEST, dim=1).reshape(-1, 1, 1, 1)
    return (gradient / white.clamp_min(1e-12)).clamp(max=1)


def grad_cam(
    model: nn.Module, images: Float[Tensor, "batch C H W"], labels: Int[Tensor, " batch"]
) -> Maps | None:
    """Return maps, as large as the images, of where the last features support the label.

    Grad-CAM (Selvaraju et al. 2017, equations 1 and 2). `model` takes standardised images. Returns
    None if it lacks `forward_features` or `forward_head`, which timm's models have, or if its
    features are not [batch, num_features, rows, columns], as in vision transformers.
    """
    plain: Any = model
    if not (hasattr(plain, "forward_features") and hasattr(plain, "forward_head")):
        return None
    with torch.no_grad():
        features = plain.forward_features(images)
    if features.ndim != 4 or features.shape[1] != getattr(plain, "num_features", None):
        return None
    weights = _gradient(plain.forward_head, features, labels).mean(dim=(2, 3), keepdim=True)
    found = (weights * features).sum(dim=1, keepdim=True).relu()
    found = found / found.amax(dim=(2, 3), keepdim=True).clamp_min(1e-12)
    return F.interpolate(found, size=images.shape[2:], mode="bilinear")


def _gradient(
    logits_of: Callable[[Tensor], Logits], inputs: Tensor, labels: Int[Tensor, " batch"]
) -> Tensor:
    inputs = inputs.detach().requires_grad_()
    scores = logits_of(inputs).gather(1, labels[:, None])
    (gradient,) = torch.autograd.grad(scores.sum(), inputs)
    return gradient
