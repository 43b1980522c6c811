"""Configurations of data: the source of images and their preprocessing."""

from __future__ import annotations

import os
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from advprop.config.data_base import BatchesConfig, DecodedDataConfig, LabelsDataConfig
from advprop.config.fields import Place, PlacePattern, parse_list
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.builtin import BuiltinName, load_builtin
from advprop.data.sets.folders import load_folder
from advprop.data.sets.named import load_timm_dataset
from advprop.data.sets.table import load_table
from advprop.data.shards.loading import load_shards
from advprop.data.splits import ImageData


class BuiltinDataConfig(BatchesConfig):
    """An embedded data set with `num_train` of its training images (None: all).

    `augmentation` applies to training images; by default there is none.
    """

    kind: Literal["builtin"] = "builtin"
    name: BuiltinName
    num_train: int | None = Field(default=None, ge=1)
    augmentation: Augmentation | None = None

    def load(self, seed: int) -> ImageData:
        """Return the data set; its splits do not depend on `seed`."""
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


class TimmDataConfig(LabelsDataConfig):
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
        """Return the folder in a name "hfds/FOLDER", or None for the name of a data set."""
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


class TableDataConfig(LabelsDataConfig):
    """A CSV file with a column for each label (`advprop.data.sets.table.load_table`)."""

    places: ClassVar = ("table", "root")
    loader = staticmethod(load_table)
    needed: ClassVar = ("table", "no table of labels named: --set data.table=FILE.csv")

    kind: Literal["table"] = "table"
    table: Place | None = None
    root: Place | None = None
    image_column: str | None = None
    label_columns: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = ()
    split_column: str = "split"

    @model_validator(mode="after")
    def _no_classes(self) -> Self:
        self.check_several_labels()
        return self


DataConfig = Annotated[
    BuiltinDataConfig | FolderDataConfig | TimmDataConfig | ShardsDataConfig | TableDataConfig,
    Field(discriminator="kind"),
]

DATA_KINDS: dict[str, type[BatchesConfig]] = {
    "builtin": BuiltinDataConfig,
    "folder": FolderDataConfig,
    "timm": TimmDataConfig,
    "shards": ShardsDataConfig,
    "table": TableDataConfig,
}


def settings_for_kind(data: BatchesConfig, kind: object) -> dict[str, Any]:
    """Return settings for `kind`, as unvalidated plain data; raises ValueError for an unknown kind.

    Settings that both kinds have are those of `data`; others have their default, or None.
    """
    if not isinstance(kind, str) or kind not in DATA_KINDS:
        raise ValueError(f'data.kind "{kind}" unknown: choose from {", ".join(DATA_KINDS)}')
    known = data.model_dump(mode="json")
    fields = DATA_KINDS[kind].model_fields
    # "root" and "name" have other meanings for other kinds
    common = fields.keys() & DecodedDataConfig.model_fields.keys() & known.keys()
    if "builtin" in (kind, known["kind"]):
        # values for photographs do not suit digits
        common -= {"augmentation", "expected_sizes"}
    kept = {name: known[name] for name in common}
    fresh = {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in fields.items()
    }
    # `known` is plain data already, so only the defaults are converted
    return {**TypeAdapter(Any).dump_python(fresh, mode="json"), **kept, "kind": kind}
