"""Lightning: a module whose training step uses a method."""

from __future__ import annotations

import lightning
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.methods.base import Method
from advprop.methods.step import Context
from advprop.shapes import Images, Labels, Logits


class MethodModule(lightning.LightningModule):
    """A module whose `training_step` trains with `method`, on images in [0, 1] and labels.

    A subclass sets `model`, with the branches that `method` needs, and `method`, which must have a
    `loss`; it defines `configure_optimizers`, `validation_step` and other hooks. Precision,
    accumulation, clipping, averages and several processes are controlled by Lightning's trainer;
    its optimisation must stay automatic.
    """

    model: nn.Module
    method: Method

    def loss_fn(self, logits: Logits, labels: Labels) -> Tensor:
        """Return the mean loss of one kind of images, a scalar; cross-entropy unless overridden."""
        return F.cross_entropy(logits, labels)

    def forward(self, images: Images) -> Logits:
        """Return the logits of the active branch, which is the clean one outside training steps."""
        logits: Logits = self.model(images)
        return logits

    def training_step(self, batch: tuple[Images, Labels], batch_idx: int) -> Tensor:
        """Return the method's loss, logged as "train_loss"; raises the errors of `Method.loss`."""
        images, labels = batch
        loss = self.method.loss(self.model, images, labels, self.context())
        self.log("train_loss", loss.detach(), batch_size=len(images))
        return loss

    def context(self) -> Context:
        """Return the context of a step: the progress, step and epoch of training, and `loss_fn`."""
        return Context(
            progress=min(1.0, self.global_step / self.trainer.estimated_stepping_batches),
            step=self.global_step,
            epoch=self.current_epoch,
            loss_fn=self.loss_fn,
        )
