"""`method.loss` in loops of one's own: gradient scaler, accelerate, several optimisers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from digits_to_learn import (
    ADVPROP,
    BATCH_SIZE,
    METHODS,
    accuracy,
    batches,
    check_removed_and_exported,
    digits,
    gradients_by_hand,
    gradients_of,
    net,
    state,
)
from tiny import same_tensors
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from advprop.auxiliary.gradients import branch_parameters
from advprop.methods.base import Method


@pytest.fixture(autouse=True)
def _one_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_gradient_scaler_gives_the_gradients_of_forward_backward(method: Method) -> None:
    model = net().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(method.loss(model, *digits(BATCH_SIZE))).backward()
    scaler.unscale_(optimizer)
    assert same_tensors(gradients_of(model), gradients_by_hand(method, net(), digits(BATCH_SIZE)))


def prepared(
    count: int = BATCH_SIZE, **options: object
) -> tuple[Accelerator, nn.Module, torch.optim.Optimizer, DataLoader]:
    accelerator = Accelerator(cpu=True, **options)
    model = net().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(TensorDataset(*digits(count)), batch_size=BATCH_SIZE)
    return accelerator, *accelerator.prepare(model, optimizer, loader)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_accelerate_gives_the_gradients_of_forward_backward(method: Method) -> None:
    accelerator, model, _, loader = prepared()
    accelerator.backward(method.loss(model, *next(iter(loader))))
    assert same_tensors(gradients_of(model), gradients_by_hand(method, net(), digits(BATCH_SIZE)))


def learn(accelerator: Accelerator, model: nn.Module, optimizer, loader: DataLoader) -> None:
    """One epoch."""
    for images, labels in loader:
        with accelerator.accumulate(model):
            accelerator.backward(ADVPROP.loss(model, images, labels))
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def test_two_epochs_with_accelerate_saved_resumed_removed_and_exported(tmp_path: Path) -> None:
    whole = prepared(512)
    learn(*whole)
    whole[0].save_state(str(tmp_path / "state"))
    learn(*whole)
    resumed = prepared(512)
    resumed[0].load_state(str(tmp_path / "state"))
    learn(*resumed)
    model = resumed[0].unwrap_model(resumed[1])
    assert same_tensors(state(model), state(whole[1]))
    assert accuracy(model) > 0.5
    check_removed_and_exported(model, tmp_path / "exported")


def test_accelerate_in_mixed_precision_with_accumulation(tmp_path: Path) -> None:
    accelerator, model, optimizer, loader = prepared(
        64, mixed_precision="bf16", gradient_accumulation_steps=2
    )
    before = state(model)
    learn(accelerator, model, optimizer, loader)
    plain = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    assert not same_tensors(state(plain), before)
    assert all(tensor.isfinite().all() for tensor in state(plain).values())
    check_removed_and_exported(plain, tmp_path / "exported")


def test_several_optimisers_share_one_loss() -> None:
    together, apart = net().train(), net().train()
    one = [torch.optim.SGD(together.parameters(), lr=0.1)]
    groups = branch_parameters(apart).values()
    several = [torch.optim.SGD(parameters, lr=0.1) for parameters in groups]
    for model, optimizers in ((together, one), (apart, several)):
        for batch in batches(64):
            ADVPROP.loss(model, *batch).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    assert same_tensors(state(together), state(apart))
