"""Further measurements of a finished run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

import advprop
from advprop.auxiliary.branches import branch_names
from advprop.auxiliary.route import has_auxiliary_norms
from advprop.auxiliary.statistics import branch_distances
from advprop.config import RunConfig
from advprop.runs.trainer import build_trainer
from advprop.training.engine import build_accelerator

CORRUPTED_IMAGES = 400  # of the test images, in proportion to the classes
CORRUPTION_SEVERITIES = (1, 3, 5)
OTHER_TESTS = {"shift": "shift", "test_seen": "seen"}


def shift(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Accuracies on the other test sets: `shift` of the emoji, `test_seen` of the icons.

    The one has drawings by artists that training never saw, the other icons by designers that it
    saw: the icons' test is by others.
    """
    root = getattr(config.data, "root", None)
    found: dict[str, Any] = {}
    for split, name in OTHER_TESTS.items():
        if root is not None and (root / split).is_dir():
            tested = advprop.evaluate(folder, suites=["clean"], data={"clean": root / split})
            found[f"{name}_accuracy"] = tested["suites"]["clean"]["clean_accuracy"]
    return found


def corruption(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Accuracy over the 15 corruptions of ImageNet-C, on a part of the test images."""
    found = advprop.evaluate(
        folder,
        suites=["corruptions"],
        limit=CORRUPTED_IMAGES,
        settings=[f"evaluation.corruption_severities={list(CORRUPTION_SEVERITIES)}"],
    )
    return {"corruptions_accuracy": found["suites"]["corruptions"]["corruptions_accuracy"]}


def each_branch(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Accuracies of the auxiliary branch: on clean images, under noise, and attacked itself."""
    if not config.method.build().auxiliary:
        return {}
    found = advprop.evaluate(folder, eval_branch="adversarial")
    return {
        f"auxiliary_{suite}_accuracy": numbers[f"{suite}_accuracy"]
        for suite, numbers in found["suites"].items()
    }


def distances(folder: Path, config: RunConfig) -> dict[str, Any]:
    """How far the branches lie apart, layer by layer, after the first epoch and the last."""
    run = advprop.load_run(folder)
    if not has_auxiliary_norms(run.model):
        return {}
    _, branch = branch_names(run.model)
    models = {"first_epoch": after_one_epoch(config), "last_epoch": run.model}
    return {
        "distances": {
            name: [asdict(distance) for distance in branch_distances(model, branch)]
            for name, model in models.items()
        }
    }


def after_one_epoch(config: RunConfig) -> nn.Module:
    """The run's model after its first epoch, trained once more: a run does not keep it."""
    with TemporaryDirectory() as folder:
        accelerator = build_accelerator(config.training)
        trainer = build_trainer(config, config.data.load(config.seed), Path(folder), accelerator)
        trainer.train_epoch(lambda: None, trainer.progress(quiet=True))
    return trainer.plain_model
