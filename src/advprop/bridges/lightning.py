"""Lightning: a module whose training step is a method's; all else is Lightning's and the user's."""

from __future__ import annotations

import lightning
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.methods.base import Context, Method
from advprop.shapes import Images, Labels, Logits


class MethodModule(lightning.LightningModule):
    """Learns from batches of images in [0, 1] and labels as `method` does, in `training_step`.

    A subclass sets `model`, with the branches that `method` needs, and `method`, one that has a
    `loss`; and writes `configure_optimizers`, `validation_step` and what else it has. Precision,
    accumulation, clipping, averages and several processes are those of Lightning's trainer, whose
    optimisation stays automatic.
    """

    model: nn.Module
    method: Method

    def loss_fn(self, logits: Logits, labels: Labels) -> Tensor:
        """The mean loss of one kind of images, a scalar: cross-entropy, if not overridden."""
        return F.cross_entropy(logits, labels)

    def forward(self, images: Images) -> Logits:
        """Logits, by the branch that is active: the clean one."""
        logits: Logits = self.model(images)
        return logits

    def training_step(self, batch: tuple[Images, Labels], batch_idx: int) -> Tensor:
        """The method's loss, logged as "train_loss"; raises what `Method.loss` raises."""
        images, labels = batch
        loss = self.method.loss(self.model, images, labels, self.context())
        self.log("train_loss", loss.detach(), batch_size=len(images))
        return loss

    def context(self) -> Context:
        """Where training is, for methods that change with it."""
        return Context(
            progress=min(1.0, self.global_step / self.trainer.estimated_stepping_batches),
            step=self.global_step,
            epoch=self.current_epoch,
            loss_fn=self.loss_fn,
        )
