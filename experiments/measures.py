"""Further measurements of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import advprop
from advprop.auxiliary.branches import branch_names, has_auxiliary_norms
from advprop.auxiliary.statistics import branch_distances
from advprop.config import RunConfig
from advprop.training.checkpoint import Checkpoints, load_weights, read_checkpoint


def shift(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Accuracy on drawings by artists that training never saw; only the emoji have them."""
    root = getattr(config.data, "root", None)
    if root is None:
        return {}
    found = advprop.evaluate(folder, suites=["clean"], data={"clean": root / "shift"})
    return {"shift_accuracy": found["suites"]["clean"]["clean_accuracy"]}


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
    paths = Checkpoints(folder / "checkpoints").by_step()
    found = {}
    for name, path in (("first_epoch", paths[-1]), ("last_epoch", paths[0])):
        state = read_checkpoint(path)
        load_weights(run.model, state["model"], source=state["source"])
        found[name] = [entry.to_json() for entry in branch_distances(run.model, branch)]
    return {"distances": found}
