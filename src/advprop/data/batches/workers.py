"""Loader workers: their batches, their errors and deaths, and the images they cannot read."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from advprop.data.listing.classes import shortened
from advprop.data.reading import UnreadableImageError
from advprop.data.splits import ImageSplit, Key
from advprop.files.parsing import first_line
from advprop.shapes import Batch

_WAIT_AT_MOST_SECONDS = 1800
_LOOK_AFTER_SECONDS = 5  # as torch does where a loader has no timeout
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, kw_only=True, eq=False)
class Assembly:
    """A split and the functions that finish its batches, a data set for torch's `DataLoader`."""

    split: ImageSplit
    finish: tuple[Callable[[Batch], Batch], ...] = ()

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of `keys` after all functions of `finish`, such as mixing."""
        batch = self.split.__getitems__(keys)
        for change in self.finish:
            batch = change(batch)
        return batch


def batches_from_workers(
    assembly: Assembly, keys: Iterator[list[Key]], *, num_workers: int, **options: Any
) -> Iterator[Batch]:
    """Yield the batches of `keys` in order, made by worker processes that end with this one.

    `options` are those of torch's `DataLoader`. Errors of workers are raised here, as ValueError,
    OSError or ImportError; the worker's traceback is a note of the error.
    """
    loader: DataLoader[Any] = DataLoader(
        _ErrorsAsValues(assembly),  # type: ignore[arg-type]  # has all methods that torch calls
        batch_sampler=keys,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        timeout=min(_LOOK_AFTER_SECONDS, _WAIT_AT_MOST_SECONDS),
        worker_init_fn=partial(_end_with_parent, os.getpid()),
        generator=torch.Generator(),  # else it would draw from torch's global stream
        **options,
    )
    with worker_deaths_explained():
        batches = _started(loader)
        while (batch := _next(batches)) is not None:
            if isinstance(batch, Exception):
                raise batch
            yield batch


@contextmanager
def worker_deaths_explained() -> Iterator[None]:
    """Raise OSError, with a remedy, in place of torch's errors for a killed or hanging worker.

    torch raises them from a signal handler, anywhere in the main thread, so training loops run in
    this context too.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader timed out" in str(error):
            raise OSError(
                f"no images for {_WAIT_AT_MOST_SECONDS // 60} minutes: a process that loads them "
                "hangs, or the storage does; training.num_workers=0 shows where"
            ) from error
        if "Too many open files" in str(error):
            raise OSError(
                "too many open files: raise the limit (ulimit -n 65536), or use fewer "
                "training.num_workers"
            ) from error
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise OSError(
            f"a process that loads images has died ({first_line(error)}), most often for "
            "want of memory: use fewer training.num_workers, a smaller training.batch_size, or "
            "give more (shared) memory"
        ) from error


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        return iter(loader)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"this data set cannot be handed to other processes ({error}): set "
            "training.num_workers=0"
        ) from error


def _next(batches: Iterator[Any]) -> Any:
    """Return the next batch, None after the last.

    torch looks for dead workers when its timeout ends, so it is short, and waited for again: the
    error that torch raises from its signal handler can be lost (in a destructor, for instance).
    """
    end = time.monotonic() + _WAIT_AT_MOST_SECONDS
    while True:
        try:
            return next(batches, None)
        except RuntimeError as error:
            if "DataLoader timed out" not in str(error) or time.monotonic() >= end:
                raise


class _ErrorsAsValues:
    """A data set that returns a worker's errors as values, since torch turns errors into text.

    Batches are moved into shared memory here, since torch would do it in a thread that loses the
    errors.
    """

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly

    def __getitems__(self, keys: list[Key]) -> Batch | Exception:
        try:
            batch = self.assembly.__getitems__(keys)
        except Exception as error:
            return _for_the_user(error)
        try:
            return batch.share_memory()
        except (RuntimeError, OSError) as error:
            return _no_shared_memory(error)


def _no_shared_memory(error: Exception) -> OSError:
    place = Path("/dev/shm")
    size = f", {shutil.disk_usage(place).total / 2**20:.0f} MB" if place.is_dir() else ""
    return OSError(
        f"no room for a batch in shared memory ({place}{size}; {str(error)[:200]}): give more, as "
        "with docker run --shm-size=8g, or use fewer training.num_workers (0 needs none), or a "
        "smaller training.batch_size; in tests evaluation.num_workers and evaluation.batch_size"
    )


def _for_the_user(error: Exception) -> Exception:
    """Return an error of one of four kinds for the user, with the traceback as a note."""
    clear: Exception
    if isinstance(error, MemoryError):
        clear = OSError(
            "out of memory while loading images: use fewer training.num_workers or a smaller "
            "training.batch_size"
        )
    elif isinstance(error, ValueError | OSError | ImportError):
        # a type of one's own may not survive the way to the training process
        kinds = (UnreadableImageError, ValueError, ImportError, OSError)
        clear = next(kind for kind in kinds if isinstance(error, kind))(str(error))
    else:
        clear = OSError(
            f"loading images failed ({type(error).__name__}: {error}); training.num_workers=0 "
            "shows where"
        )
    clear.add_note("".join(traceback.format_exception(error)))
    return clear


def _end_with_parent(parent: int, worker: int) -> None:
    """Have Linux end this process when `parent` ends, even by a kill."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # a fork server would be the parent of the worker
        if multiprocessing.get_start_method() != "forkserver" and os.getppid() != parent:
            os._exit(1)  # the parent ended before the call, so no signal will come


def _as_it_is(batch: Any) -> Any:
    return batch


@dataclass(kw_only=True)
class UnreadableTally:
    """The distinct files, among `num_images`, that a training run could not read.

    The training process keeps it for the whole run; loader workers only report. Each of
    `num_processes` is allowed an equal part of `max_share`, so that the total stays within it.
    """

    max_share: float
    num_images: int
    num_processes: int = 1
    found: dict[str, None] = field(default_factory=dict)  # a set in order of occurrence

    @property
    def count(self) -> int:
        """Return the number of files that could not be read so far."""
        return len(self.found)

    def add(self, batch: Batch) -> None:
        """Count the batch's unreadable files, and warn of each new one by name.

        Raises UnreadableImageError, which lists all, if they exceed the share of this process.
        """
        new = [problem for problem in batch.unreadable if problem not in self.found]
        self.found.update(dict.fromkeys(new))
        if self.count > self.max_share * self.num_images // self.num_processes:
            each = f" each of {self.num_processes} processes" * (self.num_processes > 1)
            raise UnreadableImageError(
                f"{self.count} of {self.num_images} training images cannot be read, more than "
                f"max_unreadable={self.max_share:g} allows{each}; repair or delete "
                "them:\n  " + shortened(self.found, separator="\n  ")
            )
        for problem in dict.fromkeys(new):
            warnings.warn(f"{problem}; another image stands in for it", stacklevel=2)
