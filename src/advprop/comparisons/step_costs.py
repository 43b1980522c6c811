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
from typing import Any, NamedTuple

import torch
from pydantic import Field

from advprop.comparisons.candidates import settings_of_step
from advprop.config.overrides import validated
from advprop.config.run import RunConfig
from advprop.data.reading import UnreadableImageError
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
    """The contents of the file of measured costs, with the settings of each (older files: none)."""

    costs: dict[str, Number]
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    threads: int
    turns: int


def step_costs(
    configs: Mapping[str, RunConfig], path: Path, *, threads: int = 1, turns: int = TURNS
) -> StepTimes:
    """Return the time of each configuration's step in vanilla steps, cached in `path`.

    `configs` must include "vanilla". Configurations that `path` lacks are timed on `threads` CPU
    threads in `turns` turns; those that cannot be trained are in `refused`. If several processes
    measure for the same `path` at the same time, all use the values that the first one wrote.

    Raises ValueError if vanilla cannot be trained, for a damaged file, or for costs in it that were
    measured with other settings.
    """
    kept = _read(path)
    _check_same_settings(path, kept["settings"], configs)
    refused: dict[str, str] = {}
    missing = {name: config for name, config in configs.items() if name not in kept["costs"]}
    if missing:
        found, refused = _measured({VANILLA: configs[VANILLA], **missing}, threads, turns)
        own = {name: configs[name].model_dump(mode="json") for name in found}
        path.parent.mkdir(parents=True, exist_ok=True)
        _add(path, {"costs": found, "settings": own, "threads": threads, "turns": turns})
        kept = _read(path)
    return StepTimes(
        {name: kept["costs"][name] for name in configs if name not in refused}, refused
    )


def read_costs(path: Path) -> dict[str, float]:
    """Return the costs in `path`, {} if it does not exist; raises ValueError if it is damaged."""
    return dict(_read(path)["costs"])


def _read(path: Path) -> dict[str, Any]:
    remedy = "delete it, and steps are measured anew"
    empty: dict[str, Any] = {"costs": {}, "settings": {}}
    return empty | (read_json(path, StepCosts, remedy=remedy) if path.is_file() else {})


def _check_same_settings(
    path: Path, kept: Mapping[str, Any], wanted: Mapping[str, RunConfig]
) -> None:
    changed = set()
    for name in kept.keys() & wanted.keys():
        old, new = (settings_of_step(one) for one in (validated(kept[name]), wanted[name]))
        changed |= {
            f"{setting}: then {old.get(setting, 'nothing')}, now {new.get(setting, 'nothing')}"
            for setting in {*old, *new}
            if old.get(setting, ...) != new.get(setting, ...)
        }
    if changed:
        listed = "\n  ".join(sorted(changed))
        raise ValueError(
            f"{path}: steps were timed with other settings; give another --out, or delete this "
            f"file, and steps are timed anew\n  {listed}"
        )


def _add(path: Path, content: Mapping[str, Any]) -> None:
    """Add `content` to `path`; costs that another process has written meanwhile stay."""
    if path.is_file():
        before = _read(path)
        both = {key: {**content[key], **before[key]} for key in ("costs", "settings")}
        write_json(path, {**content, **both})
        return
    own = path.with_name(f"{path.name}.{os.getpid()}")
    write_json(own, content)
    try:
        os.link(own, path)
    except OSError:  # another process was faster, or a file system without hard links
        if path.exists():
            _add(path, content)
        else:
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
            except UnreadableImageError:
                raise
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
