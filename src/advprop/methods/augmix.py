"""AugMix and its consistency loss (Hendrycks et al., ICLR 2020, arXiv 1912.02781)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.auxiliary.route import CLEAN
from advprop.methods.base import Method
from advprop.methods.learning import learn
from advprop.methods.step import Context, KindMetrics, StepMetrics
from advprop.shapes import AugMixed, Batch

AUGMIX = "augmix"
"""The name in metrics of the images that AugMix made."""
_VIEWS = ("augmix1", "augmix2")


@dataclass(frozen=True, kw_only=True)
class AugMix(Method):
    """Trains on clean images, and for equal predictions on two AugMix views of each.

    One pass runs all three versions. The loss is that of the clean images, plus `jsd` times the
    Jensen-Shannon divergence between the predictions for the three (section 3 of the paper; timm's
    `JsdCrossEntropy`). With `jsd` 0 it is the paper's AugMix without that loss: one view replaces
    the clean image, at the cost of one pass. The other settings are those of `AugMixed`; the
    defaults are those of the paper's code for CIFAR. Views have the image's own crop and flip.
    Raises ValueError for settings out of bounds.
    """

    severity: float = 3.0
    width: int = 3
    depth: int | None = None
    alpha: float = 1.0
    jsd: float = 12.0

    def __post_init__(self) -> None:
        if not (self.jsd >= 0 and math.isfinite(self.jsd)):
            raise ValueError(f"jsd {self.jsd}: give a finite number of at least 0")
        _ = self.versions  # checks its own bounds

    @property
    def versions(self) -> Mapping[str, AugMixed]:
        """Return two AugMix views by name, or only one if `jsd` is 0."""
        made = AugMixed(
            severity=self.severity, width=self.width, depth=self.depth, alpha=self.alpha
        )
        return dict.fromkeys(_VIEWS if self.jsd else _VIEWS[:1], made)

    @property
    def passes_per_image(self) -> float:
        """Return 3, one pass for each version of an image, or 1 if `jsd` is 0."""
        return 3.0 if self.jsd else 1.0

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Add the gradients of one pass over all versions, normalised as one batch, to `.grad`."""
        views, task = [batch.view(name) for name in self.views], context.task
        if not self.jsd:
            return learn(model, {AUGMIX: Batch(images=views[0], labels=batch.labels)}, context)
        torch.clear_autocast_cache()  # the weights may have changed since the last pass
        labels = task.join([batch.labels] * 3)
        outputs = task.outputs(model, torch.cat([batch.images, *views]), labels)
        clean, others = outputs.split([len(batch), 2 * len(batch)])
        loss = task.loss(clean, batch.labels)
        divergence = jensen_shannon(task.log_probabilities(outputs).chunk(3))
        total = loss + self.jsd * divergence
        context.backward(total)
        found = {
            CLEAN: KindMetrics(loss=loss.detach(), metrics=task.metrics(clean, batch.labels)),
            AUGMIX: KindMetrics(
                loss=divergence.detach(),
                metrics=task.metrics(others, labels[len(batch) :]),
                share=2.0,
            ),
        }
        return StepMetrics(loss=total.detach(), kinds=found)


def jensen_shannon(logs: Sequence[Tensor]) -> Tensor:
    """Return the mean Jensen-Shannon divergence between predictions for the same images, a scalar.

    `logs` has the log-probabilities of each prediction, along the last dimension. The divergence is
    the mean Kullback-Leibler divergence of each prediction from the mean of all, at least 0 and at
    most the logarithm of their number. Probabilities of that mean below 1e-7 count as 1e-7, as in
    the paper's code.
    """
    mixture = torch.stack([log.exp() for log in logs]).mean(dim=0).clamp(1e-7, 1).log()
    each = [F.kl_div(mixture, log, reduction="none", log_target=True).sum(dim=-1) for log in logs]
    return torch.stack(each).mean()
