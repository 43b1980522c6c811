"""Two processes with DistributedDataParallel compute what one process does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_steps import (
    CASES,
    FACTS,
    RANKS,
    WITH_LOSS,
    net_for,
    run_other_rank,
    run_rank,
    step,
)
from fast_by_hand import ByHand
from test_universal import shown
from tiny import IMAGE_SHAPE, gradients, same_tensors, tiny_images, tiny_labels
from torch import multiprocessing
from torch.nn import functional as F

from advprop.randomness import ImageStreams

every_case = pytest.mark.parametrize("name", CASES)
# what a process learns from depends on the others: tested by itself below
alone_case = pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if not case.exchanges]
)
fast_case = pytest.mark.parametrize("name", ["fast", "fast separate"])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    # rank 0 runs here: a process of its own would import torch and timm for seconds
    others = multiprocessing.spawn(
        run_other_rank, args=(str(folder),), nprocs=RANKS - 1, join=False
    )
    run_rank(0, str(folder))
    assert others.join(timeout=300)
    return [torch.load(Path(folder) / f"rank{rank}.pt") for rank in range(RANKS)]


@alone_case
def test_gradients_are_the_mean_over_processes(results: list[dict[str, Any]], name: str) -> None:
    alone = []
    for rank in range(RANKS):
        method = dataclasses.replace(CASES[name].method)
        method.prepare(FACTS)
        model = net_for(name)
        step(method, model, rank)
        alone.append(gradients(model))
    for rank in range(RANKS):
        found = results[rank][name][0]
        assert found.keys() == alone[0].keys()
        for key, gradient in found.items():
            expected = (alone[0][key] + alone[1][key]) / 2
            torch.testing.assert_close(gradient, expected)


@every_case
def test_processes_agree_in_every_step(results: list[dict[str, Any]], name: str) -> None:
    for which in (0, 2):
        assert same_tensors(results[0][name][which], results[1][name][which])


@pytest.mark.parametrize("name", WITH_LOSS)
def test_a_loss_with_its_graph_gives_the_same_gradients(
    results: list[dict[str, Any]], name: str
) -> None:
    for found in results:
        assert same_tensors(found[f"{name} by loss"], found[name][0])


@every_case
def test_t11_attacks_fire_no_reduction(results: list[dict[str, Any]], name: str) -> None:
    # a forward pass of the wrapper and a reduction for each pass that trains, none for the attack
    # (a forward pass broadcasts all statistics, but not between two that share a backward); the
    # net's gradients fit one bucket
    case = CASES[name]
    broadcasts = 0 if name.endswith(" token") else case.backwards  # it has no statistics
    forwards, *exchanged = results[0][name][1]
    assert exchanged == [case.backwards, broadcasts], (
        "reductions of gradients and broadcasts of buffers: before each forward pass that shares "
        "its backward pass with an earlier one, call keep_statistics(model); `backwards` "
        "of the method's Case is the number of backward passes"
    )
    assert forwards == case.forwards, "`forwards` of the method's Case: passes that train"


def test_t12_forms_agree_across_processes(results: list[dict[str, Any]]) -> None:
    joint, auto, separate, summed, matched = (
        results[0][f"advprop{form}"][0]
        for form in (" joint", "", " separate", " summed", " matched")
    )
    assert same_tensors(joint, auto)  # "auto" is joint here
    assert same_tensors(summed, matched)  # and this, with matched masks
    for key, gradient in joint.items():
        torch.testing.assert_close(separate[key], gradient)
        torch.testing.assert_close(summed[key], gradient)


def test_t10_images_change_processes_with_their_labels(results: list[dict[str, Any]]) -> None:
    stays = 0
    for rows in zip(*(found["exchanged"] for found in results), strict=True):
        for images, labels, is_kept in rows:
            assert images == labels
            assert is_kept
        assert sorted(rows[0][0] + rows[1][0]) == list(range(8))
        stays += sum(image < 4 for image in rows[0][0])
    assert 0 < stays < 5 * 4
    assert len({tuple(sorted(images)) for images, *_ in results[0]["exchanged"]}) > 1


def test_images_carry_their_perturbations_from_one_process_to_the_other(
    results: list[dict[str, Any]],
) -> None:
    images = tiny_images().split(4)
    for giver, taker in ((0, 1), (1, 0)):
        own, (_, seen) = results[giver]["handed over"][0], results[taker]["handed over"]
        assert own.abs().max() > 0
        assert torch.equal(seen, (images[giver][2:] + own).clamp(0, 1))


def attack_by_hand(hand: ByHand, rank: int) -> torch.Tensor:
    """The noise pass of one process; returns its adversarial images."""
    last = [rank * 4 + 2, rank * 4 + 3]
    images, labels = tiny_images()[last], tiny_labels()[last]
    epsilon = CASES["fast"].method.threat_model.epsilon
    unit = ImageStreams.for_batch(0, 0, last).draw(images.shape, "random start", normal=False)
    noise = (images + epsilon * (2 * unit - 1)).clamp(0, 1)
    gradient = hand.learn("noise", noise, labels, 0.5)
    moved = noise + epsilon * gradient.sign() - images
    return (images + moved.clamp(-epsilon, epsilon)).clamp(0, 1)


@fast_case
def test_fast_learns_from_the_adversarial_images_of_other_processes(
    results: list[dict[str, Any]], name: str
) -> None:
    """Each process's sums over its counts by hand, then their mean."""
    hands = [ByHand() for _ in range(RANKS)]
    made = torch.cat([attack_by_hand(hand, rank) for rank, hand in enumerate(hands)])
    labels = tiny_labels()[[2, 3, 6, 7]]
    origins = []
    for rank, hand in enumerate(hands):
        clean = slice(rank * 4, rank * 4 + 2)
        hand.learn("clean", tiny_images()[clean], tiny_labels()[clean], 1.0)
        images = torch.cat(results[rank][name][3][1:])[2:]
        nearest = torch.cdist(images.flatten(1), made.flatten(1)).argmin(dim=1)
        torch.testing.assert_close(images, made[nearest])
        hand.learn("adversarial", images, labels[nearest], 0.5)
        origins.append(sorted(nearest.tolist()))
    assert sorted(origins[0] + origins[1]) == [0, 1, 2, 3]
    assert origins[0] != [0, 1]  # some have changed processes
    expected = [hand.gradients() for hand in hands]
    for key, gradient in results[0][name][0].items():
        torch.testing.assert_close(gradient, (expected[0][key] + expected[1][key]) / 2)


@pytest.mark.parametrize("name", ["universal", "universal branch"])
def test_all_processes_keep_one_universal_perturbation(
    results: list[dict[str, Any]], name: str
) -> None:
    """Moved by the sign of the sum of both ranks' gradients, which a net alone gives too."""
    found = [results[rank][name][4]["perturbation"] for rank in range(RANKS)]
    method = CASES[name].method
    start = dataclasses.replace(method, step_size=0.0)
    start.forward_backward(net_for(name), tiny_images(), tiny_labels())
    sums = torch.zeros(1, *IMAGE_SHAPE)
    for rank in range(RANKS):
        model = net_for(name)
        images = tiny_images()[rank * 4 : rank * 4 + 4]
        images = (images + shown(start)).clamp(0, 1).requires_grad_()
        labels = tiny_labels()[rank * 4 : rank * 4 + 4]
        F.cross_entropy(model(images), labels).backward()
        sums += images.grad.sum(dim=0, keepdim=True)
    for size, grid in found[0].items():
        assert torch.equal(grid, found[1][size])
        # of the patch sums there are few: none of them is so small that its sign is chance
        patches = F.avg_pool2d(sums, size, ceil_mode=True, divisor_override=1)
        clear = patches.abs() > 1e-6
        assert clear.float().mean() > 0.95
        moved = start.memory[size] + method.step_size * patches.sign()
        assert torch.equal(grid[clear], moved.clamp(-method.epsilon, method.epsilon)[clear])
