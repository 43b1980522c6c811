"""What a comparison trains: the methods, vanilla at equal cost, and every seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from advprop.config.methods import METHODS
from advprop.config.overrides import apply_overrides, has_path, parse_override
from advprop.config.run import RunConfig
from advprop.results.summary import EQUAL_COST, VANILLA

DEFAULT_METHODS = ("vanilla", "adversarial", "mixed", "advprop")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a comparison; `method` is its name in the results."""

    method: str
    config: RunConfig
    folder: Path


def plan_jobs(
    config: RunConfig,
    folder: Path,
    methods: Sequence[str],
    num_seeds: int,
    overrides: Sequence[str],
) -> list[Job]:
    """One job for each method and seed, seed by seed, so that an interrupted comparison compares.

    Raises ValueError for an unknown method, or a setting that fits none.
    """
    configs = _method_configs(config, methods, overrides)
    return [
        Job(
            method=method,
            config=method_config.with_seed(seed),
            folder=folder / "runs" / f"{method}-seed{seed}",
        )
        for seed in range(num_seeds)
        for method, method_config in configs.items()
    ]


def _method_configs(
    config: RunConfig, methods: Sequence[str], overrides: Sequence[str]
) -> dict[str, RunConfig]:
    names = list(dict.fromkeys(methods))
    for name in names:
        if name not in METHODS and name != EQUAL_COST:
            raise ValueError(f'method "{name}" unknown: choose from {", ".join(METHODS)}')
    names = [name for name in names if name != EQUAL_COST]
    bases = {name: config.with_method(name) for name in names or [VANILLA]}
    _check_overrides(bases, overrides)
    configs = {
        name: apply_overrides(base, [o for o in overrides if not _is_of_method(o) or _has(base, o)])
        for name, base in bases.items()
    }
    dearest = max(c.method.build().passes_per_image for c in configs.values())
    general = [override for override in overrides if not _is_of_method(override)]
    vanilla = apply_overrides(config.with_method(VANILLA), general)
    return {**configs, EQUAL_COST: stretched(vanilla, dearest)}


def _check_overrides(bases: dict[str, RunConfig], overrides: Sequence[str]) -> None:
    for override in overrides:
        if _is_of_method(override) and not any(_has(base, override) for base in bases.values()):
            raise ValueError(f'"{_path(override)}" is no setting of {", ".join(bases)}')


def stretched(vanilla: RunConfig, factor: float) -> RunConfig:
    """Vanilla at `factor` times the cost, its schedule stretched with it."""
    settings = vanilla.training
    training = dataclasses.replace(
        settings,
        num_epochs=math.ceil(settings.num_epochs * factor),
        warmup_epochs=settings.warmup_epochs * factor,
        decay_epochs=settings.decay_epochs * factor,
        milestones=tuple(milestone * factor for milestone in settings.milestones),
        evaluate_every_epochs=math.ceil(settings.evaluate_every_epochs * factor),
    )
    return vanilla.model_copy(update={"training": training})


def _path(override: str) -> str:
    return parse_override(override)[0]


def _has(config: RunConfig, override: str) -> bool:
    return has_path(config.model_dump(mode="json"), _path(override))


def _is_of_method(override: str) -> bool:
    return _path(override).startswith("method.")
