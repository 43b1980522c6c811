"""timm's training tasks with a method's loss, in the loop of its training script."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from digits_to_learn import (
    ADVPROP,
    ATTACK,
    BATCH_SIZE,
    METHODS,
    REFUSED,
    SEEN,
    Changing,
    accuracy,
    batches,
    check_removed_and_exported,
    digits,
    gradients_by_hand,
    gradients_of,
    net,
    state,
)
from timm.task import load_task_ema_checkpoint, resume_task_checkpoint
from timm.utils import CheckpointSaver, dispatch_clip_grad
from tiny import same_tensors
from torch import nn

from advprop.bridges.timm import MethodTask
from advprop.methods.base import Method


class Training:
    """What timm's `train.py` does with a task: accumulation, clipping, averages, checkpoints."""

    def __init__(
        self,
        folder: Path,
        method: Method = ADVPROP,
        *,
        images: int = 64,
        autocast: bool = False,
        parts: int = 1,
    ) -> None:
        self.batches, self.autocast, self.parts = batches(images), autocast, parts
        self.task = MethodTask(net(), method, 2 * len(self.batches), verbose=False)
        self.task.setup_ema(decay=0.5)
        model = self.task.get_trainable_module()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        self.steps: list[dict[str, torch.Tensor]] = []
        self.epoch = 0
        self.saver = CheckpointSaver(
            model, self.optimizer, task=self.task, checkpoint_dir=str(folder)
        )

    def resume(self, path: Path) -> None:
        found = resume_task_checkpoint(self.task, str(path), self.optimizer, log_info=False)
        load_task_ema_checkpoint(self.task, str(path))
        assert found is not None
        self.epoch = found

    def train(self) -> None:
        for epoch in range(self.epoch, 2):
            self._train_epoch()
            self.saver.save_checkpoint(epoch)

    def _train_epoch(self) -> None:
        self.task.get_trainable_module().train()
        for number, batch in enumerate(self.batches, start=1):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                loss = self.task(*batch)["loss"]
            loss /= self.parts  # in place, as timm has it
            loss.backward()
            if number % self.parts == 0:
                self.steps.append(gradients_of(self.task.get_trainable_module()))
                dispatch_clip_grad(self.task.get_clip_parameters(), 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.task.update_ema()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_gradients_are_those_of_forward_backward(method: Method, tmp_path: Path) -> None:
    expected = gradients_by_hand(method, net(), digits(BATCH_SIZE))
    training = Training(tmp_path, method)
    training.train()
    assert same_tensors(training.steps[0], expected)


def test_two_epochs_saved_resumed_removed_and_exported(tmp_path: Path) -> None:
    whole, resumed = Training(tmp_path, images=512), Training(tmp_path / "again", images=512)
    (tmp_path / "again").mkdir()
    whole.train()
    resumed.resume(tmp_path / "checkpoint-0.pth.tar")
    assert resumed.task.batches == len(resumed.batches)
    resumed.train()
    assert len(resumed.steps) == len(resumed.batches)
    for ema in (False, True):
        first, second = (training.task.get_eval_model(ema=ema) for training in (whole, resumed))
        assert same_tensors(state(first), state(second))
    average = resumed.task.get_eval_model(ema=True).module
    assert accuracy(average) > 0.5
    check_removed_and_exported(average, tmp_path / "average")
    check_removed_and_exported(resumed.task.get_trainable_module(), tmp_path / "exported")


def test_mixed_precision_and_accumulation(tmp_path: Path) -> None:
    training = Training(tmp_path, autocast=True, parts=2)
    training.train()
    assert len(training.steps) == 2
    norms = [float(gradient.norm()) for gradient in training.steps[0].values()]
    assert all(map(math.isfinite, norms))
    expected = gradients_by_hand(ADVPROP, net(), *batches(64))
    found = torch.cat([gradient.flatten() for gradient in training.steps[0].values()])
    whole = torch.cat([gradient.flatten() / 2 for gradient in expected.values()])
    assert torch.cosine_similarity(found, whole, dim=0) > 0.9


def test_methods_learn_where_training_is(tmp_path: Path) -> None:
    SEEN.clear()
    Training(tmp_path, Changing(attack=ATTACK)).train()
    assert SEEN == [(0.0, 0, None), (0.25, 1, None), (0.5, 2, None), (0.75, 3, None)]


def test_the_criterion_is_the_loss() -> None:
    task = MethodTask(
        net(),
        METHODS["vanilla"],
        4,
        criterion_kwargs={"smoothing": 0.5},
        verbose=False,
    )
    images, labels = digits(BATCH_SIZE)
    model: Any = net().train()
    expected = nn.functional.cross_entropy(model(images), labels, label_smoothing=0.5)
    task.get_trainable_module().train()
    torch.testing.assert_close(task(images, labels)["loss"], expected)


def test_a_method_that_needs_its_backward_passes_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Fast uses .* call method\.forward_backward"):
        Training(tmp_path, REFUSED).train()
