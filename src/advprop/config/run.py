"""The configuration of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from advprop.config.fields import Config, Fraction
from advprop.config.methods import AttackConfig, MethodConfig, VanillaConfig, method_config
from advprop.data.builtin import BuiltinName, load_builtin
from advprop.data.folders import load_folder
from advprop.data.preprocessing import Augmentation, Interpolation, Preprocessing
from advprop.data.sources import ImageData
from advprop.models.build import build_model
from advprop.models.standardize import Standardized
from advprop.training.settings import TrainingSettings


class BuiltinDataConfig(Config):
    """An embedded data set, `num_train` of its training images (None: all)."""

    kind: Literal["builtin"] = "builtin"
    name: BuiltinName
    num_train: int | None = None

    def load(self, seed: int) -> ImageData:
        """Load it; the splits do not depend on the seed."""
        return load_builtin(self.name, num_train=self.num_train)


class FolderDataConfig(Config):
    """A folder of images (`advprop.data.folders.load_folder` says how it may be laid out)."""

    kind: Literal["folder"] = "folder"
    root: Path | None = None
    image_size: int = 128
    channels: Literal[1, 3] = 3
    num_train: int | None = None
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 0.875
    augmentation: Augmentation | None = Augmentation()

    @model_validator(mode="after")
    def _valid(self) -> FolderDataConfig:
        shape = (self.channels, self.image_size, self.image_size)
        Preprocessing(image_shape=shape, interpolation=self.interpolation, crop_pct=self.crop_pct)
        return self

    def load(self, seed: int) -> ImageData:
        """List the files; raise ValueError where no folder was named."""
        if self.root is None:
            raise ValueError("no folder of images named: --set data.root=DIR")
        return load_folder(
            self.root,
            image_size=self.image_size,
            channels=self.channels,
            num_train=self.num_train,
            augmentation=self.augmentation,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            seed=seed,
        )


DataConfig = Annotated[BuiltinDataConfig | FolderDataConfig, Field(discriminator="kind")]


class ModelConfig(Config):
    """`small_resnet`, or any name that `timm.create_model` knows, with its `options`.

    `mean` and `std` default to those of timm's `pretrained_cfg`.
    """

    name: str
    pretrained: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    def build(self, *, num_classes: int, image_shape: tuple[int, int, int]) -> Standardized:
        """Build the model, without branches; it takes images of shape (channels, H, W)."""
        return build_model(
            self.name,
            num_classes=num_classes,
            in_chans=image_shape[0],
            image_size=image_shape[1:],
            pretrained=self.pretrained,
            mean=self.mean,
            std=self.std,
            **self.options,
        )


class EvaluationConfig(Config):
    """What the suites `noise` and `adversarial` do to the images."""

    batch_size: int = Field(default=250, ge=1)
    noise_standard_deviation: Fraction = Field(default=0.1, ge=0)
    attack: AttackConfig


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
