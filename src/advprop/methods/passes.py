"""Clean and adversarial images in a pass of their own each, their losses summed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from advprop.auxiliary.branches import no_branch, use_branch
from advprop.methods.base import (
    ADVERSARIAL,
    Context,
    KindMetrics,
    StepMetrics,
    attacked_module,
    learn,
    metrics_of,
    perturbation_size,
)
from advprop.randomness import mark_dropout
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class TwoPasses:
    """How both kinds of images are learnt from, clean ones first.

    `branches` are those of the two kinds (None: both take whichever is active), `weights` those of
    their losses. `matched_masks` has the adversarial pass draw the dropout and drop-path masks of
    the clean one again; torch's global streams then stand as after one pass.
    """

    weights: tuple[float, float] = (1.0, 1.0)
    branches: tuple[str, str] | None = None
    matched_masks: bool = False

    def separate(
        self, model: nn.Module, batch: Batch, adversarial: Images, context: Context
    ) -> StepMetrics:
        """A forward and a backward for each kind: one graph in memory at a time."""
        kinds = []
        redraw = self._redraw(model, batch.images)
        for number, images in enumerate((batch.images, adversarial)):
            if number:
                redraw()
            with self._branch(model, number):
                weight = self.weights[number]
                kinds.append(learn(model, images, batch.labels, context, weight=weight))
        return self._metrics(batch, adversarial, kinds)

    def summed(
        self, model: nn.Module, batch: Batch, adversarial: Images, context: Context
    ) -> StepMetrics:
        """Two forwards and one backward, as DistributedDataParallel needs it: two graphs."""
        losses, kinds = [], []
        redraw = self._redraw(model, batch.images)
        for number, images in enumerate((batch.images, adversarial)):
            if number:
                redraw()
                _keep_statistics(model)
            with self._branch(model, number):
                logits = model(images)
                loss = context.loss_fn(logits, batch.labels)
            losses.append(self.weights[number] * loss)
            kinds.append(metrics_of(logits, batch.labels, loss))
        # layers that run again in the backward pass could not know whose turn it is
        with no_branch(attacked_module(model)) if self.branches else nullcontext():
            context.backward(losses[0] + losses[1])
        return self._metrics(batch, adversarial, kinds)

    def _redraw(self, model: nn.Module, images: Images) -> Callable[[], None]:
        if not self.matched_masks:
            return lambda: None
        if isinstance(model, nn.DataParallel):
            raise ValueError(
                "matched_masks under DataParallel, whose devices draw masks each for itself: use "
                "DistributedDataParallel, or matched_masks=False"
            )
        return mark_dropout(images.device)

    def _branch(self, model: nn.Module, number: int) -> AbstractContextManager[None]:
        if self.branches is None:
            return nullcontext()
        return use_branch(attacked_module(model), self.branches[number])

    def _metrics(self, batch: Batch, adversarial: Images, kinds: list[KindMetrics]) -> StepMetrics:
        return StepMetrics(
            loss=self.weights[0] * kinds[0].loss + self.weights[1] * kinds[1].loss,
            kinds={"clean": kinds[0], ADVERSARIAL: kinds[1]},
            perturbation=perturbation_size(batch.images, adversarial.detach()),
        )


def _keep_statistics(model: nn.Module) -> None:
    """Have DistributedDataParallel broadcast no buffers before its next forward pass.

    It did so before the first one, whose backward pass would fail on their change (torch 2.6 to
    2.10, pytorch/pytorch#175024).
    """
    if isinstance(model, DistributedDataParallel):
        model.require_forward_param_sync = False
