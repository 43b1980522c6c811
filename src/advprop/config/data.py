"""Where images come from, and how they are looked at, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from advprop.config.fields import Config
from advprop.data.builtin import BuiltinName, load_builtin
from advprop.data.folders import load_folder
from advprop.data.preprocessing import Augmentation, Interpolation, Preprocessing
from advprop.data.sources import ImageData


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
