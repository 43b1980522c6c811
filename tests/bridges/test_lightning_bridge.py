"""Lightning's own trainer with a method's loss."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning
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
from lightning.pytorch.callbacks import EMAWeightAveraging
from tiny import same_tensors
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from advprop.bridges.lightning import MethodModule
from advprop.methods.base import Method

# advice on workers and processes, and what Lightning itself uses that torch is to drop
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:lightning",
    "ignore::FutureWarning:lightning",
    "ignore::DeprecationWarning:lightning",
)


class Digits(MethodModule):
    def __init__(self, method: Method = ADVPROP, lr: float = 0.1) -> None:
        super().__init__()
        self.model, self.method, self.lr = net(), method, lr
        self.steps: list[dict[str, torch.Tensor]] = []
        self.clipped: list[list[torch.Tensor]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        self.log("val_loss", F.cross_entropy(self(images), labels))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.steps.append(gradients_of(self.model))

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        # after the step that clipped them
        self.clipped.append([gradient.norm() for gradient in gradients_of(self.model).values()])


def loader(count: int = 128) -> DataLoader:
    return DataLoader(TensorDataset(*digits(count)), batch_size=BATCH_SIZE)


def trainer(folder: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {"max_epochs": 2, "enable_checkpointing": False, "logger": False}
    return lightning.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        enable_model_summary=False,
        enable_progress_bar=False,
        **{**settings, **options},
    )


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_gradients_are_those_of_forward_backward(method: Method, tmp_path: Path) -> None:
    module = Digits(method)
    expected = gradients_by_hand(method, module.model, digits(BATCH_SIZE))
    trainer(tmp_path, max_steps=1).fit(module, loader())
    assert same_tensors(module.steps[0], expected)


def test_two_epochs_saved_resumed_removed_and_exported(tmp_path: Path) -> None:
    whole = Digits()
    checkpoints = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1)
    training = trainer(tmp_path, enable_checkpointing=True, callbacks=[checkpoints])
    training.fit(whole, loader(512), loader(64))
    assert training.callback_metrics.keys() >= {"train_loss", "val_loss"}
    resumed = Digits()
    first = next(tmp_path.glob("epoch=0*.ckpt"))
    trainer(tmp_path).fit(resumed, loader(512), loader(64), ckpt_path=first)
    assert len(resumed.steps) == len(whole.steps) / 2
    assert same_tensors(state(resumed), state(whole))
    assert accuracy(resumed.model) > 0.5
    check_removed_and_exported(resumed.model, tmp_path / "exported")


def test_mixed_precision_accumulation_clipping_and_averages(tmp_path: Path) -> None:
    module = Digits()
    average = EMAWeightAveraging(decay=0.5)
    training = trainer(
        tmp_path,
        precision="bf16-mixed",
        accumulate_grad_batches=2,
        gradient_clip_val=0.01,
        callbacks=[average],
        enable_checkpointing=True,
    )
    training.fit(module, loader(), loader(64))
    assert training.global_step == len(module.steps) == 4
    norms = [float(torch.stack(found).norm()) for found in module.clipped if found]
    assert norms
    assert max(norms) == pytest.approx(0.01, rel=0.01)
    # what is left after training are the averages, which are saved too
    copied = average._average_model.module
    assert same_tensors(state(copied), state(module))
    check_removed_and_exported(copy.deepcopy(copied).model, tmp_path / "average")
    check_removed_and_exported(module.model, tmp_path / "exported")


def test_methods_learn_where_training_is(tmp_path: Path) -> None:
    SEEN.clear()
    trainer(tmp_path).fit(Digits(Changing(attack=ATTACK)), loader(64))
    assert SEEN == [(0.0, 0, 0), (0.25, 1, 0), (0.5, 2, 1), (0.75, 3, 1)]


def test_the_loss_can_be_overridden(tmp_path: Path) -> None:
    class Smoothed(Digits):
        def loss_fn(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return 2 * F.cross_entropy(logits, labels)

    plain, doubled = Digits(METHODS["vanilla"]), Smoothed(METHODS["vanilla"])
    for module in (plain, doubled):
        trainer(tmp_path, max_steps=1).fit(module, loader())
    assert all(
        torch.equal(doubled.steps[0][name], 2 * gradient)
        for name, gradient in plain.steps[0].items()
    )


def test_a_method_that_needs_its_backward_passes_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Fast uses .* call method\.forward_backward"):
        trainer(tmp_path).fit(Digits(REFUSED), loader())


class Halves(lightning.LightningDataModule):
    """Each of two processes has half of each batch."""

    def train_dataloader(self) -> DataLoader:
        rank = self.trainer.global_rank
        halves = [tuple(part.chunk(2)[rank] for part in batch) for batch in batches(64)]
        return DataLoader(halves, batch_size=None)


class Saving(Digits):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self) -> None:
        torch.save((self.steps, state(self.model)), self.folder / f"{self.global_rank}.pt")


def test_two_processes_learn_from_the_mean_of_their_gradients(tmp_path: Path) -> None:
    options = {"strategy": "ddp_spawn", "devices": 2, "use_distributed_sampler": False}
    trainer(tmp_path, max_epochs=1, **options).fit(Saving(tmp_path), Halves())
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    halves = zip(*(part.chunk(2) for part in digits(BATCH_SIZE)), strict=True)
    alone = [gradients_by_hand(ADVPROP, net(), half) for half in halves]
    for (first, _), _ in found:
        for name, gradient in first.items():
            torch.testing.assert_close(gradient, (alone[0][name] + alone[1][name]) / 2)
    assert same_tensors(found[0][0][1], found[1][0][1])
    for name, _ in net().named_parameters():
        assert torch.equal(found[0][1][name], found[1][1][name])
