"""Measures the time of each method's training step on this machine, in vanilla steps.

Times of runs in parallel on a busy machine are not comparable. Here all methods take turns with one
step each in one process; a method's cost is the median ratio of its time to vanilla's in the same
turn. Steps are timed at several points of training, since methods may change during it; the cost is
the mean over these points. The time to read a batch counts if the training process reads it
(`num_workers` 0), since methods may need more views.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from itertools import chain, count, cycle, islice, repeat
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from advprop.config.run import RunConfig
from advprop.files.json_files import read_json, write_json
from advprop.files.parsing import Number, Part
from advprop.results.summary import VANILLA
from advprop.runs.trainer import build_trainer
from advprop.training.engine import build_accelerator
from advprop.training.stopping import error_of_run
from advprop.training.switches import torch_switches

STEP_COSTS = "step_costs.json"
TURNS = 48
_PLACES = tuple((number + 0.5) / 6 for number in range(6))  # shares of training, timed in turn


class StepTimes(NamedTuple):
    """By name, times in vanilla steps (`costs`), and why other steps have none (`refused`)."""

    costs: dict[str, float]
    refused: dict[str, str]


class StepCosts(Part):
    """The contents of the file of measured costs."""

    costs: dict[str, Number]
    threads: int
    turns: int


def step_costs(
    configs: Mapping[str, RunConfig], path: Path, *, threads: int = 1, turns: int = TURNS
) -> StepTimes:
    """Return the time of each configuration's step in vanilla steps, cached in `path`.

    `configs` must include "vanilla". Configurations that `path` lacks are timed on `threads` CPU
    threads in `turns` turns; those that cannot be trained are in `refused`. If several processes
    measure for the same `path` at the same time, all use the values that the first one wrote.

    Raises ValueError if vanilla cannot be trained, or for a damaged file.
    """
    kept = read_costs(path)
    refused: dict[str, str] = {}
    missing = {name: config for name, config in configs.items() if name not in kept}
    if missing:
        found, refused = _measured({VANILLA: configs[VANILLA], **missing}, threads, turns)
        content = {"costs": kept | found, "threads": threads, "turns": turns}
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_first(path, content, replace=bool(kept))
        kept = read_costs(path)
    return StepTimes({name: kept[name] for name in configs if name not in refused}, refused)


def read_costs(path: Path) -> dict[str, float]:
    """Return the costs in `path`, {} if it does not exist; raises ValueError if it is damaged."""
    remedy = "delete it, and steps are measured anew"
    return dict(read_json(path, StepCosts, remedy=remedy)["costs"]) if path.is_file() else {}


def _write_first(path: Path, content: Mapping[str, object], *, replace: bool) -> None:
    """Write `path`; unless `replace`, a file that another process has written meanwhile stays."""
    if replace:
        write_json(path, content)
        return
    own = path.with_name(f"{path.name}.{os.getpid()}")
    write_json(own, content)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            own.replace(path)
    finally:
        own.unlink(missing_ok=True)


def _measured(configs: Mapping[str, RunConfig], threads: int, turns: int) -> StepTimes:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with TemporaryDirectory() as folder, torch_switches(configs[VANILLA].training):
            steps = {
                name: _steps(config, Path(folder) / str(number))
                for number, (name, config) in enumerate(configs.items())
            }
            seconds, refused = _in_turn(steps, turns)
    finally:
        torch.set_num_threads(before)
    places = range(min(len(seconds[VANILLA]), len(_PLACES)))
    at_place = [slice(place, None, len(_PLACES)) for place in places]
    costs = {
        name: fmean(
            median(a / b for a, b in zip(own[turn], seconds[VANILLA][turn], strict=True))
            for turn in at_place
        )
        for name, own in seconds.items()
    }
    return StepTimes(costs, refused)


def _in_turn(
    steps: Mapping[str, Iterator[float]], turns: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Take `turns` steps of each; return their seconds, and the errors of those that fail."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    refused: dict[str, str] = {}
    for _ in range(turns):
        for name in list(seconds):
            try:
                seconds[name].append(next(steps[name]))
            except (ValueError, RuntimeError) as error:
                own = error_of_run(error)
                if own is None or name == VANILLA:
                    raise
                refused[name] = str(own)
                del seconds[name]
        if len(seconds) == 1:  # vanilla alone has nothing to be compared with
            break
    return seconds, refused


def _steps(config: RunConfig, folder: Path) -> Iterator[float]:
    """Yield the seconds of one step after another, at each of `_PLACES` in turn."""
    accelerator = build_accelerator(config.training)
    trainer = build_trainer(config, config.data.load(config.seed), folder, accelerator)
    trainer.model.train()
    batches = list(islice(trainer.batches(0, 0), 5))
    for batch in batches[:2]:
        trainer.train_step(batch)
    epochs = (trainer.batches(epoch, 0) for epoch in count(1))
    reading = repeat(None) if config.training.num_workers else chain.from_iterable(epochs)
    for turn, (batch, place) in enumerate(zip(cycle(batches), cycle(_PLACES), strict=False)):
        position = trainer.position
        position.step = int(place * trainer.total_steps)
        position.epoch = turn  # methods that carry state from epoch to epoch need it to increase
        began = _now(accelerator.device)
        next(reading)
        trainer.train_step(batch)
        yield _now(accelerator.device) - began


def _now(device: torch.device) -> float:
    """Return the time after `device` has finished its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()
