"""Plans the runs of a comparison: the methods and vanilla at equal cost, with every seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from advprop.comparisons.candidates import (
    Candidate,
    Candidates,
    applies,
    candidates_of,
    first_candidates,
    path_of,
    read_all,
)
from advprop.comparisons.step_costs import StepTimes
from advprop.config.methods import METHODS
from advprop.config.overrides import apply_overrides, unknown_settings
from advprop.config.run import RunConfig
from advprop.files.parsing import leaves
from advprop.results.summary import EQUAL_COST, VANILLA

DEFAULT_METHODS = ("vanilla", "adversarial", "mixed", "advprop")

Equal: TypeAlias = Literal["passes", "seconds"]
"""The cost that is equal for all methods; see `plan_jobs`."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a comparison; `method` is its name in the results.

    `error` is the reason why the run cannot be trained, if it is known beforehand. Unless `tested`,
    the run is only trained and validated.
    """

    method: str
    config: RunConfig
    folder: Path
    error: str = ""
    tested: bool = True


def plan_jobs(
    config: RunConfig,
    folder: Path,
    methods: Sequence[str],
    num_seeds: int,
    overrides: Sequence[str],
    vary: Sequence[str] = (),
    choose: Callable[[Candidates], Mapping[str, Candidate]] = first_candidates,
    measure: Callable[[Mapping[str, RunConfig]], StepTimes] | None = None,
) -> list[Job]:
    """Return a job for each method and seed, ordered by seed so that partial results are usable.

    All methods train for the same number of epochs, and vanilla at equal cost for as many as give
    it the passes of the most expensive one. With `measure`, which returns the time of each method's
    step in vanilla steps, cheaper methods get more epochs instead, to train for the time of the
    most expensive one; methods whose step cannot be timed get jobs with an error. `vary` lists
    settings to try ("PATH=A,B"); `choose` returns one candidate of each method. Raises ValueError
    for an unknown method, or a setting that no method has.
    """
    varied = read_all(vary)
    bases = _method_configs(config, methods, overrides, varied)
    candidates = {method: candidates_of(method, base, varied) for method, base in bases.items()}
    if measure is not None:
        candidates = _at_equal_time(candidates, bases[VANILLA], measure)
    chosen = dict(choose(candidates))
    if measure is None:
        dearest = max(own.config.method.build().passes_per_image for own in chosen.values())
        longer = stretched(chosen[VANILLA].config, dearest)
        chosen[EQUAL_COST] = dataclasses.replace(chosen[VANILLA], config=longer)
        if VANILLA not in methods and len(bases) > 1:
            del chosen[VANILLA]
    return [
        Job(
            method=method,
            config=own.config.with_seed(seed),
            folder=folder / "runs" / f"{method}-seed{seed}",
            error=own.error,
        )
        for seed in range(num_seeds)
        for method, own in chosen.items()
    ]


def _at_equal_time(
    candidates: Candidates,
    vanilla: RunConfig,
    measure: Callable[[Mapping[str, RunConfig]], StepTimes],
) -> dict[str, list[Candidate]]:
    """Return the candidates with as many epochs as fit into the time of the most expensive one.

    Vanilla is named vanilla at equal cost, since they are the same then; its epochs are rounded up.
    """
    every = [candidate for own in candidates.values() for candidate in own]
    times = measure({VANILLA: vanilla, **{own.step: own.config for own in every}})
    batch_size = vanilla.training.batch_size
    costs = {
        own.step: times.costs[own.step] * batch_size / own.config.training.batch_size
        for own in every
        if own.step in times.costs
    }
    dearest = max(costs.values())

    def for_equal_time(own: Candidate, whole: Callable[[float], int]) -> Candidate:
        if own.step not in costs:
            return dataclasses.replace(own, error=times.refused[own.step])
        longer = stretched(own.config, dearest / costs[own.step], whole=whole)
        return dataclasses.replace(own, config=longer)

    others = {
        method: [for_equal_time(one, math.floor) for one in own]
        for method, own in candidates.items()
        if method != VANILLA
    }
    return others | {EQUAL_COST: [for_equal_time(one, math.ceil) for one in candidates[VANILLA]]}


def _method_configs(
    config: RunConfig,
    methods: Sequence[str],
    overrides: Sequence[str],
    varied: Sequence[Sequence[str]],
) -> dict[str, RunConfig]:
    """Return the configuration of each method, and of vanilla in any case."""
    if not methods:
        raise ValueError(f"no method named: choose from {', '.join(METHODS)}")
    names = [name for name in dict.fromkeys(methods) if name != EQUAL_COST]
    bases = {name: config.with_method(name) for name in dict.fromkeys((*names, VANILLA))}
    own = {name: bases[name] for name in names or bases}
    _check_overrides(own, [*overrides, *(values[0] for values in varied)])
    return {
        name: apply_overrides(base, [o for o in overrides if applies(base, o)])
        for name, base in bases.items()
    }


def _check_overrides(bases: Mapping[str, RunConfig], overrides: Sequence[str]) -> None:
    if any(path_of(override) == "seed" for override in overrides):
        raise ValueError("seed: a comparison trains with seeds 0 to N - 1: set --seeds N instead")
    unknown = [
        path_of(override)
        for override in overrides
        if not any(applies(base, override) for base in bases.values())
    ]
    if unknown:
        settings = [
            leaves(base.method.model_dump(mode="json"), path="method") for base in bases.values()
        ]
        known = list(dict.fromkeys(path for own in settings for path, _ in own))
        raise ValueError(unknown_settings(known, unknown, ", ".join(bases)))


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
