"""What each process of test_distributed.py runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from case import ATTACK, Case
from method_cases import CASES as ALL
from tiny import (
    IMAGE_SHAPE,
    gradients,
    tiny_branched_net,
    tiny_images,
    tiny_labels,
    tiny_net,
    tiny_vit,
    with_views,
)
from torch import Tensor, distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from advprop.auxiliary.token import add_auxiliary_tokens
from advprop.config.methods import METHODS
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.methods.fine_grained import FineGrained
from advprop.methods.shuffling import shuffled
from advprop.methods.step import Context
from advprop.randomness import ImageStreams
from advprop.shapes import Batch

RANKS = 2
FACTS = TrainingFacts(num_images=8, image_shape=IMAGE_SHAPE)


def separate(name: str, **fields: Any) -> Case:
    """A registered method's case in the separate form."""
    method = replace(ALL[name].method, form="separate")  # type: ignore[call-arg, type-var]
    return replace(ALL[name], method=method, **fields)


CASES: dict[str, Case] = {
    **{name: case for name, case in ALL.items() if name in METHODS or case.distributed},
    # in one process these are like others
    "advprop separate": separate("advprop", unused=True, forwards=2, backwards=2),
    "advprop token": replace(ALL["advprop"], forwards=2),
    "fine_grained token": Case(method=FineGrained(attacks={"adversarial": ATTACK}), forwards=2),
    "fast token": replace(ALL["fast"], forwards=3),
    "pyramid separate": separate("pyramid", backwards=2),
}

WITH_LOSS = [
    name for name, case in CASES.items() if not case.method.needs_backward and case.backwards == 1
]


def net_for(name: str) -> nn.Module:
    if name.endswith(" token"):
        return add_auxiliary_tokens(tiny_vit()).train()
    auxiliary = CASES[name].method.auxiliary
    return (tiny_branched_net(auxiliary=auxiliary) if auxiliary else tiny_net()).train()


def step(
    method: Method,
    model: nn.Module,
    rank: int,
    *,
    epoch: int | None = None,
    by_loss: bool = False,
) -> None:
    """One step on the images of one rank; `by_loss` with a backward pass of the caller's own."""
    share = slice(rank * 4, rank * 4 + 4)
    batch = Batch(
        images=tiny_images()[share], labels=tiny_labels()[share], indices=torch.arange(8)[share]
    )
    batch = with_views(batch, method.views)
    streams = ImageStreams.for_batch(0, 0, range(8)[share])
    context = Context(step=1, epoch=epoch, generator=streams)
    if by_loss:
        method.loss(model, batch, context).backward()
    else:
        method.forward_backward(model, batch, context)


def handed_over(rank: int, folder: Path) -> tuple[Tensor, Tensor]:
    """What a rank's attacked images keep after one epoch, and the other's as seen in the next."""
    method = replace(CASES["advprop_lean"].method)
    method.prepare(replace(FACTS, folder=folder, num_processes=RANKS))
    model = DistributedDataParallel(net_for("advprop_lean"))
    step(method, model, rank, epoch=0)
    distributed.barrier()  # as the trainer's, which agree in each step
    store = method.memory["store"]
    own = store.encoding.decoded(store.read(torch.arange(8)[rank * 4 : rank * 4 + 4][2:], 1)[0])
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    step(method, model, 1 - rank, epoch=1)
    return own, seen[0][2:]


def exchanged(model: nn.Module, rank: int, *, step: int) -> tuple[list[float], list[int], bool]:
    """Numbers of images and of their soft labels after `shuffled`; is the layout kept?"""
    numbers = torch.arange(8)[rank * 4 : rank * 4 + 4]
    images = numbers.float().view(4, 1, 1, 1).expand(4, 3, 2, 2)
    batch = Batch(
        images=images.contiguous(memory_format=torch.channels_last),
        labels=nn.functional.one_hot(numbers, 8).float(),
    )
    found = shuffled(batch, model, step=step)
    is_kept = found.images.is_contiguous(memory_format=torch.channels_last)
    return found.images[:, 0, 0, 0].tolist(), found.labels.argmax(dim=1).tolist(), is_kept


def counted(model: nn.Module, name: str) -> list[str]:
    """A list that grows with each call of the model's function of that name."""
    calls: list[str] = []
    function = getattr(model, name)
    setattr(model, name, lambda: calls.append(name) or function())
    return calls


def run_rank(rank: int, folder: str) -> None:
    """Save each case's gradients, and its number of forward passes, all-reduces and broadcasts."""
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(minutes=5),
    )
    results: dict[str, object] = {}
    for name, case in CASES.items():
        method = replace(case.method)  # type: ignore[type-var]  # remembers nothing yet
        method.prepare(replace(FACTS, folder=Path(folder) / name, num_processes=RANKS))
        model = DistributedDataParallel(net_for(name), find_unused_parameters=case.unused)
        reductions: list[int] = []
        forwards: list[Tensor] = []

        def counting(state, bucket):  # torch refuses annotations that are strings
            state.append(len(bucket.gradients()))
            return allreduce_hook(distributed.group.WORLD, bucket)

        model.register_comm_hook(reductions, counting)
        model.register_forward_pre_hook(
            lambda _, inputs, forwards=forwards: forwards.append(inputs[0].detach().clone())
        )
        broadcasts = counted(model, "_sync_buffers")
        step(method, model, rank)
        found = gradients(model.module)
        seen = [*forwards]
        counts = len(forwards), len(reductions), len(broadcasts)
        remembered = method.state_dict()
        model.zero_grad()
        step(method, model, rank)  # a second one shows a reduction that was not finished
        results[name] = found, counts, gradients(model.module), seen, remembered
        if name in WITH_LOSS:
            model = DistributedDataParallel(net_for(name))
            step(method, model, rank, by_loss=True)
            results[f"{name} by loss"] = gradients(model.module)
    results["exchanged"] = [exchanged(model, rank, step=number) for number in range(5)]
    results["handed over"] = handed_over(rank, Path(folder) / "shared")
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def run_other_rank(process: int, folder: str) -> None:
    """What a further process starts with; the test's own is rank 0."""
    torch.set_num_threads(1)
    run_rank(process + 1, folder)
