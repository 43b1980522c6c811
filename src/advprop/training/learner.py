"""The gradients of one step: a method's `step` over a batch, in one or several parts."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from advprop.methods.base import Method
from advprop.methods.learning import recomputing
from advprop.methods.step import Context, StepMetrics
from advprop.randomness import ImageStreams, derive_seed
from advprop.shapes import Batch
from advprop.tasks.task import Task
from advprop.training.engine import memory_format
from advprop.training.micro_batches import micro_batches, refuse_small_batch
from advprop.training.position import Position
from advprop.training.settings import TrainingSettings


@dataclass(frozen=True)
class Learner:
    """Computes the gradients of a batch's mean loss, averaged over all processes."""

    model: nn.Module
    method: Method
    task: Task
    settings: TrainingSettings
    seed: int
    accelerator: Accelerator

    def gradients(self, batch: Batch, position: Position, *, progress: float) -> list[StepMetrics]:
        """Add the gradients of `batch` to `.grad`; return the metrics of each part of it.

        `progress` is the share of training that is done, 0 to 1. Raises ValueError if the parts
        cannot be equal or are too small for batch normalisation.
        """
        rank = self.accelerator.process_index
        _seed_dropout(derive_seed(self.seed, position.step, rank, "dropout"))
        count = self.settings.gradient_accumulation
        parts = [batch] if count == 1 else micro_batches(batch, count)
        metrics = []
        for number, part in enumerate(parts, start=1):
            # processes exchange gradients with the last part only
            waits = self.accelerator.no_sync(self.model) if number < count else nullcontext()
            moved = part.to(self.accelerator.device, memory_format=self._layout)
            context = self._context(part, position, progress)
            try:
                with waits:
                    metrics.append(self.method.step(self.model, moved, context))
            except ValueError as error:
                refuse_small_batch(error, len(part))
                raise
        return metrics

    @cached_property
    def _layout(self) -> torch.memory_format:
        return memory_format(self.settings)

    def _context(self, batch: Batch, position: Position, progress: float) -> Context:
        streams = None
        if batch.indices is not None:
            streams = ImageStreams.for_batch(self.seed, position.epoch, batch.indices, batch.copies)
        return Context(
            progress=progress,
            step=position.step,
            epoch=position.epoch,
            task=self.task,
            backward=self._backward,
            generator=streams,
        )

    def _backward(self, loss: Tensor) -> None:
        count = self.settings.gradient_accumulation
        again = self.settings.activation_checkpointing
        with recomputing(self.model) if again else nullcontext():
            self.accelerator.backward(loss if count == 1 else loss / count)


def _seed_dropout(seed: int) -> None:
    """Seed torch's global random streams on all devices.

    Without an accelerator only the CPU's is seeded: `torch.manual_seed` takes ten times as long.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
