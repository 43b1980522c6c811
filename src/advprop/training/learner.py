"""The gradients of one step: a method's `step` over a batch, in one or several parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

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
                if "more than 1 value per channel" not in str(error):
                    raise
                raise ValueError(
                    f"batch normalisation needs more than one value a channel to train, but gets "
                    f"one from {len(part)} images a pass ({error}): raise training.batch_size, or "
                    "lower training.gradient_accumulation or the number of processes, which "
                    "divide it"
                ) from error
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


def part_size(num_images: int, count: int) -> int:
    """Return the images in each of `count` equal parts; raises ValueError if there are none."""
    if num_images % count:
        raise ValueError(
            f"{num_images} images a process cannot be divided into gradient_accumulation {count} "
            "equal parts: change batch_size, or the number of processes"
        )
    return num_images // count


def micro_batches(batch: Batch, count: int) -> Iterator[Batch]:
    """Yield `count` consecutive parts of `batch`; raises ValueError if they cannot be equal."""
    size = part_size(len(batch), count)
    tensors: dict[str, Any] = {
        field.name: value
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    for first in range(0, len(batch), size):
        part = slice(first, first + size)
        yield replace(
            batch,
            views={name: view[part] for name, view in batch.views.items()},
            **{name: tensor[part] for name, tensor in tensors.items()},
        )


def _seed_dropout(seed: int) -> None:
    """Seed torch's global random streams on all devices.

    Without an accelerator only the CPU's is seeded: `torch.manual_seed` takes ten times as long.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
