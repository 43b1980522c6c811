"""What the processes of one run agree on: verdicts, statistics, where to go on."""

from __future__ import annotations

import socket

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn


class LostProcessError(RuntimeError):
    """Another process of the run has ended; checkpoints are from before."""

    exit_code = 4


def agree(accelerator: Accelerator, loss: Tensor, signum: int | None) -> tuple[bool, int | None]:
    """Is every process's loss finite, and which signal has any of them received?

    One small exchange a step, so that all processes stop at the same step or none does. Reading
    the answer is the one place of a step that waits for the device.
    """
    if accelerator.num_processes == 1:
        return bool(torch.isfinite(loss).item()), signum
    flags = torch.stack([(~torch.isfinite(loss)).float(), loss.new_tensor(signum or 0).float()])
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    is_bad, received = flags.tolist()
    return not is_bad, int(received) or None


def num_machines(accelerator: Accelerator) -> int:
    """On how many machines the processes of the run are, whatever started them; all have to ask."""
    if accelerator.num_processes == 1:
        return 1
    return len(set(gather_object([socket.gethostname()])))


def average_statistics(accelerator: Accelerator, model: nn.Module) -> None:
    """Give all processes the mean of their running statistics, in every branch.

    Each process normalises by its own share of a batch, as is usual; but an attack, which goes
    around DistributedDataParallel, must see the same model everywhere.
    """
    if accelerator.num_processes == 1:
        return
    statistics = [
        buffer
        for name, buffer in model.named_buffers()
        if name.rpartition(".")[2].startswith("running_")
    ]
    if not statistics:
        return
    flat = torch.cat([buffer.flatten() for buffer in statistics])
    torch.distributed.all_reduce(flat)
    flat /= accelerator.num_processes
    parts = flat.split([buffer.numel() for buffer in statistics])
    for buffer, part in zip(statistics, parts, strict=True):
        buffer.copy_(part.view_as(buffer))


def is_lost_process(error: BaseException) -> bool:
    """Whether `error` says that another process is gone."""
    text = str(error)
    return isinstance(error, torch.distributed.DistError) or any(
        words in text for words in ("Connection closed by peer", "Connection reset by peer")
    )
