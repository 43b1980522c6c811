"""The ways in which training ends early, and the exit code of each."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import nn

from advprop.files.json_files import InUseError
from advprop.files.parsing import first_line
from advprop.training.position import Position
from advprop.training.settings import TrainingSettings


class NotFiniteError(RuntimeError):
    """The loss or a weight became infinite or NaN; earlier checkpoints are intact."""

    exit_code = 3


def not_finite(loss: float, position: Position, settings: TrainingSettings) -> NotFiniteError:
    """Return the error for a `loss` that is not finite in the step after `position`."""
    return NotFiniteError(
        f"the loss became {loss} in epoch {position.epoch + 1}, step {position.step + 1}: "
        f"{_remedy(settings)}"
    )


def check_finite_weights(model: nn.Module, position: Position, settings: TrainingSettings) -> None:
    """Raise NotFiniteError if a step with a finite loss has made weights that are not finite.

    It keeps them out of checkpoints, from which a resumed run would continue.
    """
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    if not torch.stack([tensor.isfinite().all() for tensor in tensors]).all():
        raise NotFiniteError(
            f"weights are not finite after step {position.step} in epoch {position.epoch + 1}, "
            f"and were not saved: {_remedy(settings)}"
        )


def _remedy(settings: TrainingSettings) -> str:
    return (
        f"lower training.learning_rate (now {settings.learning_rate:g}), warm up longer, or set "
        "training.gradient_clip"
    )


def out_of_memory(error: BaseException) -> str | None:
    """Return the message for an error from lack of memory, or None for other errors."""
    if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
        return None
    reason = first_line(error)
    return (
        f"out of memory ({reason[:200]}): in training take a smaller "
        "training.batch_size, more training.gradient_accumulation, training.mixed_precision or "
        "training.activation_checkpointing; in tests a smaller evaluation.batch_size"
    )


def error_of_run(error: Exception) -> Exception | None:
    """Return an error that concerns one run only, without the frames that hold the run's memory.

    Return None for others: faults of this package, a folder in use, a full disk, missing data.
    """
    if isinstance(error, NotFiniteError):
        return error
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

    def __reduce__(self) -> tuple[type[InterruptedTraining], tuple[str, int]]:
        return type(self), (str(self), self.signum)  # for pickling from a worker to its parent


class StopSignal:
    """A signal handler; `received` is the first signal, or None before that."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Record the first signal; raise KeyboardInterrupt at the second, within the step."""
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signum


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Catch SIGINT and SIGTERM inside; an ignored signal stays ignored.

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
