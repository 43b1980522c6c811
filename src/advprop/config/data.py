"""Where images come from, and how they are looked at, as data."""

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
    """What every source of images has in common: how batches are drawn and mixed."""

    if TYPE_CHECKING:
        num_train: int | None

    sampling: Sampling = Sampling()
    mixing: Mixing = Mixing()

    @property
    def is_here(self) -> bool:
        """Whether the images come with a package, or something lies at one of their places."""
        given = (getattr(self, name) for name in self.places)
        return not self.places or any(place and Path(place).exists() for place in given)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every image; None where loading alone tells."""
        return None

    @property
    def view_names(self) -> tuple[str, ...]:
        """The further versions that there are of each training image."""
        return ()

    def places_to_set(self) -> str:
        """The options of the command line that tell where the images lie."""
        return " or ".join(f"--set data.{name}=" for name in self.places)


class DecodedDataConfig(BatchesConfig):
    """The base of all sources of compressed images: how they are looked at (`View`).

    Further fields of a subclass are arguments of its `loader`; `needed` is the one that says where
    the images are, and the message where it is None.
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
        """The settings above, by the names of its own, and `seed`."""
        names = {field.name for field in fields(View)} - {"seed"}
        return View(**{name: getattr(self, name) for name in names}, seed=seed)

    def load(self, seed: int) -> ImageData:
        """List the images and finish the set; raises ValueError if none was named."""
        name, remedy = self.needed
        if getattr(self, name) is None:
            raise ValueError(remedy)
        own = type(self).model_fields.keys() - DecodedDataConfig.model_fields.keys() - {"kind"}
        return self.loader(view=self.view(seed), **{name: getattr(self, name) for name in own})


class BuiltinDataConfig(BatchesConfig):
    """An embedded data set, `num_train` of its training images (None: all)."""

    kind: Literal["builtin"] = "builtin"
    name: BuiltinName
    num_train: int | None = Field(default=None, ge=1)

    def load(self, seed: int) -> ImageData:
        """Load it; the splits do not depend on the seed."""
        return load_builtin(self.name, num_train=self.num_train)


class FolderDataConfig(DecodedDataConfig):
    """A folder of images (`advprop.data.sets.folders.load_folder` says how it may be laid out)."""

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
        """The same with absolute places; a name is one where it is that of a folder."""
        name = f"hfds/{os.path.abspath(self._folder)}" if self._folder else self.name
        return super().absolute().model_copy(update={"name": name})

    def without_places(self) -> Self:
        """The same for other people; a name that is no folder's stays."""
        name = None if self._folder else self.name
        return super().without_places().model_copy(update={"name": name})

    @property
    def _folder(self) -> str | None:
        """The folder that the name is of, None for the name of a data set."""
        kind, _, folder = (self.name or "").partition("/")
        is_folder = os.path.isabs(folder) or os.path.isdir(folder)
        return folder if kind == "hfds" and is_folder else None


class ShardsDataConfig(DecodedDataConfig):
    """Local WebDataset shards, named as `advprop.data.shards.loading.load_shards` says."""

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
    """What all kinds of sources have in common as in `data`, the rest as the kind's defaults.

    Plain data, to be validated; what has no default is None. ValueError: an unknown kind.
    """
    if not isinstance(kind, str) or kind not in DATA_KINDS:
        raise ValueError(f'data.kind "{kind}" unknown: choose from {", ".join(DATA_KINDS)}')
    known = data.model_dump(mode="json")
    fields = DATA_KINDS[kind].model_fields
    # a folder's root or a set's name mean something else elsewhere
    common = fields.keys() & DecodedDataConfig.model_fields.keys() & known.keys()
    kept = {name: known[name] for name in common}
    fresh = {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in fields.items()
    }
    # the parts in common are plain already; what is left of the defaults are plain values
    return {**TypeAdapter(Any).dump_python(fresh, mode="json"), **kept, "kind": kind}
