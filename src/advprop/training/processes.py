"""Connects the processes of one run, and averages their running statistics."""

from __future__ import annotations

import os
import socket
import threading
import warnings
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from advprop.files.parsing import first_line


class LostProcessError(RuntimeError):
    """Another process of the run has ended or does not answer; earlier checkpoints are intact."""

    exit_code = 4


LOST_AFTER = timedelta(minutes=10)
"""A process that does not answer for this time is lost; the value is torch's default for NCCL."""
_SAY_AFTER_SECONDS = 10.0
_WAIT_AT_MOST = timedelta(minutes=30)
_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def join_processes(*, on_cpu: bool) -> bool:
    """Connect to the other processes that `torchrun` started; return whether there are any.

    Warns after ten seconds of waiting. Raises ValueError if `torchrun`'s environment variables do
    not fit, the processes cannot connect, or two of them have the same GPU.
    """
    world_size, rank, local_rank = _numbers_of_this_process()
    if world_size == 1:
        return False
    if torch.distributed.is_initialized():
        return True
    _take_device(local_rank, on_cpu=on_cpu)
    place = "{MASTER_ADDR}:{MASTER_PORT} (MASTER_ADDR, MASTER_PORT)".format(**os.environ)
    failures: list[Exception] = []
    # in a thread, since torch does not react to signals while it waits
    meeting = threading.Thread(target=_meet, args=(local_rank, on_cpu, failures), daemon=True)
    meeting.start()
    patience = _WAIT_AT_MOST.total_seconds()
    meeting.join(min(_SAY_AFTER_SECONDS, patience))
    if meeting.is_alive() and patience > _SAY_AFTER_SECONDS:
        warnings.warn(
            f"process {rank} (RANK) waits for all {world_size} (WORLD_SIZE) to meet at {place}, "
            f"{patience / 60:g} minutes at most: start the others, or unset WORLD_SIZE "
            "to train in one process",
            stacklevel=2,
        )
        meeting.join(patience)
    if meeting.is_alive():  # another program may use that address
        failures.append(TimeoutError(f"no answer within {patience:g} seconds"))
    if failures:
        raise _could_not_meet(failures[0], place) from failures[0]
    return True


def _numbers_of_this_process() -> tuple[int, int, int]:
    """Return WORLD_SIZE, RANK and LOCAL_RANK; raises ValueError if the variables do not fit."""
    given = {name: os.environ.get(name, "").strip() for name in _VARIABLES}
    if given["WORLD_SIZE"] in ("", "1"):
        return 1, 0, 0
    world_size, rank, local_rank, port = (
        int(given[name]) if given[name].isdecimal() else -1
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")
    )
    is_right = max(rank, local_rank) < world_size and min(rank, local_rank) >= 0
    if not (is_right and given["MASTER_ADDR"] and 0 < port < 2**16):
        listed = ", ".join(f"{name}={value or '(none)'}" for name, value in given.items())
        raise ValueError(
            f"{listed}: several processes need RANK and LOCAL_RANK from 0 to WORLD_SIZE - 1, and "
            "MASTER_ADDR and MASTER_PORT (1 to 65535) of the first; torchrun sets them all. Unset "
            "WORLD_SIZE to train in one process"
        )
    return world_size, rank, local_rank


def _meet(local_rank: int, on_cpu: bool, failures: list[Exception]) -> None:
    try:
        device = _take_device(local_rank, on_cpu=on_cpu)  # each thread has its current device
        store, rank, world_size = next(
            iter(torch.distributed.rendezvous("env://", timeout=_WAIT_AT_MOST))
        )
        # else processes that torchrun restarts would find the addresses of those that ended
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = torch.distributed.PrefixStore(f"attempt {attempt}", store)
        if device.type == "cuda":
            _check_own_gpu(store, rank, world_size)
        torch.distributed.init_process_group(
            torch.distributed.get_default_backend_for_device(device),
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=LOST_AFTER,
        )
    except (RuntimeError, ValueError) as error:
        failures.append(error)


def _take_device(local_rank: int, *, on_cpu: bool) -> torch.device:
    """Make this process's accelerator the current device, and return it, or the CPU if none."""
    device = None if on_cpu else torch.accelerator.current_accelerator()
    if device is None:
        return torch.device("cpu")
    # a process may see all accelerators of its machine, or only its own
    torch.accelerator.set_device_index(local_rank % torch.accelerator.device_count())
    return device


def _check_own_gpu(store: torch.distributed.Store, rank: int, world_size: int) -> None:
    """Raise ValueError in all processes if two of them have the same GPU, which NCCL rejects."""
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    store.set(f"gpu of {rank}", f"{socket.gethostname()} {gpu.uuid}")
    found = store.multi_get([f"gpu of {number}" for number in range(world_size)])
    if len(set(found)) < world_size:
        raise ValueError(
            f"{world_size} processes have {len(set(found))} GPUs, and each needs one of its own: "
            f"start as many processes on a machine as it has GPUs (here {torch.cuda.device_count()}"
            "), as with torchrun --nproc_per_node; CUDA_VISIBLE_DEVICES= trains on CPUs"
        )


def _could_not_meet(error: Exception, place: str) -> ValueError:
    """Return an error with a remedy, and the first line of torch's message, which may be long."""
    if isinstance(error, ValueError):
        return error
    reason = first_line(error)[:200]
    if "EADDRINUSE" in str(error):
        remedy = "set MASTER_PORT to another, the same for all, or let torchrun --standalone choose"
        return ValueError(f"the port of {place} is in use: {remedy} ({reason})")
    return ValueError(
        f"the processes did not meet at {place} ({reason}): start all of them, and let MASTER_ADDR "
        "be a name of the first one's machine; unset WORLD_SIZE to train in one process"
    )


def num_machines(accelerator: Accelerator) -> int:
    """Return the number of machines with processes of the run; all processes must call it."""
    if accelerator.num_processes == 1:
        return 1
    return len(set(gather_object([socket.gethostname()])))


def average_statistics(accelerator: Accelerator, model: nn.Module) -> None:
    """Give all processes the mean of their running statistics, in every branch.

    Each process normalises by its own share of a batch, but attacks, which bypass
    DistributedDataParallel, need the same model in all. SyncBatchNorm's are the same already.
    """
    if accelerator.num_processes == 1:
        return
    found = {
        id(buffer): buffer
        for module in model.modules()
        if not isinstance(module, nn.SyncBatchNorm)
        for name, buffer in module._buffers.items()
        if buffer is not None and name.startswith("running_")
    }
    if not found:
        return
    statistics = [*found.values()]
    flat = torch.cat([buffer.flatten() if buffer.ndim != 1 else buffer for buffer in statistics])
    torch.distributed.all_reduce(flat)
    flat /= accelerator.num_processes
    parts = flat.split([buffer.numel() for buffer in statistics])
    shaped = zip(parts, statistics, strict=True)
    means = [part.view_as(buffer) if buffer.ndim != 1 else part for part, buffer in shaped]
    torch._foreach_copy_(statistics, means)


def is_lost_process(error: BaseException) -> bool:
    """Return whether `error` says that another process has ended or did not answer in time."""
    text = str(error)
    return isinstance(error, torch.distributed.DistError) or any(
        words in text
        for words in (
            "Connection closed by peer",
            "Connection reset by peer",
            "Timed out waiting",
            "Application timeout caused pair closure",
        )
    )
