"""Configurations of data: the source of images and their preprocessing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from advprop.config.fields import Config, Fraction, Place, PlacePattern
from advprop.data.batches.mixing import Mixing
from advprop.data.batches.sampling import Sampling
from advprop.data.preprocessing import Augmentation, Interpolation
from advprop.data.sets.builtin import BuiltinName, load_builtin
from advprop.data.sets.folders import load_folder
from advprop.data.sets.named import load_timm_dataset
from advprop.data.shards.loading import load_shards
from advprop.data.splits import ImageData
from advprop.data.view import View


class BatchesConfig(Config):
    """The base of all sources of images: how batches are sampled and mixed."""

    if TYPE_CHECKING:
        num_train: int | None
        augmentation: Augmentation | None

    sampling: Sampling = Sampling()
    mixing: Mixing = Mixing()

    @property
    def is_here(self) -> bool:
        """Whether the images come with a package, or a path exists at one of their places."""
        given = (getattr(self, name) for name in self.places)
        return not self.places or any(place and Path(place).exists() for place in given)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every image; None if that is known only after loading."""
        return None

    @property
    def view_names(self) -> tuple[str, ...]:
        """The names of the differently augmented views of each training image."""
        return ()

    def places_to_set(self) -> str:
        """Return the command-line options that set the place of the images."""
        return " or ".join(f"--set data.{name}=" for name in self.places)


class DecodedDataConfig(BatchesConfig):
    """The base of all sources of compressed images, with the settings of a `View`.

    Further fields of a subclass are arguments of its `loader`; `needed` holds the name of the field
    with the images' place, and the error message if that field is None.
    """

    loader: ClassVar[Callable[..., ImageData]]
    needed: ClassVar[tuple[str, str]]

    image_size: int = 128
    channels: Literal[1, 3] = 3
    num_train: int | None = Field(default=None, ge=1)
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 0.875
    augmentation: Augmentation | None = Augmentation()
    views: dict[str, Augmentation] = Field(default_factory=dict)
    max_unreadable: Fraction = 0.0

    @model_validator(mode="after")
    def _valid(self) -> Self:
        self.view(0)
        return self

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.channels, self.image_size, self.image_size

    @property
    def view_names(self) -> tuple[str, ...]:
        """The names of `views`."""
        return tuple(self.views)

    def view(self, seed: int) -> View:
        """Return a `View` with the settings above and `seed`."""
        names = {field.name for field in fields(View)} - {"seed"}
        return View(**{name: getattr(self, name) for name in names}, seed=seed)

    def load(self, seed: int) -> ImageData:
        """Load the data set; raises ValueError if no place is given."""
        name, remedy = self.needed
        if getattr(self, name) is None:
            raise ValueError(remedy)
        own = type(self).model_fields.keys() - DecodedDataConfig.model_fields.keys() - {"kind"}
        return self.loader(view=self.view(seed), **{name: getattr(self, name) for name in own})


class BuiltinDataConfig(BatchesConfig):
    """An embedded data set with `num_train` of its training images (None: all).

    `augmentation` is for training; by default images stay as they are.
    """

    kind: Literal["builtin"] = "builtin"
    name: BuiltinName
    num_train: int | None = Field(default=None, ge=1)
    augmentation: Augmentation | None = None

    def load(self, seed: int) -> ImageData:
        """Load the data set; the splits do not depend on the seed."""
        return load_builtin(
            self.name, num_train=self.num_train, augmentation=self.augmentation, seed=seed
        )


class FolderDataConfig(DecodedDataConfig):
    """A folder of images in a layout of `advprop.data.sets.folders.load_folder`."""

    places: ClassVar = ("root",)
    loader = staticmethod(load_folder)
    needed: ClassVar = ("root", "no folder of images named: --set data.root=DIR")

    kind: Literal["folder"] = "folder"
    root: Place | None = None


class TimmDataConfig(DecodedDataConfig):
    """A data set that timm opens by name (`advprop.data.sets.named.load_timm_dataset`)."""

    places: ClassVar = ("root", "name")  # a name may be "hfds/" and a folder
    loader = staticmethod(load_timm_dataset)
    needed: ClassVar = (
        "name",
        "no data set named: --set data.name=torch/cifar10 or hfds/NAME",
    )

    kind: Literal["timm"] = "timm"
    name: str | None = None
    root: Place | None = None
    train: str = "train"
    validation: str | None = None
    test: str | None = "test"
    input_key: str = "image"
    target_key: str = "label"
    download: bool = False

    def absolute(self) -> Self:
        """Return a copy with absolute places, including a name "hfds/FOLDER"."""
        name = f"hfds/{os.path.abspath(self._folder)}" if self._folder else self.name
        return super().absolute().model_copy(update={"name": name})

    def without_places(self) -> Self:
        """Return a copy without places; a name stays unless it is that of a folder."""
        name = None if self._folder else self.name
        return super().without_places().model_copy(update={"name": name})

    @property
    def _folder(self) -> str | None:
        """The folder in a name "hfds/FOLDER", None for the name of a data set."""
        kind, _, folder = (self.name or "").partition("/")
        is_folder = os.path.isabs(folder) or os.path.isdir(folder)
        return folder if kind == "hfds" and is_folder else None


class ShardsDataConfig(DecodedDataConfig):
    """Local WebDataset shards, named as in `advprop.data.shards.loading.load_shards`."""

    places: ClassVar = ("train", "validation", "test", "classes")
    loader = staticmethod(load_shards)
    needed: ClassVar = (
        "train",
        "no shards named: --set data.train=DIR or DIR/train-{0000..0099}.tar",
    )

    kind: Literal["shards"] = "shards"
    train: PlacePattern | None = None
    validation: PlacePattern | None = None
    test: PlacePattern | None = None
    classes: Place | None = None
    shuffle_shards: int = Field(default=8, ge=1)


DataConfig = Annotated[
    BuiltinDataConfig | FolderDataConfig | TimmDataConfig | ShardsDataConfig,
    Field(discriminator="kind"),
]

DATA_KINDS: dict[str, type[BatchesConfig]] = {
    "builtin": BuiltinDataConfig,
    "folder": FolderDataConfig,
    "timm": TimmDataConfig,
    "shards": ShardsDataConfig,
}


def settings_for_kind(data: BatchesConfig, kind: object) -> dict[str, Any]:
    """Return settings for `kind`, as unvalidated plain data; raises ValueError for an unknown kind.

    Settings common to both kinds are those of `data`, others the defaults (None without one).
    """
    if not isinstance(kind, str) or kind not in DATA_KINDS:
        raise ValueError(f'data.kind "{kind}" unknown: choose from {", ".join(DATA_KINDS)}')
    known = data.model_dump(mode="json")
    fields = DATA_KINDS[kind].model_fields
    # "root" and "name" have other meanings for other kinds
    common = fields.keys() & DecodedDataConfig.model_fields.keys() & known.keys()
    if "builtin" in (kind, known["kind"]):
        common -= {"augmentation"}  # what suits photographs does not suit digits
    kept = {name: known[name] for name in common}
    fresh = {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in fields.items()
    }
    # `known` is plain data already, so only the defaults are converted
    return {**TypeAdapter(Any).dump_python(fresh, mode="json"), **kept, "kind": kind}
