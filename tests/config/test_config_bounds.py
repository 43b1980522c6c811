"""Every number of a configuration has bounds, which are checked before any work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from advprop.config.data import DATA_KINDS
from advprop.config.methods import METHODS
from advprop.config.overrides import apply_overrides, validated
from advprop.config.run import RunConfig
from advprop.recipes.images import from_scratch

TOO_MUCH = (10**30, -(10**30), 1e300, -1e300, float("nan"), float("inf"), float("-inf"))


def holds_number(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(holds_number, get_args(annotation)))


def numbers(part: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    """Paths of the fields of a configuration that hold numbers; whether they hold several."""
    described = getattr(type(part), "model_fields", None) or type(part).__pydantic_fields__
    for name, field in described.items():
        value, here = getattr(part, name), f"{path}.{name}".removeprefix(".")
        if hasattr(type(value), "model_fields") or hasattr(type(value), "__pydantic_fields__"):
            yield from numbers(value, here)
        elif holds_number(field.annotation):
            yield here, "tuple" in str(field.annotation)


def put(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    return {**tree, name: put(tree[name], rest, value) if rest else value}


def configurations() -> Iterator[RunConfig]:
    for method in METHODS:
        yield from_scratch().with_method(method)
    for kind in DATA_KINDS:
        names = ["data.name=digits", "data.num_train=10"] if kind == "builtin" else []
        yield apply_overrides(from_scratch(), [f"data.kind={kind}", *names])


def of_kind(config: RunConfig) -> dict[str, tuple[RunConfig, bool]]:
    """The numbers of a configuration, by path and what they are of."""
    kinds = {"method": config.method.kind, "data": config.data.kind}
    return {
        f"{kinds.get(path.split('.')[0], '')} {path}": (config, several)
        for path, several in numbers(config)
    }


def test_every_number_has_bounds() -> None:
    every = {name: found for config in configurations() for name, found in of_kind(config).items()}
    assert len(every) > 70
    taken = []
    for name, (config, several) in every.items():
        tree = config.model_dump(mode="json")
        for value in TOO_MUCH:
            with contextlib.suppress(ValueError):
                validated(put(tree, name.split()[-1], [value] if several else value))
                taken.append((name, value))
    assert not taken


REFUSED = {
    "data.crop_pct": 1e-9,
    "data.image_size": 20_000,
    "data.num_train": 0,
    "data.augmentation.color_jitter": 11,
    "data.augmentation.ratio": [1e-9, 1],
    "evaluation.noise_standard_deviation": 100,
    "evaluation.num_workers": 5000,
    "training.num_workers": 5000,
    "training.optimizer_options": {"nu": 1e300},
    "model.options": {"width": 1e300},
    "seed": -1,
}


@pytest.mark.parametrize("path", REFUSED)
def test_numbers_that_cannot_be_meant_are_refused(path: str) -> None:
    tree = from_scratch().model_dump(mode="json")
    with pytest.raises(ValueError, match=path.split(".")[-1].replace("_", ".")):
        validated(put(tree, path, REFUSED[path]))


def test_seeds_may_be_large() -> None:
    assert from_scratch().with_seed(2**63 - 1).seed == 2**63 - 1


def test_settings_of_several_values_are_given_by_commas_or_alone() -> None:
    settings = ["model.mean=0.5", "model.std=1/4,0.2,0.3", "data.augmentation.scale=0.5,1"]
    settings += ["training.schedule=milestones", "training.milestones=30,60"]
    found = apply_overrides(from_scratch(), settings)
    assert (found.model.mean, found.model.std) == ((0.5,), (0.25, 0.2, 0.3))
    assert found.data.augmentation is not None
    assert found.data.augmentation.scale == (0.5, 1.0)
    assert found.training.milestones == (30.0, 60.0)
    grey = apply_overrides(found, ["model.name=small_resnet", "model.std=0.5"]).model
    assert grey.build(num_classes=2, image_shape=(3, 8, 8)).mean.flatten().tolist() == [0.5] * 3
    with pytest.raises(ValueError, match=r"data\.augmentation\.scale"):
        apply_overrides(from_scratch(), ["data.augmentation.scale=0.5"])
    with pytest.raises(ValueError, match=r"model\.mean.*half"):
        apply_overrides(from_scratch(), ["model.mean=half"])
