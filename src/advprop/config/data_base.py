"""The base classes of configurations of data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from advprop.config.fields import Config, Fraction, parse_list
from advprop.data.batches.mixing import Mixing
from advprop.data.batches.sampling import Sampling
from advprop.data.preprocessing import Augmentation, Interpolation
from advprop.data.splits import ImageData
from advprop.data.view import View
from advprop.tasks.multi_label import MultiLabel
from advprop.tasks.task import Classification, Task


class BatchesConfig(Config):
    """The base of all configurations of data, with the sampling and mixing of batches.

    `expected_sizes` are the numbers of training images and of classes that `plan` assumes if the
    images are missing (None: it loads them).
    """

    if TYPE_CHECKING:
        num_train: int | None
        augmentation: Augmentation | None

    sampling: Sampling = Sampling()
    mixing: Mixing = Mixing()
    expected_sizes: Annotated[
        tuple[PositiveInt, PositiveInt] | None, BeforeValidator(parse_list)
    ] = None

    @property
    def is_here(self) -> bool:
        """Return whether the images come with a package, or one of their places exists."""
        given = (getattr(self, name) for name in self.places)
        return not self.places or any(place and Path(place).exists() for place in given)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Return (channels, height, width) of the images, or None if only loading tells it."""
        return None

    @property
    def view_names(self) -> tuple[str, ...]:
        """Return the names of the differently augmented views of each training image."""
        return ()

    def task(self, data: ImageData, label_smoothing: float) -> Task:
        """Return the task that a model learns from `data`."""
        return Classification.smoothed(label_smoothing)

    def places_to_set(self) -> str:
        """Return the command-line options that set the place of the images."""
        return " or ".join(f"--set data.{name}=" for name in self.places)


class DecodedDataConfig(BatchesConfig):
    """The base of configurations of compressed images, with the settings of a `View`.

    Further fields of a subclass are arguments of its `loader`. `needed` is the name of the field
    for the images' place, and the error message if that field is None.
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
        """Return (channels, height, width) of the images."""
        return self.channels, self.image_size, self.image_size

    @property
    def view_names(self) -> tuple[str, ...]:
        """Return the names of `views`."""
        return tuple(self.views)

    def view(self, seed: int) -> View:
        """Return a `View` with the settings above and `seed`."""
        names = {field.name for field in fields(View)} - {"seed"}
        return View(**{name: getattr(self, name) for name in names}, seed=seed)

    def load(self, seed: int) -> ImageData:
        """Return the data set; raises ValueError if no place is given."""
        name, remedy = self.needed
        if getattr(self, name) is None:
            raise ValueError(remedy)
        own = type(self).model_fields.keys() - DecodedDataConfig.model_fields.keys()
        own -= {"kind", "balanced"}
        return self.loader(view=self.view(seed), **{name: getattr(self, name) for name in own})


class LabelsDataConfig(DecodedDataConfig):
    """The base of configurations of images that may have several labels each.

    With `balanced`, the present and absent cases of a label get the same total weight in training.
    """

    balanced: bool = False

    def task(self, data: ImageData, label_smoothing: float) -> Task:
        """Return the task that a model learns from `data`: its classes, or each of its labels.

        Raises ValueError if a setting needs classes and the images have labels, or vice versa.
        """
        if not data.multi_label:
            if self.balanced:
                raise ValueError(
                    f"data.balanced weighs several labels an image, {data.name} has one class: set "
                    "it to false; data.sampling.class_balanced draws classes equally often"
                )
            return super().task(data, label_smoothing)
        self.check_several_labels()
        if not self.balanced:
            return MultiLabel(label_smoothing=label_smoothing)
        present, absent = ((data.train.labels == value).sum(dim=0) for value in (1, 0))
        weights = tuple((absent / present.clamp(min=1)).tolist())
        return MultiLabel(weights, label_smoothing)

    def check_several_labels(self) -> None:
        """Raise ValueError if a setting needs one class for each image."""
        if self.mixing.is_on or self.sampling.class_balanced:
            raise ValueError(
                "mixup, cutmix and class_balanced need one class an image, these images have "
                "several labels: switch them off"
            )
