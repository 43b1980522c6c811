"""Configurations of a method that a comparison tries (`--vary`) before it chooses one of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

from advprop.config.overrides import (
    apply_overrides,
    has_path,
    parse_override,
    settings_of_weights,
)
from advprop.config.run import RunConfig
from advprop.files.parsing import parse_json

_VARIED = ("method.", "training.", "data.augmentation.")
_NOT_OF_STEP = ("seed", "recipe", "evaluation.", "training.num_epochs")
_FIXED = {"method.kind", "training.num_epochs"}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A method's configuration; `settings` ("PATH=VALUE") are the varied ones, possibly none.

    `step` names its training step in measurements of time; candidates of one method whose steps
    take the same time share a name. `error` is that of `Job`.
    """

    config: RunConfig
    settings: tuple[str, ...]
    step: str
    error: str = ""


Candidates: TypeAlias = Mapping[str, Sequence[Candidate]]


def first_candidates(candidates: Candidates) -> dict[str, Candidate]:
    """Return the first candidate of each method: the only one if no setting is varied."""
    return {method: own[0] for method, own in candidates.items()}


def read_vary(text: str) -> list[str]:
    """Return "PATH=A,B" as the overrides "PATH=A" and "PATH=B"; a list in brackets is one value.

    Raises ValueError for fewer than two values, or a setting in which methods may not differ.
    """
    path, _, values = text.partition("=")
    try:
        parts = [json.dumps(value) for value in parse_json(f"[{values}]")]
    except ValueError:
        parts = [part.strip() for part in values.split(",")]
    if len({*parts}) < 2 or "" in parts:
        raise ValueError(f'--vary "{text}": write PATH=A,B with two values or more')
    if not path.startswith(_VARIED) or path in _FIXED:
        raise ValueError(
            f"--vary {path}: only settings of method, training (but its length) and "
            "data.augmentation may differ between methods; give others with --set"
        )
    return [f"{path}={part}" for part in dict.fromkeys(parts)]


def read_all(texts: Sequence[str]) -> list[list[str]]:
    """Return `read_vary` of each text; raises ValueError, too, if two texts have one path."""
    varied = [read_vary(text) for text in texts]
    paths = [path_of(values[0]) for values in varied]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"--vary {path}: given twice; write all its values in one --vary")
    return varied


def candidates_of(method: str, base: RunConfig, varied: Sequence[Sequence[str]]) -> list[Candidate]:
    """Return a candidate for each combination of the varied settings that the method has."""
    own = [values for values in varied if applies(base, values[0])]
    steps, found = {repr(settings_of_step(base)): method}, []
    for settings in product(*own):
        config = apply_overrides(base, settings)
        step = steps.setdefault(repr(settings_of_step(config)), " ".join((method, *settings)))
        found.append(Candidate(config=config, settings=settings, step=step))
    return found


def settings_of_step(config: RunConfig) -> dict[str, Any]:
    """Return the settings that the time of a step depends on, by their paths, and its passes.

    Settings that are floats, such as a learning rate, change the time only through the passes.
    """
    kept = {
        path: value
        for path, value in settings_of_weights(config).items()
        if not isinstance(value, float) and not path.startswith(_NOT_OF_STEP)
    }
    # without workers the training process reads the batches, which is a part of its steps
    kept["training.num_workers"] = "some" if config.training.num_workers else "0"
    return {**kept, "passes_per_image": config.method.build().passes_per_image}


def path_of(override: str) -> str:
    """Return the path of "PATH=VALUE"."""
    return parse_override(override)[0]


def applies(config: RunConfig, override: str) -> bool:
    """Return whether "PATH=VALUE" sets something outside `method`, or a setting of `config`."""
    path = path_of(override)
    return not path.startswith("method.") or has_path(config.model_dump(mode="json"), path)
