"""What a training step of each method costs on an image set, in steps of vanilla.

Seconds of runs that lay side by side on a busy machine compare little. Here all methods take turns,
one step each, in one process on one thread; a method's cost is the median of its time over
vanilla's in the same turn. A method that changes in the course of training is timed all along it.

    python experiments/costs.py    # every method, on both image sets; needs a quiet machine
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from settings import SETS, method

from advprop.config import RunConfig
from advprop.config.methods import METHODS
from advprop.files.json_files import read_json, write_json
from advprop.runs.trainer import build_trainer
from advprop.training.engine import build_accelerator

TURNS, QUICK_TURNS = 48, 6
PLACES = tuple((number + 0.5) / 6 for number in range(6))  # of the training, timed in turn
BASELINE = "vanilla"


def step_costs(
    configs: Mapping[str, RunConfig], path: Path, *, turns: int = TURNS
) -> dict[str, float]:
    """Each configuration's step in vanilla steps; measured once and kept in `path`.

    Configurations that `path` does not hold yet are measured, against vanilla anew.
    """
    kept: dict[str, float] = read_json(path)["costs"] if path.is_file() else {}
    missing = {name: config for name, config in configs.items() if name not in kept}
    if missing:
        print(f"  measuring the steps of {', '.join(missing)}", flush=True)
        kept |= _measured({BASELINE: configs[BASELINE], **missing}, turns)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"costs": kept, "unit": "vanilla steps", "threads": 1, "turns": turns})
    return {name: kept[name] for name in configs}


def _measured(configs: Mapping[str, RunConfig], turns: int) -> dict[str, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with TemporaryDirectory() as folder:
            steps = {
                name: _steps(config, Path(folder) / str(number))
                for number, (name, config) in enumerate(configs.items())
            }
            taken = list(islice(_turns(steps), turns))
    finally:
        torch.set_num_threads(threads)
    at_place = [taken[place :: len(PLACES)] for place in range(len(PLACES))]
    return {
        name: fmean(median(turn[name] / turn[BASELINE] for turn in own) for own in at_place)
        for name in configs
    }


def _turns(steps: Mapping[str, Iterator[float]]) -> Iterator[dict[str, float]]:
    for times in zip(*steps.values(), strict=True):
        yield dict(zip(steps, times, strict=True))


def _steps(config: RunConfig, folder: Path) -> Iterator[float]:
    """Seconds of one step after another, at each of `PLACES` in turn."""
    accelerator = build_accelerator(config.training)
    trainer = build_trainer(config, config.data.load(config.seed), folder, accelerator)
    trainer.model.train()
    batches = list(islice(trainer.batches(0, 0), 5))
    for batch in batches[:2]:
        trainer.train_step(batch)
    for turn, (batch, place) in enumerate(zip(cycle(batches), cycle(PLACES), strict=False)):
        position: Any = trainer.position
        position.step = int(place * trainer.total_steps)
        position.epoch = turn  # of what images carry from epoch to epoch: never back
        began = time.perf_counter()
        trainer.train_step(batch)
        yield time.perf_counter() - began


def main() -> None:
    """Measure every method with its defaults on each image set, and print what it costs."""
    for name, build in SETS.items():
        base = build().with_method(BASELINE)
        configs = {kind: method(base, kind) for kind in METHODS}
        costs = step_costs(configs, Path("runs/experiments") / f"step_costs-{name}.json")
        for kind, cost in costs.items():
            print(f"{name}  {kind:24} {cost:6.2f}")


if __name__ == "__main__":
    main()
