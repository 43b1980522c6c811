"""What each process of test_distributed.py runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from tiny import (
    IMAGE_SHAPE,
    gradients,
    tiny_branched_net,
    tiny_images,
    tiny_labels,
    tiny_net,
    tiny_vit,
)
from torch import Tensor, distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from advprop.attacks.pgd import PGD
from advprop.attacks.pyramid import PyramidPGD
from advprop.auxiliary.token import add_auxiliary_tokens
from advprop.methods.adversarial import Adversarial
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Context, Method, TrainingFacts
from advprop.methods.carried import Carried
from advprop.methods.fast import Fast
from advprop.methods.fine_grained import FineGrained
from advprop.methods.mixed import Mixed
from advprop.methods.pyramid import Pyramid
from advprop.methods.shuffling import shuffled
from advprop.methods.universal import Universal
from advprop.methods.vanilla import Vanilla
from advprop.randomness import ImageStreams
from advprop.shapes import Batch
from advprop.threat_models import Linf

RANKS = 2
ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=2, step_size=6 / 255)
FAST = Fast(threat_model=Linf(8 / 255), attacked_fraction=0.5)
PYRAMID = PyramidPGD(scales=(4, 3, 1), num_steps=2)
UNIVERSAL: dict[str, Any] = {"epsilon": 0.02, "step_size": 0.01, "scales": (4, 3, 1)}
CARRIED = Carried(threat_model=Linf(8 / 255))
FACTS = TrainingFacts(num_images=8, image_shape=IMAGE_SHAPE)
CASES: dict[str, tuple[Method, bool]] = {
    "vanilla": (Vanilla(), False),
    "adversarial": (Adversarial(attack=ATTACK), False),
    "mixed": (Mixed(attack=ATTACK), False),
    "advprop auto": (AdvProp(attack=ATTACK), False),
    "advprop joint": (AdvProp(attack=ATTACK, form="joint"), False),
    "advprop separate": (AdvProp(attack=ATTACK, form="separate"), True),
    "advprop summed": (AdvProp(attack=ATTACK, form="summed"), False),
    "advprop matched": (AdvProp(attack=ATTACK, matched_masks=True), False),
    "fast auto": (FAST, False),
    "fast separate": (replace(FAST, form="separate"), True),
    "advprop token": (AdvProp(attack=ATTACK), False),
    "fine_grained token": (FineGrained(attacks={"adversarial": ATTACK}), False),
    "fast token": (FAST, False),
    "carried token": (CARRIED, False),
    "decoupled token": (replace(CARRIED, pairing="decoupled"), False),
    "pyramid auto": (Pyramid(attack=PYRAMID), False),
    "pyramid separate": (Pyramid(attack=PYRAMID, form="separate"), False),
    "universal auto": (Universal(**UNIVERSAL), False),
    "universal branch": (Universal(**UNIVERSAL, auxiliary_branch=True), False),
    "carried auto": (CARRIED, False),
    "carried separate": (replace(CARRIED, form="separate"), True),
    "carried decoupled": (replace(CARRIED, pairing="decoupled"), False),
    "carried mixed": (replace(CARRIED, auxiliary_branch=False), False),
}
"""Each method, and whether DistributedDataParallel must look for unused parameters."""


def net_for(name: str) -> nn.Module:
    if name.endswith(" token"):
        return add_auxiliary_tokens(tiny_vit()).train()
    method, _ = CASES[name]
    return (tiny_branched_net() if method.auxiliary else tiny_net()).train()


def step(method: Method, model: nn.Module, rank: int, *, epoch: int | None = None) -> None:
    """One step on the images of one rank."""
    share = slice(rank * 4, rank * 4 + 4)
    batch = Batch(
        images=tiny_images()[share], labels=tiny_labels()[share], indices=torch.arange(8)[share]
    )
    streams = ImageStreams.for_batch(0, 0, range(8)[share])
    method.forward_backward(model, batch, Context(step=1, epoch=epoch, generator=streams))


def handed_over(rank: int, folder: Path) -> tuple[Tensor, Tensor]:
    """What a rank's images carry after one epoch, and the other rank's, as seen in the next."""
    method = replace(CARRIED)
    method.prepare(replace(FACTS, folder=folder, num_processes=RANKS))
    model = DistributedDataParallel(net_for("carried auto"))
    step(method, model, rank, epoch=0)
    distributed.barrier()  # as the trainer's, which agree in each step
    store = method.memory["all"].store
    own = store.decoded(store.read(torch.arange(8)[rank * 4 : rank * 4 + 4], 1)[0])
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    step(method, model, 1 - rank, epoch=1)
    return own, seen[0][4:]


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
    for name, (settings, unused) in CASES.items():
        method = replace(settings)  # type: ignore[type-var]  # remembers nothing yet
        method.prepare(replace(FACTS, folder=Path(folder) / name, num_processes=RANKS))
        model = DistributedDataParallel(net_for(name), find_unused_parameters=unused)
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
    results["exchanged"] = [exchanged(model, rank, step=number) for number in range(5)]
    results["handed over"] = handed_over(rank, Path(folder) / "shared")
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def run_other_rank(process: int, folder: str) -> None:
    """What a further process starts with; the test's own is rank 0."""
    torch.set_num_threads(1)
    run_rank(process + 1, folder)
