"""timm: a task that trains with a method, for timm's training script or a similar loop."""

from __future__ import annotations

from typing import Any

from timm.task import ClassificationTask
from torch import Tensor, nn

from advprop.methods.base import Method
from advprop.methods.step import Context
from advprop.shapes import Images, Labels


class MethodTask(ClassificationTask):
    """timm's classification task with the loss of `method`, which must have a `loss`.

    Images are in [0, 1]: the model standardises them (`advprop.standardized`), so the loader must
    have mean 0 and std 1. `num_batches` is the number of batches in the whole training, for methods
    that depend on its progress; timm's checkpoints save the number of batches seen. `criterion` and
    `options` are those of `ClassificationTask`.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        num_batches: int,
        criterion: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(model, criterion, **options)
        self.method, self.num_batches, self.batches = method, num_batches, 0

    def forward(self, input: Images, target: Labels) -> dict[str, Tensor]:
        """Return {"loss": the method's loss of the batch}; raises the errors of `Method.loss`."""
        progress = min(1.0, self.batches / self.num_batches)
        context = Context(progress=progress, step=self.batches, loss_fn=self.criterion)
        loss = self.method.loss(self.trainable_module, input, target, context)
        self.batches += 1
        return {"loss": loss}

    def get_task_state(self, module: Any = None, ema: bool = False) -> dict[str, Any]:
        """Return the number of batches seen, for a checkpoint."""
        return {} if ema else {"batches": self.batches}

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: Any = None,
        ema: bool = False,
    ) -> None:
        """Restore the number of batches seen."""
        if state and not ema:
            self.batches = state["batches"]
