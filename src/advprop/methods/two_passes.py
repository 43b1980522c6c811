"""What PyramidAT and its universal form share: two passes over an image, never one of both."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.auxiliary.route import CLEAN
from advprop.methods.learning import SeveralKinds, check_weights, learn
from advprop.methods.step import ADVERSARIAL, Context, StepMetrics, perturbation_size
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class TwoPasses(SeveralKinds):
    """Clean images in one pass, adversarial ones in another, with the same masks.

    With `auxiliary_branch` each kind goes through the branch of its name, else both through the
    same layers. `matched_masks` has the adversarial pass draw the dropout and drop-path masks of
    the clean one again.
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
        """The branch of adversarial images, if they have one."""
        return (ADVERSARIAL,) if self.auxiliary_branch else ()

    @property
    def one_pass(self) -> bool:
        """Never: each kind is normalised by itself."""
        return False

    def learn(
        self, model: nn.Module, batch: Batch, adversarial: Images, context: Context
    ) -> StepMetrics:
        """Leave the gradients of both losses in `.grad`."""
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
