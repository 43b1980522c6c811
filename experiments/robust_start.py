"""Does a start from weights that learnt from adversarial images help for nothing?

Nets are trained on icons: vanilla for as many passes as the others cost, mixed and AdvProp. Each is
then fine-tuned by vanilla on 200 and on 1,000 drawings, beside vanilla from random weights; all
fine-tuning costs the same. "Do Adversarially Robust ImageNet Models Transfer Better?" (arXiv
2007.08489) asks it of large nets.

    python experiments/robust_start.py
    python experiments/robust_start.py --quick

Time and result: docs/reproducing.md, experiment 16.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from measures import shift
from model_size import side_by_side
from settings import trained_on, width
from study import Group, Options, base_config, folder_of, main

import advprop
from advprop.comparisons.comparing import run_jobs
from advprop.comparisons.plan import Job
from advprop.config import RunConfig

SOURCE_SEED = 200
SOURCES = ("mixed", "advprop")
IMAGES = (200, 1000)
LEARNING_RATE = 0.03  # of fine-tuning; from random weights it is the set's own


def sources(options: Options) -> dict[str, Path]:
    """Exports of the nets that were trained on icons, made once."""
    configs = side_by_side(base_config("icons", options), SOURCES)
    planned = [
        Job(
            method=label,
            config=config.with_seed(SOURCE_SEED),
            folder=folder_of(options.out, config, SOURCE_SEED),
        )
        for label, config in configs.items()
    ]
    run_jobs(planned, options.out / "robust_start" / "icons", recipe="icons", jobs=options.jobs)
    exports = options.out / "robust_start" / "exports"
    found = {job.method: exports / job.method for job in planned if job.method != "vanilla"}
    for job in planned:
        if job.method in found and not found[job.method].is_dir():
            advprop.export(job.folder, found[job.method])
    return found


def from_weights(base: RunConfig, weights: Path) -> RunConfig:
    """`base` from the weights of an export, with a smaller learning rate."""
    model = base.model.model_copy(update={"checkpoint": weights})
    training = dataclasses.replace(base.training, learning_rate=LEARNING_RATE)
    return base.model_copy(update={"model": model, "training": training})


def plan(name: str, options: Options) -> list[Group]:
    base = width(base_config(name, options), 16)
    exports = sources(options)
    return [
        Group(
            name=f"{count} drawings",
            variants={
                "vanilla": trained_on(base, count),
                **{
                    f"from {label}": from_weights(trained_on(base, count), weights)
                    for label, weights in exports.items()
                },
            },
        )
        for count in (IMAGES[:1] if options.quick else IMAGES)
    ]


if __name__ == "__main__":
    main("robust_start", plan, extras={"shift": shift}, sets=("emoji",))
