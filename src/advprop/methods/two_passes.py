"""The base class of PyramidAT and its universal form, which run a pass for each kind of images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.auxiliary.route import CLEAN
from advprop.methods.learning import SeveralKinds, check_weights, learn
from advprop.methods.step import ADVERSARIAL, Context, StepMetrics, perturbation_size
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class TwoPasses(SeveralKinds):
    """Trains on clean images in one pass and on adversarial ones in another, with the same masks.

    The step minimises the two mean losses times `clean_weight` and `adversarial_weight`. With
    `auxiliary_branch` each kind goes through the branch of its name; without, both go through the
    same layers. With `matched_masks` the adversarial pass draws the same dropout and drop-path
    masks as the clean one. Raises ValueError for negative weights or the form "joint".
    """

    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    matched_masks: bool = True
    auxiliary_branch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights((self.clean_weight, self.adversarial_weight))

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Return the branch of adversarial images, or none without `auxiliary_branch`."""
        return (ADVERSARIAL,) if self.auxiliary_branch else ()

    @property
    def one_pass(self) -> bool:
        """Return False, since each kind of images is normalised by itself."""
        return False

    def learn(
        self, model: nn.Module, batch: Batch, adversarial: Images, context: Context
    ) -> StepMetrics:
        """Add the gradients of both weighted mean losses to `.grad`; return the metrics."""
        return learn(
            model,
            {CLEAN: batch, ADVERSARIAL: Batch(images=adversarial, labels=batch.labels)},
            context,
            form=self.form_for(model, context.task),
            weights={CLEAN: self.clean_weight, ADVERSARIAL: self.adversarial_weight},
            branches=self.auxiliary_branch,
            matched_masks=self.matched_masks,
            perturbation=perturbation_size(batch.images, adversarial),
        )
