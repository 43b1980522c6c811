"""`evaluate`: test a trained model on suites, and say exactly what was tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advprop.auxiliary.branches import branch_names, has_auxiliary_norms, use_branch
from advprop.auxiliary.modes import attack_mode
from advprop.auxiliary.norm import CLEAN
from advprop.config.overrides import validated
from advprop.config.run import RunConfig
from advprop.data.folders import load_test_folder
from advprop.data.loaders import Batches, test_batches
from advprop.data.preprocessing import Preprocessing
from advprop.data.sources import ImageSplit
from advprop.evaluation.accuracy import evaluate_adversarial, evaluate_clean, evaluate_noise
from advprop.exporting import is_export, load_export
from advprop.models.standardize import Standardized
from advprop.run_folder import Weights, load_run, versions
from advprop.shapes import Images, Logits, LogitsFn

SUITES = ("clean", "noise", "adversarial")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to test, and what testing it needs."""

    name: str
    model: Standardized
    config: RunConfig
    weights: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing


def evaluate(
    run_or_export: str | Path,
    *,
    suites: Sequence[str] = SUITES,
    data: Mapping[str, str | Path] | None = None,
    eval_branch: str = CLEAN,
    attack_branch: str | None = None,
    weights: Weights | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Test a run's or an export's model on its test images, or on the folders in `data`.

    `data` gives a suite another folder, a folder a class in it. Clean images and attacked ones go
    through `eval_branch`; the attack through `attack_branch` (by default the same). `limit` takes
    the first images only, spread over the set. Returns plain data: `{run, branch, weights,
    versions, suites: {clean: {...}, ...}, red_flags}` (docs/results.md). Raises ValueError or
    OSError for anything that is not there.
    """
    _check_suites(suites, data or {})
    subject = load_subject(Path(run_or_export), weights=weights)
    model = subject.model.to(_device())
    branch = _known_branch(model, eval_branch)
    attacked = _known_branch(model, attack_branch or eval_branch)
    splits = _splits(subject, suites, data or {})
    results = {}
    for suite in suites:
        split, source = splits[suite]
        batches = test_batches(split, batch_size=subject.config.evaluation.batch_size, limit=limit)
        found = _run_suite(suite, subject.config, model, batches, branch, attacked)
        results[suite] = {**found, "images": source}
    return {
        "run": subject.name,
        "branch": branch,
        "weights": subject.weights,
        "versions": versions(),
        "suites": results,
        "red_flags": [],
    }


def load_subject(path: Path, *, weights: Weights | None = None) -> Subject:
    """Load a run's or an export's model in eval mode. Raises ValueError or OSError."""
    if not path.exists():
        raise ValueError(f"{path}: no such folder; give a run's or an export's")
    if not is_export(path):
        run = load_run(path, weights=weights)
        return Subject(
            name=str(path),
            model=run.model,
            config=run.config,
            weights=run.weights,
            class_names=run.class_names,
            preprocessing=run.preprocessing,
        )
    if weights is not None:
        raise ValueError(f"{path}: an export holds one set of weights; leave --weights out")
    export = load_export(path)
    try:
        config, saved = validated(export.provenance["config"]), str(export.provenance["weights"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: does not tell of the run that it is from ({error}); export a run's folder"
        ) from None
    return Subject(
        name=str(path),
        model=export.model,
        config=config,
        weights=saved,
        class_names=export.class_names,
        preprocessing=export.preprocessing,
    )


def through_branch(model: nn.Module, branch: str) -> LogitsFn:
    """`model` as a function that goes through `branch`, whatever branch is active."""
    if not has_auxiliary_norms(model):
        return model

    def logits_fn(images: Images) -> Logits:
        with use_branch(model, branch):
            logits: Logits = model(images)
            return logits

    return logits_fn


def _run_suite(
    suite: str,
    config: RunConfig,
    model: nn.Module,
    batches: Batches,
    branch: str,
    attacked: str,
) -> dict[str, Any]:
    logits_fn = through_branch(model, branch)
    on_device = _OnDevice(batches, _device())
    if suite == "clean":
        return evaluate_clean(logits_fn, on_device)
    if suite == "noise":
        return evaluate_noise(
            logits_fn, on_device, standard_deviation=config.evaluation.noise_standard_deviation
        )
    with attack_mode(model):
        found = evaluate_adversarial(
            logits_fn,
            on_device,
            attack=config.evaluation.attack.build(),
            attacked_logits_fn=through_branch(model, attacked),
        )
    return {**found, "attack_branch": attacked, "eval_branch": branch}


@dataclass(frozen=True)
class _OnDevice:
    batches: Batches
    device: torch.device

    def __iter__(self) -> Any:
        for batch in self.batches:
            yield batch.to(self.device, memory_format=torch.contiguous_format)


def _splits(
    subject: Subject, suites: Sequence[str], data: Mapping[str, str | Path]
) -> dict[str, tuple[ImageSplit, str]]:
    """Each suite's images and what to call them; the run's own are loaded at most once."""
    found: dict[str, tuple[ImageSplit, str]] = {}
    own: tuple[ImageSplit, str] | None = None
    for suite in suites:
        if suite in data:
            split = load_test_folder(
                data[suite], class_names=subject.class_names, preprocessing=subject.preprocessing
            )
            found[suite] = split, str(data[suite])
            continue
        own = own or _own_images(subject.config)
        found[suite] = own
    return found


def _own_images(config: RunConfig) -> tuple[ImageSplit, str]:
    data = config.data.load(config.seed)
    if data.test is None:
        return data.validation, f"{data.name} validation (there is no test/)"
    return data.test, f"{data.name} test"


def _check_suites(suites: Sequence[str], data: Mapping[str, str | Path]) -> None:
    if not suites:
        raise ValueError(f"no suite named: choose from {', '.join(SUITES)}")
    for suite in (*suites, *data):
        if suite not in SUITES:
            raise ValueError(f'suite "{suite}" unknown: choose from {", ".join(SUITES)}')
    for suite in data:
        if suite not in suites:
            raise ValueError(f'data for suite "{suite}", which is not among {", ".join(suites)}')


def _known_branch(model: nn.Module, branch: str) -> str:
    known = branch_names(model) if has_auxiliary_norms(model) else (CLEAN,)
    if branch not in known:
        raise ValueError(f'branch "{branch}" unknown, this model has {", ".join(known)}')
    return branch


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
