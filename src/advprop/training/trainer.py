"""The training loop around one method's `forward_backward`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from advprop.methods.base import Context, Method, StepMetrics
from advprop.randomness import ImageStreams, derive_seed
from advprop.shapes import Batch
from advprop.training.checkpoint import Checkpoints, load_weights
from advprop.training.optim import build_optimizer, build_schedule
from advprop.training.progress import TrainingProgress
from advprop.training.run_log import RunLog
from advprop.training.settings import TrainingSettings
from advprop.training.stopping import InterruptedTraining, NotFiniteError, StopSignal, stop_signal
from advprop.training.totals import EpochTotals


@dataclass
class Position:
    """How far a run is: `batch` batches into `epoch`, `step` steps and `seconds` in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_validation_accuracy: float = -1.0


class Trainer:
    """Trains `model` with `method`; everything that a resumed run needs is in its checkpoints.

    `batches(epoch, first_batch)` gives this process's share of an epoch's batches, on the CPU;
    `validate(model)` the accuracy that `best` is chosen by. Order, augmentation, random starts
    and targets are functions of seed, epoch and image, dropout one of seed, step and process.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        method: Method,
        settings: TrainingSettings,
        seed: int,
        batches: Callable[[int, int], Iterable[Batch]],
        steps_per_epoch: int,
        validate: Callable[[nn.Module], float],
        checkpoints: Checkpoints,
        log: RunLog,
        accelerator: Accelerator,
    ) -> None:
        self.method, self.settings, self.seed = method, settings, seed
        self.batches, self.steps_per_epoch, self.validate = batches, steps_per_epoch, validate
        self.checkpoints, self.log, self.accelerator = checkpoints, log, accelerator
        self.memory_format = (
            torch.channels_last if settings.channels_last else torch.contiguous_format
        )
        self.plain_model = model.to(accelerator.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self.ema = self._build_ema()
        optimizer = build_optimizer(self.plain_model, settings)
        self.model, self.optimizer = accelerator.prepare(self.plain_model, optimizer)
        # not prepared: accelerate would step it once for each process
        self.schedule = build_schedule(optimizer, settings, steps_per_epoch)
        self.loss_fn = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
        self.position = Position()
        self.totals = EpochTotals()
        self._clock = time.monotonic()

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.settings.num_epochs * self.steps_per_epoch

    def fit(self, *, quiet: bool = False) -> None:
        """Train to the end from wherever `position` is.

        Raises NotFiniteError, InterruptedTraining (after saving), and OSError where a checkpoint
        cannot be written.
        """
        progress = TrainingProgress(
            total_steps=self.total_steps,
            done=self.position.step,
            quiet=quiet or not self.accelerator.is_main_process,
        )
        with stop_signal() as stop, progress:
            while self.position.epoch < self.settings.num_epochs:
                self.model.train()
                self._clock = time.monotonic()
                for batch in self.batches(self.position.epoch, self.position.batch):
                    self.train_step(batch)
                    progress.step(
                        step=self.position.step, epoch=self.position.epoch, totals=self.totals
                    )
                    self.save_when_due(stop)
                progress.epoch(self.finish_epoch())

    def train_step(self, batch: Batch) -> StepMetrics:
        """Gradients, a look at the loss, clipping, the optimiser's step, averages, metrics."""
        position = self.position
        device = self.accelerator.device
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step_update(position.step)
        torch.manual_seed(
            derive_seed(self.seed, position.step, self.accelerator.process_index, "dropout")
        )
        metrics = self.method.forward_backward(
            self.model, batch.to(device, memory_format=self.memory_format), self._context(batch)
        )
        self._stop_if_not_finite(metrics)
        if self.settings.gradient_clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        position.step += 1
        position.batch += 1
        if self.ema is not None:
            self.ema.update(self.plain_model, step=position.step)
        self.totals.add(metrics)
        self._tick()
        return metrics

    def save_when_due(self, stop: StopSignal) -> None:
        """Write a checkpoint in the middle of an epoch, on schedule or because a signal came."""
        every = self.settings.checkpoint_every_steps
        in_epoch = self.position.batch < self.steps_per_epoch
        if in_epoch and every is not None and self.position.step % every == 0:
            self.save()
        if stop.received is not None:
            self.save()
            raise InterruptedTraining(
                f"stopped by a signal in epoch {self.position.epoch + 1}, "
                f"after step {self.position.step} of {self.total_steps}; saved",
                stop.received,
            )

    def finish_epoch(self) -> dict[str, Any]:
        """Validate when due, log, keep the best weights, and save; returns the log's entry."""
        position, settings = self.position, self.settings
        position.epoch, position.batch = position.epoch + 1, 0
        is_last = position.epoch == settings.num_epochs
        accuracy = None
        if is_last or position.epoch % settings.evaluate_every_epochs == 0:
            accuracy = self.validate(self.averaged_model)
        means = self.totals.means()
        entry = {
            "step": position.step,
            "epoch": position.epoch,
            "passes": position.epoch * self.method.passes_per_image,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "perturbation": means.pop("perturbation", None),
            "train": means,
            "validation_accuracy": accuracy,
            "seconds": round(position.seconds, 3),
            "images_per_second": position.step * settings.batch_size / max(position.seconds, 1e-9),
        }
        if self.accelerator.is_main_process:
            self.log.append(entry)
            self._keep_best(accuracy)
        self.totals = EpochTotals()
        self.save()
        return entry

    @property
    def averaged_model(self) -> nn.Module:
        """The average of the weights where one is kept, else the model itself."""
        return self.plain_model if self.ema is None else cast("nn.Module", self.ema.module)

    def save(self) -> None:
        """Write a checkpoint at the present position; the first process alone does."""
        if self.accelerator.is_main_process:
            self.checkpoints.save(self.position.step, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All state there is."""
        scaler = self.accelerator.scaler
        return {
            "position": asdict(self.position),
            "model": self.plain_model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "totals": self.totals.state_dict(),
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint. Raises ValueError where it does not fit."""
        load_weights(self.plain_model, state["model"], source="checkpoint")
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            load_weights(self.ema.module, state["ema"], source="checkpoint (average)")
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.position = Position(**state["position"])
        self.totals = EpochTotals(**state["totals"])
        if state["threads"] != torch.get_num_threads():
            warnings.warn(
                f"the checkpoint was written on {state['threads']} threads, this process has "
                f"{torch.get_num_threads()}: results may differ in the last bits",
                stacklevel=2,
            )
        if self.accelerator.is_main_process:
            self.log.rewind(self.position.step)

    def _context(self, batch: Batch) -> Context:
        streams = None
        if batch.indices is not None:
            streams = ImageStreams.for_batch(self.seed, self.position.epoch, batch.indices)
        return Context(
            progress=self.position.step / self.total_steps,
            step=self.position.step,
            loss_fn=self.loss_fn,
            backward=self.accelerator.backward,
            generator=streams,
        )

    def _tick(self) -> None:
        now = time.monotonic()
        self.position.seconds += now - self._clock
        self._clock = now

    def _stop_if_not_finite(self, metrics: StepMetrics) -> None:
        # the one place of a step that waits for the device
        if not torch.isfinite(metrics.loss).item():
            raise NotFiniteError(
                f"the loss became {metrics.loss.item()} in epoch {self.position.epoch + 1}, step "
                f"{self.position.step + 1}: lower training.learning_rate (now "
                f"{self.settings.learning_rate:g}), warm up longer, or set training.gradient_clip"
            )

    def _keep_best(self, accuracy: float | None) -> None:
        if accuracy is not None and accuracy > self.position.best_validation_accuracy:
            self.position.best_validation_accuracy = accuracy
            state = {"model": self.averaged_model.state_dict(), "position": asdict(self.position)}
            self.checkpoints.save_best(state)

    def _build_ema(self) -> ModelEmaV3 | None:
        if self.settings.ema_decay is None:
            return None
        # the warm-up keeps a short run's average from being its initial weights
        return ModelEmaV3(self.plain_model, decay=self.settings.ema_decay, use_warmup=True)
