"""The configuration of one run."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from advprop.auxiliary.copies import Separate
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.auxiliary.token import add_auxiliary_tokens
from advprop.config.data import DataConfig
from advprop.config.evaluation import EvaluationConfig
from advprop.config.fields import Config, Fractions, Place, removed_text
from advprop.config.methods import AnyMethodConfig, method_config
from advprop.data.found import Found
from advprop.methods.advprop_lean import NO_MIXTURES
from advprop.models.build import build_model, check_options
from advprop.models.standardize import Standardized
from advprop.models.weights import load_local_weights, weights_file
from advprop.results.engine import engine_words
from advprop.shapes import Redrawn
from advprop.training.settings import TrainingSettings

_GIVEN = frozenset(inspect.signature(build_model).parameters)


class ModelConfig(Config):
    """A model: `small_resnet` or a name that `timm.create_model` knows, with its `options`.

    `pretrained` takes timm's weights, `checkpoint` those of a local file or export
    (`advprop.models.weights`). `mean` and `std`, one for each channel or one for all, default to
    those of timm's `pretrained_cfg`. `separate` names the part of a normalisation layer that each
    branch of the method owns (`advprop.add_auxiliary_norms`), or is "token" if it owns only a class
    token (`advprop.add_auxiliary_tokens`); methods without branches ignore it.
    """

    places: ClassVar = ("checkpoint",)
    removed: ClassVar[Mapping[str, object]] = {"adapter_rank": 4}

    name: str
    pretrained: bool = False
    checkpoint: Place | None = None
    mean: Fractions | None = None
    std: Fractions | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    separate: Separate | Literal["token"] = "both"

    def build(self, *, num_classes: int, image_shape: tuple[int, int, int]) -> Standardized:
        """Return the model without branches, for images of shape (channels, height, width).

        Raises ValueError if it cannot be built or the weights do not fit, and FileNotFoundError if
        `checkpoint` is missing.
        """
        try:
            model = build_model(
                self.name,
                num_classes=num_classes,
                in_chans=image_shape[0],
                image_size=image_shape[1:],
                pretrained=self.pretrained,
                mean=_of_each(self.mean, image_shape[0]),
                std=_of_each(self.std, image_shape[0]),
                **self.options,
            )
        except ValueError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            raise ValueError(
                f"{error}: --set model.pretrained=false takes random weights, "
                "and --set model.checkpoint=FILE in addition local ones"
            ) from error
        if self.checkpoint is not None:
            load_local_weights(model, self.checkpoint)
        return model

    def add_branches(self, model: Standardized, auxiliary: Sequence[str]) -> None:
        """Add branches to a model from `build`; raises ValueError if it does not support them."""
        if self.separate == "token":
            add_auxiliary_tokens(model, auxiliary)
        else:
            add_auxiliary_norms(model, auxiliary, separate=self.separate)

    def first_weights(self) -> str | None:
        """Return a digest of the file `checkpoint`, or None if none is set or it is missing."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        with weights_file(self.checkpoint).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def without_places(self) -> ModelConfig:
        """Return a copy without paths; the checkpoint's file name stays."""
        file = None if self.checkpoint is None else Path(self.checkpoint.name)
        return self.model_copy(update={"checkpoint": file})

    def without_weights(self) -> ModelConfig:
        """Return the configuration of the same architecture with random weights."""
        return self.model_copy(update={"pretrained": False, "checkpoint": None})

    @field_validator("separate", mode="before")
    @classmethod
    def _no_adapters(cls, separate: object) -> object:
        if separate == "adapter":
            raise ValueError(
                removed_text('separate "adapter"', "another value of it", cls.removed_after)
            )
        return separate

    @model_validator(mode="after")
    def _free_options(self) -> ModelConfig:
        check_options(self.options)
        for name in self.options:
            if name in _GIVEN:
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


class RunConfig(Config):
    """Everything that a run depends on: the same configuration trains the same weights.

    Raises pydantic's ValidationError, a ValueError, for values out of bounds or in contradiction.
    """

    recipe: str
    seed: int = Field(default=0, ge=0, lt=2**63)
    method: AnyMethodConfig
    model: ModelConfig
    data: DataConfig
    training: TrainingSettings
    evaluation: EvaluationConfig

    @model_validator(mode="after")
    def _images_are_their_own(self) -> RunConfig:
        if self.data.mixing.is_on and not self.method.build().takes_mixtures:
            raise ValueError(f"method {self.method.kind}: {NO_MIXTURES}")
        return self

    @model_validator(mode="after")
    def _views_are_there(self) -> RunConfig:
        method, given = self.method.build(), self.data.view_names
        if given and self.data.mixing.is_on:
            raise ValueError(
                f"mixup and cutmix give images labels that do not fit data.views "
                f"({', '.join(given)}): leave one of the two out"
            )
        for name in method.views:
            if name not in (*given, *method.versions):
                raise ValueError(
                    f'method.views has "{name}", which data.views lacks: say how these images are '
                    f"augmented, as in --set 'data.views.{name}="
                    '{"auto_augment": "rand-m9-mstd0.5"}\'; embedded data have no views'
                )
        return self

    @model_validator(mode="after")
    def _draws_differ(self) -> RunConfig:
        versions = self.method.build().versions.values()
        if not any(isinstance(version, Redrawn) for version in versions):
            return self
        if self.data.mixing.is_on:
            raise ValueError(
                f"method {self.method.kind} compares several draws of an image, and mixup and "
                "CutMix give each of them other labels: set data.mixing.mixup=0 and "
                "data.mixing.cutmix=0, or train another method"
            )
        if self.data.augmentation is None:
            raise ValueError(
                f"method {self.method.kind} compares several draws of data.augmentation, and "
                'without it all are alike: set it, as in --set data.augmentation=\'{"scale": [0.5, '
                '1], "hflip": 0}\', or train another method'
            )
        return self

    @property
    def place_paths(self) -> frozenset[str]:
        """Return the dotted names of the settings that hold paths."""
        parts = {"data": self.data, "model": self.model}
        return frozenset(f"{name}.{field}" for name, part in parts.items() for field in part.places)

    def absolute(self) -> RunConfig:
        """Return a copy with absolute paths, valid in any working directory."""
        parts = {"data": self.data, "model": self.model}
        return self.model_copy(update={name: part.absolute() for name, part in parts.items()})

    def without_places(self) -> RunConfig:
        """Return a copy without paths, which can be published."""
        parts = {"data": self.data, "model": self.model}
        return self.model_copy(update={name: part.without_places() for name, part in parts.items()})

    def start_lines(self, found: Mapping[str, Any] | None) -> list[str]:
        """Return the first lines of `plan` and `train`: data, model, method and its passes.

        `found` is `Found.to_json` of the data, None if they were not loaded.
        """
        epochs, passes = self.training.num_epochs, self.method.build().passes_per_image
        weights, engine = "", engine_words(asdict(self.training))
        if self.model.pretrained or self.model.checkpoint is not None:
            weights = f" from {self.model.checkpoint or 'pretrained weights'}"
        return [
            *(Found(**found).lines() if found else []),
            f"{self.model.name}{weights}, method {self.method.kind}: "
            f"{passes:.4g} pass{'' if passes == 1 else 'es'} per image and epoch, "
            f"{epochs * passes:,.4g} in {epochs:,} epoch{'' if epochs == 1 else 's'} "
            f"(vanilla {epochs:,})",
            *([f"computation: {engine}"] if engine else []),
        ]

    def with_method(self, name: str) -> RunConfig:
        """Return the run with method `name`: its defaults, with the strength of this run's attack.

        Raises ValueError for an unknown name.
        """
        if name == self.method.kind:
            return self
        return self.model_copy(update={"method": method_config(name, self.method.strength)})

    def with_seed(self, seed: int) -> RunConfig:
        """Return the same run with another seed."""
        return type(self).model_validate({**self.model_dump(), "seed": seed})


def _of_each(values: Sequence[float] | None, num_channels: int) -> Sequence[float] | None:
    """Return `values`, repeated for each channel if there is only one."""
    return values if values is None or len(values) > 1 else [*values] * num_channels
