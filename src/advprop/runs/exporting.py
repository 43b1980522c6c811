"""The plain models of a run, its clean branch or a branch soup, and their export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from torch import nn

from advprop.auxiliary.branches import branch_names
from advprop.auxiliary.route import has_auxiliary_norms
from advprop.auxiliary.soup import mix_branches
from advprop.data.batches.loaders import train_batches
from advprop.exports.export import write_export
from advprop.files.json_files import read_json
from advprop.files.parsing import without_paths
from advprop.models.standardize import Standardized
from advprop.runs.folder import DATA, Run, Weights, load_run, versions
from advprop.shapes import Images

NUM_IMAGES = 10_000
"""The largest number of training images that estimate the running statistics."""


def export(
    run: str | Path,
    out: str | Path,
    *,
    weights: Weights | None = None,
    mix: float | None = None,
    formats: Sequence[str] = ("hub",),
) -> Path:
    """Write the run's plain model to the folder `out`, and return that path.

    The plain model is the clean branch, or the branch soup of weight `mix` (`mix_run`), which the
    model card states. The export contains no paths of this machine. `weights` are those of
    `load_run`; `formats` those of `advprop.exports.export.write_export`. Raises the errors of these
    functions.
    """
    loaded = load_run(run, weights=weights)
    data, test = read_json(loaded.folder / DATA), loaded.folder / "test.json"
    told = ("name", "num_train", "num_validation", "num_test")
    model, soup = loaded.model, {}
    if mix is not None:
        model = mix_run(loaded, mix)
        soup = {"mix": {"branch": branch_names(loaded.model)[1], "weight": mix}}
    return write_export(
        model,
        out,
        class_names=loaded.class_names,
        preprocessing=loaded.preprocessing,
        provenance=without_paths(
            {
                "config": loaded.config.without_places().model_dump(mode="json"),
                "weights": loaded.weights,
                **soup,
                "result": loaded.result,
                "data": {key: data[key] for key in told if key in data},
                "test": read_json(test) if test.is_file() else None,
                "versions": versions(),
            }
        ),
        formats=formats,
        multi_label=loaded.multi_label,
    )


def mix_run(run: Run, weight: float) -> Standardized:
    """Return the run's branch soup of `weight`: a plain model in eval mode on the same device.

    Running statistics are estimated from the run's training images as its first epoch augments and
    orders them, so they are the same each time, and no test image is used. Raises ValueError for a
    model without branches or a weight outside [0, 1], and OSError if images are needed but missing.
    """
    check_branches(run.model, str(run.folder))
    mixed = mix_branches(run.model, weight, images=_training_images(run))
    return cast("Standardized", mixed)


def check_branches(model: nn.Module, name: str) -> None:
    """Raise ValueError if `model`, which the user knows as `name`, has no branches."""
    if not has_auxiliary_norms(model):
        raise ValueError(
            f"{name}: the model has no branches to mix; name a run of a method with an auxiliary "
            "branch, such as advprop"
        )


def _training_images(run: Run) -> Iterator[Images]:
    config = run.config
    # the smaller one fits into the memory of one device
    size = min(config.training.batch_size, config.evaluation.batch_size)
    batches = train_batches(
        run.load_data().train,
        batch_size=size,
        seed=config.seed,
        epoch=0,
        num_workers=config.evaluation.num_workers,
    )
    device = run.model.mean.device
    for batch in islice(batches, max(1, NUM_IMAGES // size)):
        yield batch.to(device, memory_format=torch.contiguous_format).images
