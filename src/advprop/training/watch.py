"""Check each step in all processes together: its loss, signals, and the time for a checkpoint."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor

from advprop.training.position import Position
from advprop.training.settings import TrainingSettings
from advprop.training.stopping import not_finite


class Watch:
    """Checks that losses are finite; shares signals, and whether a checkpoint is due by time.

    All processes exchange a few numbers in each step, so that all stop and save at the same step.
    On a GPU, reading the result at once would make the host wait for the step's passes, and then
    the GPU for the host. So it is read in the next step, while the GPU has work, or by `settle`.
    """

    def __init__(self, accelerator: Accelerator, settings: TrainingSettings) -> None:
        self.accelerator, self.settings = accelerator, settings
        self.reads_late = accelerator.device.type == "cuda"
        self._unread: tuple[Tensor, torch.Event | None, Position] | None = None
        self._signum: int | None = None
        self._is_due = False
        self._saved_at = time.monotonic()

    def look(self, loss: Tensor, position: Position, signum: int | None) -> None:
        """Check the step after `position`; raises NotFiniteError, on CUDA for the step before."""
        answer = self._asked(loss.detach(), signum)
        event = torch.Event(loss.device) if self.reads_late and loss.device.type != "cpu" else None
        # to pinned memory, so that the host does not wait
        question = answer.to("cpu", non_blocking=event is not None), event, replace(position)
        if event is not None:
            event.record()
        if self.reads_late:
            self._read()
        self._unread = question
        if not self.reads_late:
            self._read()

    def settle(self) -> None:
        """Read the last step's result before a checkpoint is written; raises NotFiniteError."""
        self._read()
        self._is_due, self._saved_at = False, time.monotonic()

    def forget(self) -> None:
        """Discard the last step's result, since training goes back to an earlier step."""
        self._unread = None

    def agreed(self, signum: int | None) -> tuple[int | None, bool]:
        """Return the signal to stop and whether a checkpoint is due by time, in all processes."""
        if self.accelerator.num_processes == 1:
            return signum, self._is_due_here()
        return self._signum, self._is_due

    def _is_due_here(self) -> bool:
        minutes = self.settings.checkpoint_every_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _asked(self, loss: Tensor, signum: int | None) -> Tensor:
        if self.accelerator.num_processes == 1:
            return loss.reshape(1)
        flags = torch.tensor([0, signum or 0, self._is_due_here()], dtype=torch.float32)
        flags = flags.to(loss.device, non_blocking=True)
        flags[0] = ~torch.isfinite(loss)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        return torch.cat([loss.reshape(1), flags])

    def _read(self) -> None:
        if self._unread is None:
            return
        answer, event, position = self._unread
        self._unread = None
        if event is not None:
            event.synchronize()
        loss, *flags = answer.tolist()
        is_bad, signum, is_due = flags or (not math.isfinite(loss), 0, 0)
        self._signum, self._is_due = int(signum) or None, bool(is_due)
        if is_bad:
            raise not_finite(loss, position, self.settings)
