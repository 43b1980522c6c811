"""Plans the runs of a comparison: the methods and vanilla at equal cost, with every seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from advprop.config.methods import METHODS
from advprop.config.overrides import apply_overrides, has_path, parse_override
from advprop.config.run import RunConfig
from advprop.results.summary import EQUAL_COST, VANILLA

DEFAULT_METHODS = ("vanilla", "adversarial", "mixed", "advprop")

Equal: TypeAlias = Literal["passes", "seconds"]
"""The cost that is equal for all methods; see `plan_jobs`."""
Costs: TypeAlias = Mapping[str, float]


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
    *,
    measure: Callable[[Mapping[str, RunConfig]], Costs] | None = None,
) -> list[Job]:
    """Return a job for each method and seed, ordered by seed so that partial results are usable.

    All methods train for the same number of epochs, and vanilla at equal cost for as many as give
    it the passes of the most expensive one. With `measure`, which returns the time of each method's
    step in vanilla steps, all methods train for the time of the most expensive one, by more epochs.
    Raises ValueError for an unknown method, or a setting that no method has.
    """
    configs = _method_configs(config, methods, overrides)
    general = [override for override in overrides if not _is_of_method(override)]
    vanilla = apply_overrides(config.with_method(VANILLA), general)
    if measure is None:
        dearest = max(c.method.build().passes_per_image for c in configs.values())
    else:
        costs = measure({VANILLA: vanilla, **configs})
        dearest = max(costs.values())
        configs = {
            name: stretched(own, dearest / costs[name], whole=math.floor)
            for name, own in configs.items()
            if name != VANILLA  # it would equal vanilla at equal cost
        }
    configs[EQUAL_COST] = stretched(vanilla, dearest)
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
    return {
        name: apply_overrides(base, [o for o in overrides if not _is_of_method(o) or _has(base, o)])
        for name, base in bases.items()
    }


def _check_overrides(bases: dict[str, RunConfig], overrides: Sequence[str]) -> None:
    for override in overrides:
        if _is_of_method(override) and not any(_has(base, override) for base in bases.values()):
            raise ValueError(f'"{_path(override)}" is no setting of {", ".join(bases)}')


def stretched(
    config: RunConfig, factor: float, *, whole: Callable[[float], int] = math.ceil
) -> RunConfig:
    """Return the run with `factor` times as many epochs, and its schedule scaled with them.

    `whole` rounds the number of epochs.
    """
    settings = config.training
    training = dataclasses.replace(
        settings,
        num_epochs=whole(settings.num_epochs * factor),
        warmup_epochs=settings.warmup_epochs * factor,
        decay_epochs=settings.decay_epochs * factor,
        milestones=tuple(milestone * factor for milestone in settings.milestones),
        evaluate_every_epochs=math.ceil(settings.evaluate_every_epochs * factor),
    )
    return config.model_copy(update={"training": training})


def _path(override: str) -> str:
    return parse_override(override)[0]


def _has(config: RunConfig, override: str) -> bool:
    return has_path(config.model_dump(mode="json"), _path(override))


def _is_of_method(override: str) -> bool:
    return _path(override).startswith("method.")
