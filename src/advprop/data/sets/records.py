"""Data sets of Hugging Face and torchvision that timm opens with access by index."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from advprop.data.decoding import DecodedSplit
from advprop.data.reading import named_errors, open_image, upright


@dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """The images and labels of one split of a data set, in the order of their source.

    `labels` has a label or a list of labels for each image; `class_names` are those of the labels
    0, 1, ..., or None if the source has none. `image` returns the upright image at a position with
    1 or 3 channels, and raises any exception if it is unreadable.
    """

    name: str
    labels: Sequence[Any]
    class_names: tuple[str, ...] | None
    image: Callable[[int, int], Image.Image]


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordSplit(DecodedSplit):
    """The images at `positions` of the `Records` called `source`, whose `image` is `record`."""

    per_image: ClassVar = ("positions",)

    source: str
    record: Callable[[int, int], Image.Image]
    positions: Int[Tensor, " num_images"]

    def read(self, index: int) -> Image.Image:
        """Return image `index` of the split; raises ValueError if it cannot be read."""
        position = int(self.positions[index])
        with named_errors(f"{self.source}[{position}]"):
            return self.record(position, self.preprocessing.image_shape[0])

    def hashed_names(self) -> list[str]:
        """Return the images' positions in the source, as text."""
        return [str(position) for position in self.positions.tolist()]

    def stored(self, index: int) -> bytes:
        """Return the decoded pixels, since not all sources give access to the encoded bytes."""
        return self.read(index).tobytes()


def open_records(
    name: str, split: str, *, root: str | Path | None, columns: tuple[str, str], download: bool
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
        return _of_torchvision(title, _opened(name, folder, split, download=download))
    if importlib.util.find_spec("datasets") is None:
        raise ImportError(f'{name} needs the package datasets: pip install "advprop[data]"')
    input_key, target_key = columns
    reader = _opened(name, folder, split, input_key=input_key, target_key=target_key).reader
    return _of_hub(title, reader, input_key, target_key)


def _of_torchvision(name: str, dataset: Any) -> Records:
    # all sets that timm opens have `targets`, except iNaturalist's
    if (targets := getattr(dataset, "targets", None)) is None:
        raise ValueError(f"{name} lists no labels: export it as a folder of images")
    names = getattr(dataset, "classes", None) or []  # a class may have several
    return Records(
        name=name,
        labels=torch.as_tensor(targets).tolist(),
        class_names=tuple(own if isinstance(own, str) else own[0] for own in names) or None,
        image=partial(_torchvision_image, dataset),
    )


def _torchvision_image(dataset: Any, position: int, channels: int) -> Image.Image:
    image, _ = dataset[position]
    return upright(image, channels)


def _of_hub(name: str, reader: Any, input_key: str, target_key: str) -> Records:
    # timm adds an empty column if there is none of that name
    rows = reader.dataset.with_format("arrow")[:1].to_pylist()
    filled = [column for row in rows for column, value in row.items() if value is not None]
    if not {input_key, target_key} <= set(filled):
        raise ValueError(
            f"{name} has no images in input_key={input_key!r} or no labels in "
            f"target_key={target_key!r}; its first row has {', '.join(filled) or 'nothing'}"
        )
    return Records(
        name=name,
        labels=list(reader.dataset.select_columns([target_key])[:][target_key]),
        class_names=tuple(reader.class_to_idx) or None,
        image=partial(_hub_image, reader),
    )


def _hub_image(reader: Any, position: int, channels: int) -> Image.Image:
    file, _ = reader[position]
    with file, open_image(file) as image:
        return upright(image, channels)


def _opened(name: str, root: str | None, split: str, **options: Any) -> Any:
    from timm.data import create_dataset  # seconds to import

    try:
        return create_dataset(name, root=root, split=split, **options)
    except Exception as error:  # each library has errors of its own
        raise ValueError(
            f"cannot open the {split!r} split of {name} (root={root}): "
            f"{str(error) or type(error).__name__}"
        ) from error
