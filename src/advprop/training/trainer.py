"""The training loop around one method's `step`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from advprop.methods.base import Method
from advprop.methods.step import StepMetrics
from advprop.shapes import Batch
from advprop.tasks.task import Task
from advprop.training.checkpoint import Checkpoints
from advprop.training.engine import build_average, distribute, prepare_model
from advprop.training.learner import Learner
from advprop.training.optim import build_optimizer, build_schedule, set_learning_rate
from advprop.training.position import Position
from advprop.training.processes import average_statistics
from advprop.training.progress import TrainingProgress
from advprop.training.run_log import RunLog, epoch_entry
from advprop.training.settings import TrainingSettings
from advprop.training.state import EpochTotals, TrainingState
from advprop.training.stopping import InterruptedTraining, NotFiniteError, Watch, stop_signal
from advprop.training.trackers import flat_numbers, track

_MAX_ROLLBACKS = 5
_TRACK_EVERY_STEPS = 50


class Trainer:
    """Trains `model` with `method`; its checkpoints hold everything that a resumed run needs.

    `batches(epoch, first_batch)` returns this process's share of an epoch's batches, on the CPU;
    `validate(model)` returns the accuracy that selects the best weights; `inspect(model)` returns
    warnings about the model after an epoch. Order, augmentation, random starts and targets are
    functions of seed, epoch and image; dropout is a function of seed, step and process.
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
        task: Task,
        inspect: Callable[[nn.Module], list[str]] = lambda model: [],
    ) -> None:
        self.method, self.settings = method, settings
        self.batches, self.steps_per_epoch, self.validate = batches, steps_per_epoch, validate
        self.checkpoints, self.log, self.accelerator = checkpoints, log, accelerator
        self.inspect = inspect
        self.plain_model = prepare_model(model, settings, accelerator.device)
        ema = build_average(self.plain_model, settings)
        optimizer = build_optimizer(self.plain_model, settings)
        self.model = distribute(self.plain_model, settings, accelerator)
        # accelerate's wrapper searches the disk for a package in every step
        is_scaled = accelerator.scaler is not None
        self.optimizer = accelerator.prepare_optimizer(optimizer) if is_scaled else optimizer
        self.state = TrainingState(
            self.plain_model, self.optimizer, ema, accelerator.scaler, method
        )
        # not passed to accelerate, which would step it once for each process
        self.schedule = build_schedule(optimizer, settings, steps_per_epoch)
        self.learner = Learner(self.model, method, task, settings, seed, accelerator)
        self.watch = Watch(accelerator, settings)
        self._clock = time.monotonic()

    @property
    def total_steps(self) -> int:
        """Return the number of optimiser steps in the whole run."""
        return self.settings.num_epochs * self.steps_per_epoch

    @property
    def position(self) -> Position:
        """Return the current position of the run."""
        return self.state.position

    def fit(self, *, quiet: bool = False) -> None:
        """Train from the current `position` to the end.

        Raises NotFiniteError if it may not roll back, InterruptedTraining after a signal, when it
        has saved, and OSError if a checkpoint cannot be written.
        """
        if self.settings.not_finite == "rollback" and self.position.step == 0:
            self.save()  # a rollback in the first epoch needs a checkpoint
        with stop_signal() as stop, self.progress(quiet=quiet) as progress:
            while self.position.epoch < self.settings.num_epochs:
                try:
                    self.train_epoch(lambda: stop.received, progress)
                    progress.epoch(self.finish_epoch())
                except NotFiniteError as error:
                    self.roll_back(error)

    def progress(self, *, quiet: bool = False) -> TrainingProgress:
        """Return the display of the run's progress, which only the first process shows."""
        return TrainingProgress(
            total_steps=self.total_steps,
            num_epochs=self.settings.num_epochs,
            done=self.position.step,
            batch_size=self.settings.batch_size,
            passes_per_image=self.method.passes_per_image,
            quiet=quiet or not self.accelerator.is_main_process,
        )

    def train_epoch(self, received: Callable[[], int | None], progress: TrainingProgress) -> None:
        """Train the rest of the current epoch; after each step, show progress and save if due."""
        self.model.train()
        self._clock = time.monotonic()
        for batch in self.batches(self.position.epoch, self.position.batch):
            self.train_step(batch, received())
            progress.step(
                step=self.position.step, epoch=self.position.epoch, totals=self.state.totals
            )
            self.save_when_due(received())

    def train_step(self, batch: Batch, signum: int | None = None) -> None:
        """Run one optimiser step on `batch`; raises NotFiniteError if the loss is not finite."""
        position = self.position
        self.optimizer.zero_grad(set_to_none=True)
        set_learning_rate(self.schedule, position.step, position.rollbacks)
        parts = self.learner.gradients(batch, position, progress=position.step / self.total_steps)
        loss = torch.stack([metrics.loss for metrics in parts]).mean()
        self.watch.look(loss, position, signum)
        if self.settings.gradient_clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        average_statistics(self.accelerator, self.plain_model)
        position.step += 1
        position.batch += 1
        self.state.update_average()
        self._count(parts)
        self._tick()

    def save_when_due(self, signum: int | None = None) -> None:
        """Save within an epoch if it is due; after a signal, save and raise InterruptedTraining."""
        stop, is_due = self.watch.agreed(signum)
        steps = self.settings.checkpoint_every_steps
        is_due |= steps is not None and self.position.step % steps == 0
        if is_due and self.position.batch < self.steps_per_epoch:
            self.save()
        if stop is not None:
            self.save()
            raise InterruptedTraining(
                f"stopped by a signal in epoch {self.position.epoch + 1}, "
                f"after step {self.position.step} of {self.total_steps}; saved",
                stop,
            )

    def finish_epoch(self) -> dict[str, Any]:
        """Validate if due, log, keep the best weights, and save; return the log's entry."""
        position, settings = self.position, self.settings
        # `save` checks the weights too, but the best ones are written before that
        self.watch.settle(self.plain_model, position)
        is_last = position.epoch + 1 == settings.num_epochs
        accuracy = None
        if is_last or (position.epoch + 1) % settings.evaluate_every_epochs == 0:
            try:
                accuracy = self.validate(self.state.averaged_model)
            except BaseException:
                self.save()  # keeps the epoch's steps although its validation failed
                raise
        position.epoch, position.batch = position.epoch + 1, 0
        entry = epoch_entry(
            position,
            self.state.totals.means(),
            passes_per_image=self.method.passes_per_image,
            images_per_epoch=self.steps_per_epoch * settings.batch_size,
            learning_rate=max(group["lr"] for group in self.optimizer.param_groups),
            validation_accuracy=accuracy,
            warnings=self.inspect(self.plain_model),
        )
        if self.accelerator.is_main_process:
            self.log.append(entry)
            self._track(dict(flat_numbers(entry)))
            for alarm in entry["alarms"]:
                warnings.warn(f"epoch {position.epoch}: {alarm}", stacklevel=2)
            self._keep_best(accuracy)
        self.state.totals = EpochTotals()
        self.save()
        return entry

    def roll_back(self, error: NotFiniteError) -> None:
        """Go back to the last checkpoint at half the learning rate; raises `error` if forbidden."""
        rollbacks = self.position.rollbacks + 1
        allowed = self.settings.not_finite == "rollback" and rollbacks <= _MAX_ROLLBACKS
        state = self.checkpoints.load_newest() if allowed else None
        if state is None:
            raise error
        self.watch.forget()
        self.load_state_dict(state)
        self.position.rollbacks = rollbacks
        if self.accelerator.is_main_process:
            warnings.warn(
                f"{error}; went back to step {self.position.step}, at "
                f"{0.5**rollbacks:g} times the learning rate",
                stacklevel=2,
            )

    def save(self) -> None:
        """Write a checkpoint, in the first process; raises NotFiniteError as `Watch.settle`."""
        self.watch.settle(self.plain_model, self.position)
        if self.accelerator.is_main_process:
            self.checkpoints.save(self.position.step, self.state.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint's state and rewind the log; raises ValueError if it does not fit."""
        self.state.load_state_dict(
            state, num_epochs=self.settings.num_epochs, steps_per_epoch=self.steps_per_epoch
        )
        if self.accelerator.is_main_process:
            self.log.rewind(self.position.step)

    def _count(self, parts: Sequence[StepMetrics]) -> None:
        self.state.totals.add(*parts)
        if self.accelerator.trackers and self.position.step % _TRACK_EVERY_STEPS == 1:
            step = EpochTotals()
            step.add(*parts)
            self._track({f"step/{name}": value for name, value in flat_numbers(step.means())})

    def _keep_best(self, accuracy: float | None) -> None:
        if accuracy is not None and accuracy > self.position.best_validation_accuracy:
            self.position.best_validation_accuracy = accuracy
            weights = self.state.averaged_model.state_dict()
            self.checkpoints.save_best({"model": weights, "position": asdict(self.position)})

    def _track(self, values: dict[str, float]) -> None:
        track(self.accelerator, self.log.path.parent, self.position.step, values)

    def _tick(self) -> None:
        now = time.monotonic()
        self.position.seconds += now - self._clock
        self._clock = now
