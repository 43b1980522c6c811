"""Make a data set from the listed images of any source, with the settings of one view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from advprop.data.decoding import DecodedSplit
from advprop.data.listing.classes import check_readable
from advprop.data.listing.selection import first_stratified, shared_positions
from advprop.data.listing.sharing import SHARES
from advprop.data.preprocessing import Augmentation, Interpolation, Preprocessing
from advprop.data.splits import ImageData, Origin

Split = TypeVar("Split", bound=DecodedSplit)


@dataclass(frozen=True, kw_only=True)
class View:
    """Settings for the images of a data set from any source.

    Images are square, with edges of `image_size` pixels and 1 (grey) or 3 `channels`.
    `augmentation` is for training, seeded by `seed`; `views` make further versions of each training
    image, by name. `num_train` images are used for training, with the classes in proportion (None:
    all). `max_unreadable` is the share of the training images that may be unreadable and are then
    replaced by others. Raises ValueError for settings out of bounds.
    """

    image_size: int
    channels: int = 3
    num_train: int | None = None
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 0.875
    augmentation: Augmentation | None = None
    views: Mapping[str, Augmentation] = field(default_factory=dict)
    seed: int = 0
    max_unreadable: float = 0.0

    def __post_init__(self) -> None:
        _ = self.preprocessing  # checks its own bounds
        if not 0 <= self.max_unreadable < 1:
            raise ValueError(
                f"max_unreadable={self.max_unreadable:g}: the share of training images that may be "
                "unreadable, at least 0 (none may be) and below 1"
            )

    @property
    def preprocessing(self) -> Preprocessing:
        """Return the preprocessing of images for evaluation."""
        return Preprocessing(
            image_shape=(self.channels, self.image_size, self.image_size),
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
        )


def image_data(
    splits: Mapping[str, Split],
    view: View,
    *,
    name: str,
    class_names: Sequence[str],
    origin: Origin,
) -> ImageData:
    """Return the data set of `splits`, completed, checked, and with the settings of `view`.

    A missing "validation" is split off "train"; so is "test" if both are missing. Raises ValueError
    if there are too few images, and one that lists all unreadable files. Training images are not
    opened here if some of them may be unreadable.
    """
    splits = _completed(splits)
    check_splits(*(splits[name] for name in splits if name != "train" or not view.max_unreadable))
    train = splits["train"]
    if view.num_train is not None:
        names = train.hashed_names()
        train = train.taken(sorted(first_stratified(train.strata, names, view.num_train)))
    return ImageData(
        name=name,
        class_names=tuple(class_names),
        preprocessing=view.preprocessing,
        train=replace(
            train,
            augmentation=view.augmentation,
            views=view.views,
            seed=view.seed,
            max_unreadable=view.max_unreadable,
        ),
        validation=splits["validation"],
        test=splits.get("test"),
        origin=origin,
    )


def check_splits(*splits: DecodedSplit) -> None:
    """Raise one ValueError that lists all images with unreadable headers, as `check_readable`."""
    problems = (split.header_problem(index) for split in splits for index in range(len(split)))
    check_readable(sum(map(len, splits)), problems)


def _completed(splits: Mapping[str, Split]) -> Mapping[str, Split]:
    if "validation" in splits:
        return splits
    train = splits["train"]
    shares = {part: SHARES[part] for part in SHARES if part == "train" or part not in splits}
    parts = shared_positions(train.strata, train.hashed_names(), shares)
    return {**splits, **{part: train.taken(positions) for part, positions in parts.items()}}
