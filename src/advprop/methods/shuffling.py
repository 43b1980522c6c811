"""Exchange images between processes before the pass that learns from them (Shuffle BN)."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from advprop.randomness import generator_for
from advprop.shapes import Batch


def shuffled(batch: Batch, model: nn.Module, *, step: int) -> Batch:
    """Exchange images and labels between all processes; each receives as many as it gives.

    A random permutation, the same in all processes for one `step`, decides which process receives
    an image. Each process sends each image once, whatever the number of processes; all must have
    equally many images. If `model` is not in DistributedDataParallel, returns `batch` unchanged,
    since another order changes no batch statistics. Raises TypeError for labels that are not a
    tensor.
    """
    if not isinstance(model, DistributedDataParallel):
        return batch
    if not isinstance(batch.labels, Tensor):
        raise TypeError(
            f"labels are a {type(batch.labels).__name__}, and a tensor is needed where images "
            "change processes: train another method on several processes, such as AdvProp"
        )
    exchange = _Exchange(len(batch), model.process_group, step)
    return Batch(images=exchange(batch.images), labels=exchange(batch.labels))


class _Exchange:
    """Applies one permutation to the entries of all processes, `count` in each."""

    def __init__(self, count: int, group: distributed.ProcessGroup, step: int) -> None:
        self.group = group
        rank, size = distributed.get_rank(group), distributed.get_world_size(group)
        order = torch.randperm(count * size, generator=generator_for(step, "shuffle"))
        order = order.view(size, count)  # row r has the entries for process r
        owner = order // count
        mine = owner == rank
        self.chosen = order[mine] % count  # in the order of the receiving processes
        self.sent = mine.sum(dim=1).tolist()
        self.received = owner[rank].bincount(minlength=size).tolist()

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the entries that this process receives, in the memory layout of `tensor`."""
        chosen = self.chosen.to(tensor.device, non_blocking=True)
        # collectives send the memory in its present order
        sent = tensor[chosen].contiguous()
        received = torch.empty_like(sent)
        distributed.all_to_all_single(received, sent, self.received, self.sent, group=self.group)
        return torch.empty_like(tensor).copy_(received)
