"""timm: a task for its training script, or a loop like it, that learns as a method does."""

from __future__ import annotations

from typing import Any

from timm.task import ClassificationTask
from torch import Tensor, nn

from advprop.methods.base import Context, Method
from advprop.shapes import Images, Labels


class MethodTask(ClassificationTask):
    """timm's classification task, with the loss of `method`, one that has a `loss`.

    Images are in [0, 1]: mean and std are the model's (`advprop.standardized`), and the loader's
    are 0 and 1. `num_batches` is how many a whole training has, for methods that change with its
    progress; what is counted is saved in timm's checkpoints. `criterion` and `options` are those of
    `ClassificationTask`.
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
        """The loss of a batch, by its name; raises what `Method.loss` raises."""
        progress = min(1.0, self.batches / self.num_batches)
        context = Context(progress=progress, step=self.batches, loss_fn=self.criterion)
        loss = self.method.loss(self.trainable_module, input, target, context)
        self.batches += 1
        return {"loss": loss}

    def get_task_state(self, module: Any = None, ema: bool = False) -> dict[str, Any]:
        """The number of batches seen, for a checkpoint."""
        return {} if ema else {"batches": self.batches}

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: Any = None,
        ema: bool = False,
    ) -> None:
        """Go on from there."""
        if state and not ema:
            self.batches = state["batches"]
