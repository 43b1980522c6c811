"""Two processes with DistributedDataParallel, compiled, and with synchronised statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from launching import forked, free_port, variables
from tiny import gradients, same_tensors, tiny_branched_net, tiny_images, tiny_labels
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.methods.advprop import AdvProp
from advprop.methods.step import Context
from advprop.methods.vanilla import Vanilla
from advprop.randomness import ImageStreams
from advprop.runs.trainer import with_synchronised_statistics
from advprop.shapes import Batch
from advprop.training.engine import build_accelerator, distribute
from advprop.training.settings import TrainingSettings

RANKS, IMAGES = 2, 8
METHOD = AdvProp(attack=PGD(threat_model=Linf(8 / 255), num_steps=2, step_size=6 / 255))
SETTINGS = TrainingSettings(num_epochs=1, batch_size=IMAGES)


def step(model: nn.Module, first: int, last: int, number: int = 0) -> None:
    """One step of AdvProp on some of the images, in float64: no sign of an attack is chance."""
    share = slice(first, last)
    images, indices = tiny_images()[share].double(), torch.arange(IMAGES)[share]
    batch = Batch(images=images, labels=tiny_labels()[share], indices=indices)
    streams = ImageStreams.for_batch(0, number, indices)
    model.zero_grad()
    METHOD.forward_backward(model, batch, Context(step=number, generator=streams))


def in_processes(work: Callable[[int], dict[str, Tensor]], folder: Path) -> list[dict[str, Tensor]]:
    """What `work` of each rank returns, and what was written where it failed."""

    def run(rank: int) -> None:
        torch.save(work(rank), folder / f"{rank}.pt")
        torch.distributed.destroy_process_group()

    port = free_port()
    ranks = [forked(run, variables(RANKS, rank, port), rank) for rank in range(RANKS)]
    for process in ranks:
        process.join(600)  # compiling takes minutes on a busy machine
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize(
    "backend", ["eager", pytest.param("inductor", marks=pytest.mark.full)], ids=str
)
def test_attacks_and_steps_are_compiled_and_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """The second step too, for which nothing is compiled; "eager" runs what was captured."""
    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: whole(self, backend=backend))

    def work(rank: int) -> dict[str, Tensor]:
        found = {}
        for compiled in (False, True):
            settings = TrainingSettings(num_epochs=1, batch_size=IMAGES, compile=compiled)
            net = tiny_branched_net().double().train()
            model = distribute(net, settings, build_accelerator(settings))
            for number in range(2):
                step(model, 4 * rank, 4 * rank + 4, number)
                found |= {
                    f"{number} {compiled} {name}": gradient
                    for name, gradient in gradients(net).items()
                }
                if number == 0:
                    torch._dynamo.config.error_on_recompile = compiled
            torch._dynamo.config.error_on_recompile = False
        assert bool(torch._dynamo.utils.counters["frames"])
        return found

    for found in in_processes(work, tmp_path):
        eager = {name: tensor for name, tensor in found.items() if "False" in name}
        assert len(eager) == len(found) / 2
        for name, gradient in eager.items():
            torch.testing.assert_close(found[name.replace("False", "True")], gradient)


def synchronised(layer: nn.SyncBatchNorm, images: Tensor) -> Tensor:
    """What torch's layer computes on GPUs, by its definition, over gloo."""
    statistics = (layer.running_mean, layer.running_var)
    if not layer.training:
        return F.batch_norm(images, *statistics, layer.weight, layer.bias, eps=layer.eps)
    channels = images.shape[1]
    count = images.new_tensor([images.numel() / channels])
    sums = torch.cat([images.sum((0, 2, 3)), images.square().sum((0, 2, 3)), count])
    first, second, total = all_reduce(sums).split([channels, channels, 1])
    mean = first / total
    variance = second / total - mean.square()
    with torch.no_grad():
        found = (mean, variance * total / (total - 1))
        for running, new in zip(statistics, found, strict=True):
            running.lerp_(new, layer.momentum)
    by_channel = [part[:, None, None] for part in (mean, variance, layer.weight, layer.bias)]
    mean, variance, weight, bias = by_channel
    return (images - mean) / (variance + layer.eps).sqrt() * weight + bias


def test_synchronised_branches_learn_as_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conversion is ours to test, the collective is torch's: a stand-in does its work here."""

    def work(rank: int) -> dict[str, Tensor]:
        accelerator = build_accelerator(SETTINGS)
        net = with_synchronised_statistics(
            tiny_branched_net().double().train(),
            Vanilla(),
            None,
            num_processes=RANKS,
            device=torch.device("cuda"),  # as far as it is asked
        )
        step(distribute(net, SETTINGS, accelerator), 4 * rank, 4 * rank + 4)
        return gradients(net) | dict(net.named_buffers())

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", synchronised)
    # refuses such layers on CPUs
    monkeypatch.setattr(DistributedDataParallel, "_passing_sync_batchnorm_handle", lambda *_: None)
    one, other = in_processes(work, tmp_path)
    assert same_tensors(one, other)
    alone = tiny_branched_net().double().train()
    step(alone, 0, IMAGES)
    expected = gradients(alone) | dict(alone.named_buffers())
    assert one.keys() == expected.keys()
    for name, tensor in expected.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(one[name], tensor, msg=name)
