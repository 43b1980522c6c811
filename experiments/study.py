"""What all experiments share: configurations by name, trained with every seed, side by side."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from settings import SETS, SMALL_SETS

import advprop
from advprop.comparisons.comparing import run_jobs
from advprop.comparisons.plan import Job
from advprop.config import RunConfig
from advprop.files.json_files import read_json, write_json

RESULTS = Path(__file__).parent / "results"
KEPT = ("epochs", "passes_per_image", "total_passes", "train_seconds", "validation_accuracy")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Configurations to compare with each other, by what the tables call them.

    `costs` are those of a step of each, in steps of vanilla, where they were measured. A group that
    takes long may have fewer seeds than others, `max_seeds`.
    """

    name: str
    variants: dict[str, RunConfig]
    costs: dict[str, float] = field(default_factory=dict)
    max_seeds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line of an experiment says."""

    sets: tuple[str, ...]
    quick: bool
    seeds: tuple[int, ...]
    jobs: int
    out: Path


Plan = Callable[[str, Options], Sequence[Group]]
Extra = Callable[[Path, RunConfig], dict[str, Any]]


def main(
    experiment: str,
    plan: Plan,
    *,
    extras: dict[str, Extra] | None = None,
    sets: Sequence[str] = tuple(SMALL_SETS),
) -> None:
    """Run `plan` on each image set, and write `results/EXPERIMENT-SET.json` group by group.

    `extras` are further measurements of a finished run, each made once and kept in its folder.
    Whatever is there already is not done again, so an interrupted experiment goes on.
    """
    options = read_options(experiment, sets)
    for name in options.sets:
        started = time.monotonic()
        rows = []
        for group in plan(name, options):
            rows += run_group(experiment, name, group, options, extras or {})
            write_results(experiment, name, rows, options)
        minutes = (time.monotonic() - started) / 60
        print(f"{experiment}, {name}: {len(rows)} runs, {minutes:.1f} minutes", flush=True)


def read_options(experiment: str, sets: Sequence[str] = tuple(SMALL_SETS)) -> Options:
    """The command line, the same for every experiment."""
    parser = argparse.ArgumentParser(description=f"The experiment {experiment}.")
    parser.add_argument("--sets", default=",".join(sets), help="image sets, by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--quick", action="store_true", help="two seeds, a few epochs, two sizes")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"))
    given = parser.parse_args()
    sets = tuple(given.sets.split(","))
    for name in sets:
        if name not in SETS:
            parser.error(f'image set "{name}" unknown: choose from {", ".join(SETS)}')
    count = min(2, given.seeds) if given.quick else given.seeds
    return Options(
        sets=sets,
        quick=given.quick,
        seeds=tuple(range(count)),
        jobs=given.jobs,
        out=given.out / "quick" if given.quick else given.out,
    )


def base_config(name: str, options: Options) -> RunConfig:
    """Vanilla training on the image set, shortened where it has to be quick."""
    config = SETS[name]()
    if options.quick:
        training = dataclasses.replace(config.training, num_epochs=5)
        config = config.model_copy(update={"training": training})
    return config.with_method("vanilla")


def run_group(
    experiment: str, name: str, group: Group, options: Options, extras: dict[str, Extra]
) -> list[dict[str, Any]]:
    """Train and test one group; its rows."""
    planned = [
        Job(
            method=label, config=config.with_seed(seed), folder=folder_of(options.out, config, seed)
        )
        for seed in options.seeds[: group.max_seeds]
        for label, config in group.variants.items()
    ]
    folder = options.out / experiment / name / group.name.replace(" ", "-")
    results = run_jobs(
        planned,
        folder,
        recipe=f"{name}: {experiment}, {group.name}",
        jobs=options.jobs,
        report_finished=_show,
        command=shlex.join(["python", *sys.argv]),
    )
    for failed in results["failed"]:
        print(f"{failed['method']}, seed {failed['seed']}: {failed['error']}", file=sys.stderr)
    found = {(job.method, job.config.seed): job for job in planned}
    return [
        {
            "group": group.name,
            "label": row["method"],
            "seed": row["seed"],
            **_step_cost(group, row["method"]),
            **{key: row[key] for key in KEPT},
            **{key: value for key, value in row.items() if key.endswith("_accuracy")},
            **_extras(found[row["method"], row["seed"]], extras),
        }
        for row in results["runs"]
    ]


def write_results(experiment: str, name: str, rows: list[dict[str, Any]], options: Options) -> None:
    """The experiment's rows as a file that the tables are made from; quick ones stay apart."""
    folder = options.out if options.quick else RESULTS
    found = {
        "experiment": experiment,
        "images": name,
        "command": shlex.join(["python", *sys.argv]),
        "versions": advprop.runs.folder.versions(),
        "runs": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{experiment}-{name}.json", found)


def folder_of(out: Path, config: RunConfig, seed: int) -> Path:
    """Where a run lies: the same for the same configuration, whichever experiment asks for it."""
    # without defaults: a setting that is new in the library moves no run
    changed = config.with_seed(0).model_dump(mode="json", exclude_defaults=True)
    plain = json.dumps(changed, sort_keys=True)
    digest = hashlib.sha256(plain.encode()).hexdigest()[:10]
    return out / "runs" / f"{config.recipe}-{config.method.kind}-{digest}-seed{seed}"


def _step_cost(group: Group, label: str) -> dict[str, float]:
    return {"step_cost": group.costs[label]} if label in group.costs else {}


def _extras(job: Job, extras: dict[str, Extra]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, measure in extras.items():
        path = job.folder / f"{name}.json"
        if not path.is_file():
            write_json(path, measure(job.folder, job.config))
        found |= read_json(path)
    return found


def _show(row: dict[str, Any]) -> None:
    print(
        f"  {row['method']} seed {row['seed']}: clean {row['clean_accuracy']:.1%} "
        f"({row['train_seconds']:.0f} s)",
        flush=True,
    )
