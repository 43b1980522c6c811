"""The reasons why training ends early, and the checks of each step that find them."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from advprop.files.json_files import InUseError
from advprop.files.parsing import first_line
from advprop.training.position import Position
from advprop.training.settings import TrainingSettings


class NotFiniteError(RuntimeError):
    """The loss or a weight became infinite or NaN; earlier checkpoints are intact."""

    exit_code = 3


def out_of_memory(error: BaseException) -> str | None:
    """Return a message with a remedy for an error from lack of memory, None for other errors."""
    if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
        return None
    reason = first_line(error)
    return (
        f"out of memory ({reason[:200]}): in training take a smaller "
        "training.batch_size, more training.gradient_accumulation, training.mixed_precision or "
        "training.activation_checkpointing; in tests a smaller evaluation.batch_size"
    )


def error_of_run(error: Exception) -> Exception | None:
    """Return a copy of an error of one run only, without the frames that hold the run's memory.

    Return None for others: faults of this package, a folder in use, a full disk, missing data.
    """
    if isinstance(error, NotFiniteError):
        return NotFiniteError(str(error))
    if isinstance(error, ValueError):
        return None if isinstance(error, InUseError) else ValueError(str(error))
    message = out_of_memory(error)
    return None if message is None else ValueError(message)


class InterruptedTraining(RuntimeError):  # noqa: N818 - an ending, not an error
    """A signal stopped the run after it was saved."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum


class StopSignal:
    """A signal handler; `received` is the number of the first signal, or None before that."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Record the first signal; raises KeyboardInterrupt at the second, within the step."""
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signum


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Yield a `StopSignal` that catches SIGINT and SIGTERM inside; ignored signals stay ignored.

    Outside the main thread it catches nothing, since Python allows no handlers there.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, stop) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Watch:
    """Checks that losses are finite, and makes all processes stop and save at the same step.

    For this they exchange a few numbers in each step. On a GPU, reading the result at once would
    make the host wait for the step's passes, and then the GPU for the host. So it is read in the
    next step, while the GPU has work, or by `settle`.
    """

    def __init__(self, accelerator: Accelerator, settings: TrainingSettings) -> None:
        self.accelerator, self.settings = accelerator, settings
        self.reads_late = accelerator.device.type == "cuda"
        self._unread: tuple[Tensor, torch.Event | None, Position] | None = None
        self._signum: int | None = None
        self._is_due = False
        self._saved_at = time.monotonic()

    def look(self, loss: Tensor, position: Position, signum: int | None) -> None:
        """Check the loss of the step after `position`, and share `signum` with all processes.

        Raises NotFiniteError if a loss is not finite; on CUDA, if that of the step before is not.
        """
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

    def settle(self, model: nn.Module, position: Position) -> None:
        """Check the last step and the weights before a checkpoint of `model` is written.

        Raises NotFiniteError if the loss is not finite or weights are not, as a step with a finite
        loss can make them: they must not get into checkpoints, from which a resumed run continues.
        """
        self._read()
        self._is_due, self._saved_at = False, time.monotonic()
        tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
        if not torch.stack([tensor.isfinite().all() for tensor in tensors]).all():
            raise NotFiniteError(
                f"weights are not finite after step {position.step} in epoch {position.epoch + 1}, "
                f"and were not saved: {self._remedy}"
            )

    def forget(self) -> None:
        """Discard the last step's result, since training goes back to an earlier step."""
        self._unread = None

    def agreed(self, signum: int | None) -> tuple[int | None, bool]:
        """Return the signal that stops all processes, if any, and whether they are due to save."""
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
            raise NotFiniteError(
                f"the loss became {loss} in epoch {position.epoch + 1}, step {position.step + 1}: "
                f"{self._remedy}"
            )

    @property
    def _remedy(self) -> str:
        return (
            f"lower training.learning_rate (now {self.settings.learning_rate:g}), warm up longer, "
            "or set training.gradient_clip"
        )
