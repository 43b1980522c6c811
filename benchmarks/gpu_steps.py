"""Whole steps on a GPU: kernels, waits, seconds, memory, and what compiling gains."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_subjects import CUDA, DEVICE, Scale, trainer_of, when_done
from measuring import Row, interleaved, row_of
from steps import bound
from subjects import LAYOUTS
from torch.profiler import ProfilerActivity, profile

from advprop.config.methods import METHODS
from advprop.shapes import Batch
from advprop.training.engine import compile_model
from advprop.training.trainer import Trainer

COMPARED = (
    ("vanilla", 0),
    ("adversarial", 1),
    ("mixed", 1),
    ("advprop", 1),
    ("advprop", 5),
    ("fast", 1),
    ("advprop_lean", 1),
)
BOUNDS = {"adversarial": 1, "mixed": 2, "advprop": 2}
"""Training passes of the methods whose step has a bound: attack steps come on top."""


def launches_and_waits(scale: Scale) -> Iterator[Row]:
    """Of a whole step of every method: kernels, and places where the host waits for the device."""
    for name in METHODS:
        with trainer_of(scale.small, name) as (trainer, batch):
            for _ in range(2):
                trainer.train_step(batch)
            launched = {"case": f"{scale.small}, a whole step", "unit": "launches"}
            activity = ProfilerActivity.CUDA if CUDA else ProfilerActivity.CPU
            with profile(activities=[activity]) as profiled:
                trainer.train_step(batch)
            names = [event.name for event in profiled.events()]
            kernels = [name for name in names if "LaunchKernel" in name or not CUDA]
            yield Row(what=name, value=len(kernels), **launched)
            if CUDA:
                waits = sorted(waits_of(lambda: trainer.train_step(batch)))
                yield Row(
                    what=f"{name}, waits",
                    case=launched["case"],
                    value=len(waits),
                    unit="",
                    target=0.0,
                    note="; ".join(waits),
                )


def waits_of(step: Callable[[], object]) -> list[str]:
    """Where `step` makes the host wait: file and line, one for each time."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "synchroniz" in str(warning.message)
    ]


def cost_of_steps(scale: Scale) -> Iterator[Row]:
    """Seconds and peak memory of whole steps, against vanilla's."""
    for subject in scale.large:
        seconds: dict[str, list[float]] = {}
        memory: dict[str, float] = {}
        for name, num_steps in COMPARED:
            what = f"{name}, K = {num_steps}" if num_steps else name
            with trainer_of(subject, name, num_steps) as (trainer, batch):
                seconds[what], memory[what] = measured(trainer, batch, scale.repeats)
            case, spent = f"{subject}, whole steps", sum(seconds[what])
            if name == "vanilla":
                rate = [subject.batch_size / second for second in seconds[what]]
                yield row_of(what, rate, case=case, unit="images/s", seconds=spent)
                if CUDA:
                    yield Row(what=f"{what}, memory", value=memory[what], unit="GB", case=case)
                continue
            against: dict[str, Any] = {"case": case, "against": "vanilla"}
            base = sorted(seconds["vanilla"])[scale.repeats // 2]
            ratios = [second / base for second in seconds[what]]
            target = 1.03 * bound(BOUNDS[name], num_steps) if name in BOUNDS else None
            yield row_of(what, ratios, target=target, seconds=spent, **against)
            if CUDA:
                share = memory[what] / memory["vanilla"]
                target = 1.1 if name == "advprop" else None
                yield Row(what=f"{what}, memory", value=share, target=target, **against)


def measured(trainer: Trainer, batch: Batch, repeats: int) -> tuple[list[float], float]:
    """Seconds of each step after three that warm up, and gigabytes at the peak."""
    for _ in range(min(3, repeats)):
        trainer.train_step(batch)
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        began = when_done()
        trainer.train_step(batch)
        seconds.append(when_done() - began)
    return seconds, torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0.0


def outside_the_passes(scale: Scale) -> Iterator[Row]:
    """A whole step against the method's `forward_backward` alone, on a batch that is there."""
    for subject in scale.large:
        for name in ("vanilla", "advprop"):
            with trainer_of(subject, name) as (trainer, batch):
                moved = batch.to(DEVICE, memory_format=LAYOUTS[subject.layout])

                def passes(trainer: Trainer = trainer, moved: Batch = moved) -> None:
                    trainer.model.zero_grad(set_to_none=True)
                    trainer.method.forward_backward(trainer.model, moved)

                def step(trainer: Trainer = trainer, batch: Batch = batch) -> None:
                    trainer.train_step(batch)

                actions = {"a whole step": step, "its passes": passes}
                times = interleaved(actions, repeats=scale.repeats, clock=when_done)
                case = f"{subject}, {name}"
                yield times.ratio(*actions, case=case, target=1.05)


def compilation(scale: Scale) -> Iterator[Row]:
    """Programs, seconds until all are there, and what a step gains."""
    subject = scale.large[0]
    with trainer_of(subject, "advprop") as (trainer, batch):
        eager, _ = measured(trainer, batch, scale.repeats)
        torch._dynamo.utils.counters.clear()
        compile_model(trainer.plain_model)
        began = when_done()
        for _ in range(2):
            trainer.train_step(batch)
        taken, case = when_done() - began, f"{subject}, advprop, torch.compile"
        programs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        yield Row(what="programs", value=programs, unit="", case=case)
        yield Row(what="the first two steps", value=taken, unit="s", case=case)
        compiled, _ = measured(trainer, batch, scale.repeats)
        base = sorted(eager)[len(eager) // 2]
        ratios = [second / base for second in compiled]
        yield row_of("a step", ratios, against="without", case=case, target=1.0)
