"""Data sets of Hugging Face and torchvision that timm opens with access by index."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from advprop.data.decoding import DecodedSplit
from advprop.data.reading import named_errors, open_image, upright


class Records(ABC):
    """Images and labels by position, in the order of their source."""

    name: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image(self, position: int, channels: int) -> Image.Image:
        """Return the upright image at `position`; raises any exception if it is unreadable."""

    @abstractmethod
    def labels(self) -> list[Any]:
        """Return every image's label without reading the images."""

    @abstractmethod
    def class_names(self) -> tuple[str, ...] | None:
        """Return the names of the labels 0, 1, ..., or None if the source has none."""


@dataclass(frozen=True, eq=False)
class HubRecords(Records):
    """A data set of the package `datasets`, opened by timm's reader."""

    name: str
    reader: Any

    def __len__(self) -> int:
        return len(self.reader)

    def image(self, position: int, channels: int) -> Image.Image:
        """Return the image of the row at `position`, decoded from bytes or a file."""
        file, _ = self.reader[position]
        with file, open_image(file) as image:
            return upright(image, channels)

    def labels(self) -> list[Any]:
        """Return the column of labels."""
        key = self.reader.label_key
        return list(self.reader.dataset.select_columns([key])[:][key])

    def class_names(self) -> tuple[str, ...] | None:
        """Return the names of the label column's `ClassLabel`, or None if it is none."""
        return tuple(self.reader.class_to_idx) or None


@dataclass(frozen=True, eq=False)
class TorchRecords(Records):
    """A data set of torchvision whose items are pairs of a Pillow image and a label."""

    name: str
    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def image(self, position: int, channels: int) -> Image.Image:
        """Return the image of the pair at `position`."""
        image, _ = self.dataset[position]
        return upright(image, channels)

    def labels(self) -> list[Any]:
        """Return `targets`, which all sets that timm opens have, except iNaturalist's.

        Raises ValueError if there are none.
        """
        targets = getattr(self.dataset, "targets", None)
        if targets is None:
            raise ValueError(f"{self.name} lists no labels: export it as a folder of images")
        return torch.as_tensor(targets).tolist()

    def class_names(self) -> tuple[str, ...] | None:
        """Return `classes`, the first name if a class has several, or None if there are none."""
        names = getattr(self.dataset, "classes", None) or []
        return tuple(name if isinstance(name, str) else name[0] for name in names) or None


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordSplit(DecodedSplit):
    """A split of the records at `positions`, shape [num_images]."""

    per_image: ClassVar = ("positions",)

    records: Records
    positions: Int[Tensor, " num_images"]

    def read(self, index: int) -> Image.Image:
        """Return image `index` of the split; raises ValueError if it cannot be read."""
        position = int(self.positions[index])
        with named_errors(f"{self.records.name}[{position}]"):
            return self.records.image(position, self.preprocessing.image_shape[0])

    def hashed_names(self) -> list[str]:
        """Return the images' positions in the source, as text."""
        return [str(position) for position in self.positions.tolist()]

    def stored(self, index: int) -> bytes:
        """Return the decoded pixels, since not all sources give access to the encoded bytes."""
        return self.read(index).tobytes()


def open_records(
    name: str,
    split: str,
    *,
    root: str | Path | None = None,
    columns: tuple[str, str] = ("image", "label"),
    download: bool = False,
) -> Records:
    """Open one split of the data set that timm calls `name`: "hfds/..." or "torch/...".

    `columns` name images and labels (Hugging Face only); `download` is for torchvision only. Raises
    ImportError if the package `datasets` is missing, and ValueError for another kind of name, or if
    the data set, split or column is missing (with the library's own reason).
    """
    kind, _, rest = name.partition("/")
    if kind not in ("hfds", "torch") or not rest:
        raise ValueError(
            f"name={name!r}: write hfds/NAME for a data set of Hugging Face (a name of the hub or "
            "a local folder) or torch/NAME for one of torchvision; other kinds only stream their "
            "images, which cannot be resumed exactly"
        )
    title, folder = f"{name} {split}", str(root) if root else None
    if kind == "torch":
        return TorchRecords(title, _opened(name, folder, split, download=download))
    if importlib.util.find_spec("datasets") is None:
        raise ImportError(f'{name} needs the package datasets: pip install "advprop[data]"')
    input_key, target_key = columns
    reader = _opened(name, folder, split, input_key=input_key, target_key=target_key).reader
    # timm adds an empty column if there is none of that name
    rows = reader.dataset.with_format("arrow")[:1].to_pylist()
    filled = [column for row in rows for column, value in row.items() if value is not None]
    if not {input_key, target_key} <= set(filled):
        raise ValueError(
            f"{title} has no images in input_key={input_key!r} or no labels in "
            f"target_key={target_key!r}; its first row has {', '.join(filled) or 'nothing'}"
        )
    return HubRecords(title, reader)


def _opened(name: str, root: str | None, split: str, **options: Any) -> Any:
    from timm.data import create_dataset  # seconds to import

    try:
        return create_dataset(name, root=root, split=split, **options)
    except Exception as error:  # each library has errors of its own
        raise ValueError(
            f"cannot open the {split!r} split of {name} (root={root}): "
            f"{str(error) or type(error).__name__}"
        ) from error
