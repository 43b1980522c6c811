"""Overrides values of a configuration, reads configurations, and compares them."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from advprop.config.data import DATA_KINDS, settings_for_kind
from advprop.config.evaluation import EvaluationConfig
from advprop.config.fields import Config, parse_list
from advprop.config.methods import METHODS
from advprop.config.run import ModelConfig, RunConfig
from advprop.files.json_files import read_json
from advprop.files.parsing import leaves, parse_json

_Config = TypeVar("_Config", bound=Config)


class _Evaluation(Config):
    """The part of a configuration that tests of a finished run may change."""

    evaluation: EvaluationConfig


# below these, any name may be set
_FREE = ("model.options", "training.optimizer_options", "data.views", "method.attacks")
# these may differ on resumption and in comparisons, as trained weights do not depend on them
_WITHOUT_EFFECT = {
    *("data.max_unreadable", "data.expected_sizes"),
    *(f"training.{name}" for name in ("num_workers", "keep_checkpoints", "not_finite")),
    *(f"training.checkpoint_every_{unit}" for unit in ("steps", "minutes")),
}


def apply_overrides(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Return `config` with each "PATH=VALUE" of `overrides` applied, validated.

    Values are JSON if they parse as such, else text; "none" is null. Raises ValueError, which names
    all unknown paths or all invalid values.
    """
    tree = config.model_dump(mode="json")
    pairs = [parse_override(override) for override in overrides]
    for path, value in pairs:
        if path == "data.kind" and value != config.data.kind:
            tree["data"] = settings_for_kind(config.data, value)
    _change(tree, pairs, of=f"recipe {config.recipe} with this method")
    return validated(tree)


def apply_evaluation_overrides(
    config: EvaluationConfig, overrides: Sequence[str]
) -> EvaluationConfig:
    """Return `config` with each "evaluation.NAME=VALUE" applied; errors as `apply_overrides`."""
    tree = {"evaluation": config.model_dump(mode="json")}
    _change(tree, [parse_override(override) for override in overrides], of="an evaluation")
    return _checked(_Evaluation, tree).evaluation


def _change(tree: dict[str, Any], pairs: Sequence[tuple[str, Any]], *, of: str) -> None:
    """Set each value; raises ValueError for an unknown path, or one below another path."""
    unknown = [path for path, _ in pairs if not has_path(tree, path)]
    if unknown:
        raise ValueError(unknown_settings([path for path, _ in leaves(tree)], unknown, of))
    for path, value in pairs:
        if not has_path(tree, path):
            raise ValueError(f'"{path}" is below another setting of this command: give one of them')
        *parents, last = path.split(".")
        node = tree
        for name in parents:
            node = node[name]
        # "A,B" is a list for every setting that holds one
        node[last] = parse_list(value) if isinstance(node.get(last), list) else value


def parse_override(override: str) -> tuple[str, Any]:
    """Return the path and value of "PATH=VALUE"; raises ValueError without a path or "="."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise ValueError(f'--set "{override}": write PATH=VALUE, as in training.num_epochs=10')
    if text.strip().lower() == "none":
        return path.strip(), None
    try:
        return path.strip(), parse_json(text)
    except ValueError:
        return path.strip(), text.strip()


def has_path(tree: Mapping[str, Any], path: str) -> bool:
    """Return whether `path` names a value in `tree`, a configuration as plain data."""
    node: Any = tree
    *parents, last = path.split(".")
    for name in parents:
        if not isinstance(node, dict) or name not in node:
            return False
        node = node[name]
    return isinstance(node, dict) and (last in node or ".".join(parents) in _FREE)


def validated(tree: Mapping[str, Any]) -> RunConfig:
    """Return a `RunConfig` from plain data; raises ValueError with a line for each problem."""
    return _checked(RunConfig, tree)


def _checked(kind: type[_Config], tree: Mapping[str, Any]) -> _Config:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ValueError("\n".join(_problems(error))) from None


def read_config(path: Path) -> RunConfig:
    """Return a saved `config.json`; raises OSError if it is unreadable, ValueError if invalid."""
    tree = read_json(path)
    try:
        return validated(tree)
    except ValueError as error:
        raise ValueError(
            f"{path}: not a run's configuration; correct it, or put it back:\n{error}"
        ) from None


def differences(saved: RunConfig, wanted: RunConfig) -> dict[str, str]:
    """Return a line for each differing setting that affects trained weights, by its path."""
    ignored = saved.place_paths | wanted.place_paths
    old, new = settings_of_weights(saved), settings_of_weights(wanted)
    return {
        path: f"{path}: saved {old.get(path, 'nothing')}, wanted {new.get(path, 'nothing')}"
        for path in sorted({*old, *new} - ignored)
        if old.get(path, ...) != new.get(path, ...)
    }


def settings_of_weights(config: RunConfig) -> dict[str, Any]:
    """Return the settings that affect trained weights, by their paths."""
    ignored = _WITHOUT_EFFECT | config.place_paths
    return {
        path: value for path, value in leaves(config.model_dump(mode="json")) if path not in ignored
    }


def settings_of_length(config: RunConfig) -> list[str]:
    """Return the settings that make an epoch depend on `num_epochs`, except the learning rate's."""
    method = leaves(config.method.model_dump(mode="json"), path="method")
    grown = [path for path, value in method if path.endswith(".first_steps") and value is not None]
    phases = ["method.adversarial_share"] * (config.method.kind == "adversarial_then_clean")
    return phases + grown


def with_identities(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings with places replaced by digests of their contents, if known."""
    data, model = dict(settings.get("data") or {}), dict(settings.get("model") or {})
    if facts.get("images") and str(data.get("kind")) in DATA_KINDS:
        digest = hashlib.sha256(repr(facts["images"]).encode()).hexdigest()[:16]
        data |= dict.fromkeys(DATA_KINDS[data["kind"]].places, f"images {digest}")
    if facts.get("first_weights"):
        model |= dict.fromkeys(ModelConfig.places, f"weights {facts['first_weights'][:16]}")
    data.pop("expected_sizes", None)  # for plans without the images; a run has images
    return {**settings, "data": data, "model": model}


def _problems(error: ValidationError) -> Iterator[str]:
    kinds = {*DATA_KINDS, *METHODS}
    for problem in error.errors(include_url=False):
        # pydantic adds the tag of a union, which is no part of the path in the file
        names = [str(name) for name in problem["loc"]]
        path = ".".join(
            name for position, name in enumerate(names) if not (position == 1 and name in kinds)
        )
        message = problem["msg"].removeprefix("Value error, ")
        given = problem["input"]
        shown = "" if isinstance(given, dict) or problem["type"] == "missing" else f" {given!r}"
        # a conflict between two parts has no path
        yield f"{path}{shown}: {message}" if path else message


def unknown_settings(known: Sequence[str], unknown: Sequence[str], of: str) -> str:
    """Return the message for `unknown` paths, with the `known` ones that resemble them."""
    lines = []
    for path in unknown:
        near = difflib.get_close_matches(path, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        lines.append(f'"{path}" is no setting of {of}; {hint}')
    return "\n".join(lines)
