"""Two processes with DistributedDataParallel compute what one process does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_steps import CASES, RANKS, net_for, run_other_rank, run_rank, step
from tiny import IMAGE_SHAPE, gradients, same_tensors, tiny_images, tiny_labels
from torch import multiprocessing
from torch.nn import functional as F

every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    # rank 0 runs here: a process of its own would import torch and timm for seconds
    others = multiprocessing.spawn(
        run_other_rank, args=(str(folder),), nprocs=RANKS - 1, join=False
    )
    run_rank(0, str(folder))
    assert others.join(timeout=60)
    return [torch.load(Path(folder) / f"rank{rank}.pt") for rank in range(RANKS)]


@every_case
def test_gradients_are_the_mean_over_processes(results: list[dict[str, Any]], name: str) -> None:
    alone = []
    for rank in range(RANKS):
        method = dataclasses.replace(CASES[name][0])
        model = net_for(name)
        step(method, model, rank)
        alone.append(gradients(model))
    for rank in range(RANKS):
        found, *_ = results[rank][name]
        assert found.keys() == alone[0].keys()
        for key, gradient in found.items():
            expected = (alone[0][key] + alone[1][key]) / 2
            torch.testing.assert_close(gradient, expected)


@every_case
def test_processes_agree_in_every_step(results: list[dict[str, Any]], name: str) -> None:
    for which in (0, 2):
        assert same_tensors(results[0][name][which], results[1][name][which])


@every_case
def test_t11_attacks_fire_no_reduction(results: list[dict[str, Any]], name: str) -> None:
    # a forward pass of the wrapper and a reduction for each pass that trains, none for the attack
    # (a forward pass broadcasts all statistics, but not between two that share a backward); the
    # net's gradients fit one bucket
    method, form = name.split(" ") if " " in name else (name, "")
    has_two = method in ("advprop", "pyramid", "universal")
    is_one_pass = not has_two or name in ("advprop auto", "advprop joint")
    forwards = 1 if is_one_pass else 2
    backwards = 2 if form == "separate" else 1
    broadcasts = 0 if name == "advprop token" else backwards  # it has no statistics
    assert results[0][name][1] == (forwards, backwards, broadcasts)


def test_t12_forms_agree_across_processes(results: list[dict[str, Any]]) -> None:
    joint, auto, separate, summed, matched = (
        results[0][f"advprop {form}"][0]
        for form in ("joint", "auto", "separate", "summed", "matched")
    )
    assert same_tensors(joint, auto)  # "auto" is joint here
    assert same_tensors(summed, matched)  # and this, with matched masks
    for key, gradient in joint.items():
        torch.testing.assert_close(separate[key], gradient)
        torch.testing.assert_close(summed[key], gradient)


@pytest.mark.parametrize("name", ["universal auto", "universal branch"])
def test_all_processes_keep_one_universal_perturbation(
    results: list[dict[str, Any]], name: str
) -> None:
    """Moved by the sign of the sum of both ranks' gradients, which a net alone gives too."""
    found = [results[rank][name][3]["perturbation"] for rank in range(RANKS)]
    sums = torch.zeros(1, *IMAGE_SHAPE)
    for rank in range(RANKS):
        model = net_for(name)
        images = tiny_images()[rank * 4 : rank * 4 + 4].requires_grad_()
        labels = tiny_labels()[rank * 4 : rank * 4 + 4]
        F.cross_entropy(model(images), labels).backward()
        sums += images.grad.sum(dim=0, keepdim=True)
    for size, grid in found[0].items():
        assert torch.equal(grid, found[1][size])
        # of the patch sums there are few: none of them is so small that its sign is chance
        patches = F.avg_pool2d(sums, size, ceil_mode=True, divisor_override=1)
        clear = patches.abs() > 1e-6
        assert clear.float().mean() > 0.95
        assert torch.equal(grid[clear], 0.01 * patches.sign()[clear])
