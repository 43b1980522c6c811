"""Images of published test sets that are shown as they are stored, or without their frame."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from advprop.data.folders import FileSplit
from advprop.data.listing import MAX_CHECKED_FILES, shortened
from advprop.data.preprocessing import Preprocessing
from advprop.data.reading import image_size


def as_stored(size: int, *, channels: int = 3) -> Preprocessing:
    """Pixels as they are, for square images that are stored at `size` already."""
    # timm's resizing to the size that an image has already is none
    return Preprocessing(image_shape=(channels, size, size), crop_pct=1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredSplit(FileSplit):
    """Images that are tested at the size that they are stored at; `preprocessing` is `as_stored`.

    An image of another size is an error: resizing it would be another test.
    """

    def read(self, index: int) -> Image.Image:
        """The image in file `index`; ValueError names a file of another size."""
        image = super().read(index)
        if problem := self._problem(self.paths[index], image.size):
            raise ValueError(f"{problem}; {self._remedy}")
        return image

    def check_sizes(self) -> None:
        """One ValueError for files of another size, by the headers of `MAX_CHECKED_FILES` files.

        They are spread over the split; the rest is seen when it is read.
        """
        step = -(-len(self.paths) // MAX_CHECKED_FILES)
        checked = self.paths[::step]
        problems = [
            problem for path in checked if (problem := self._problem(path, image_size(path)))
        ]
        if problems:
            raise ValueError(
                f"{len(problems)} of {len(checked)} images that were looked at have another size "
                f"({shortened(problems, 3)}); {self._remedy}"
            )

    def _problem(self, path: str, size: tuple[int, int]) -> str | None:
        _, height, width = self.preprocessing.image_shape
        return None if size == (width, height) else f"{path} is {size[0]}x{size[1]} pixels"

    @property
    def _remedy(self) -> str:
        _, height, width = self.preprocessing.image_shape
        return (
            f"these images are tested as they are stored, at {width}x{height}: take the set as it "
            "was published"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FramedSplit(FileSplit):
    """Images inside a frame of `frame` pixels, which is cut off before anything else is done."""

    frame: int

    def read(self, index: int) -> Image.Image:
        """The image in file `index` without its frame; ValueError names one that is all frame."""
        image = super().read(index)
        width, height = image.size
        if min(width, height) <= 2 * self.frame:
            raise ValueError(
                f"{self.paths[index]} is {width}x{height} pixels, all of them a frame of "
                f"{self.frame}: take the set as it was published"
            )
        return image.crop((self.frame, self.frame, width - self.frame, height - self.frame))
