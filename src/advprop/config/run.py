"""The configuration of one run."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, field_validator, model_validator

from advprop.auxiliary.norm import Separate
from advprop.config.data import DataConfig
from advprop.config.fields import Config, Fraction
from advprop.config.methods import AttackConfig, MethodConfig, VanillaConfig, method_config
from advprop.data.corruptions import CORRUPTIONS, SEVERITIES
from advprop.models.build import build_model
from advprop.models.standardize import Standardized
from advprop.models.weights import load_local_weights
from advprop.training.settings import TrainingSettings

_Choice = TypeVar("_Choice", str, int)
_NO_OPTIONS = frozenset(inspect.signature(build_model).parameters) | {"checkpoint_path"}


class ModelConfig(Config):
    """`small_resnet`, or any name that `timm.create_model` knows, with its `options`.

    `pretrained` takes timm's weights, `checkpoint` those of a local file or export
    (`advprop.models.weights`). `mean` and `std` default to those of timm's `pretrained_cfg`.
    `separate` says what of a normalisation layer each of the method's branches owns
    (`advprop.add_auxiliary_norms`); it means nothing to methods without auxiliary branches.
    """

    name: str
    pretrained: bool = False
    checkpoint: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    separate: Separate = "both"

    def build(self, *, num_classes: int, image_shape: tuple[int, int, int]) -> Standardized:
        """Build the model, without branches; it takes images of shape (channels, H, W)."""
        model = build_model(
            self.name,
            num_classes=num_classes,
            in_chans=image_shape[0],
            image_size=image_shape[1:],
            pretrained=self.pretrained,
            mean=self.mean,
            std=self.std,
            **self.options,
        )
        if self.checkpoint is not None:
            load_local_weights(model.model, self.checkpoint)
        return model

    def without_weights(self) -> ModelConfig:
        """The same architecture from random weights, which others will replace."""
        return self.model_copy(update={"pretrained": False, "checkpoint": None})

    @model_validator(mode="after")
    def _free_options(self) -> ModelConfig:
        for name in self.options:
            if name in _NO_OPTIONS:
                raise ValueError(
                    f"options has {name}, which is no option of an architecture: "
                    "it follows from the data, or is a setting of model itself"
                )
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> ModelConfig:
        if self.pretrained and self.checkpoint is not None:
            raise ValueError(
                f"pretrained weights and checkpoint {self.checkpoint} are both given: "
                "set pretrained=false to start from the checkpoint"
            )
        return self


class EvaluationConfig(Config):
    """What the suites `noise`, `adversarial` and `corruptions` do to the images.

    The last one takes `corruptions` (the 15 of ImageNet-C, or some of them), with
    `extra_corruptions` its 4 held-out ones too, each at every one of `corruption_severities`.
    """

    batch_size: int = Field(default=250, ge=1)
    noise_standard_deviation: Fraction = Field(default=0.1, ge=0)
    attack: AttackConfig
    corruptions: tuple[str, ...] = CORRUPTIONS
    corruption_severities: tuple[int, ...] = SEVERITIES
    extra_corruptions: bool = False

    @field_validator("corruptions", "corruption_severities", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """On a command line "snow,fog" and "3" are shorter than JSON."""
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(","))
        return (value,) if isinstance(value, int) else value

    @field_validator("corruptions")
    @classmethod
    def _known_corruptions(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in CORRUPTIONS]:
            raise ValueError(f"unknown: {', '.join(unknown)}; choose from {', '.join(CORRUPTIONS)}")
        return _each_once(names)

    @field_validator("corruption_severities")
    @classmethod
    def _known_severities(cls, severities: tuple[int, ...]) -> tuple[int, ...]:
        if unknown := [severity for severity in severities if severity not in SEVERITIES]:
            raise ValueError(f"{unknown[0]} is none; choose from 1 (mild) to 5")
        return _each_once(severities)


def _each_once(chosen: tuple[_Choice, ...]) -> tuple[_Choice, ...]:
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError("name at least one, and each once")
    return chosen


class RunConfig(Config):
    """Everything that a run depends on; the same configuration trains the same weights."""

    recipe: str
    seed: int = Field(default=0, ge=0)
    method: MethodConfig
    model: ModelConfig
    data: DataConfig
    training: TrainingSettings
    evaluation: EvaluationConfig

    def with_method(self, name: str) -> RunConfig:
        """The same run with another method: its defaults, and the attack of this run's method."""
        if name == self.method.kind:
            return self
        attack = None if isinstance(self.method, VanillaConfig) else self.method.attack
        return self.model_copy(update={"method": method_config(name, attack)})

    def with_seed(self, seed: int) -> RunConfig:
        """The same run with another seed."""
        return type(self).model_validate({**self.model_dump(), "seed": seed})
