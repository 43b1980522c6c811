"""Where in its source image a view lies: what the crop and the flip of a transform drew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

Frame: TypeAlias = tuple[float, float, float, float, float, float]
"""An affine map, row by row, from a view's coordinates to those of its whole source image.

Both run from -1 to 1 between the outer edges of an image, x to the right and y down, as those of
torch's `affine_grid` with `align_corners=False`.
"""

WHOLE: Frame = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The view is the source image, only resized."""


class FramedTransform:
    """A transform of timm's that tells the frame of each view too.

    It listens to the transform's own crop and flip: no random number and no pixel changes. What
    comes after them (a policy that shears, say) may move pixels too; the frame does not follow.
    """

    def __init__(self, transform: Any) -> None:
        from timm.data.transforms import RandomResizedCropAndInterpolation  # seconds to import
        from torchvision.transforms import RandomHorizontalFlip

        self._transform = transform
        steps = transform.transforms
        self._box: _RandomBox | _CentreBox
        self._flip: _Step | None = None
        if isinstance(steps[0], RandomResizedCropAndInterpolation):
            self._box = _RandomBox(steps[0].get_params)
            steps[0].get_params = self._box  # type: ignore[method-assign]
            if isinstance(steps[1], RandomHorizontalFlip):
                self._flip = steps[1] = _Step(steps[1])
        else:  # resized, then the centre
            steps[1] = _Step(steps[1])
            self._box = _CentreBox(steps[1])

    def __call__(self, image: Image.Image) -> tuple[Tensor, Frame]:
        """The view as the transform gives it, and its frame."""
        view: Tensor = self._transform(image)
        box, size = self._box.last()
        return view, _frame(box, size, flipped=self._flip is not None and self._flip.changed)


def frames_of(frames: Sequence[Frame]) -> Float[Tensor, "batch 2 3"] | None:
    """`frames` as a batch holds them, None where all views are the whole image."""
    if all(frame == WHOLE for frame in frames):
        return None
    return torch.tensor(frames, dtype=torch.float32).view(-1, 2, 3)


def _frame(box: Sequence[int], size: tuple[int, int], *, flipped: bool) -> Frame:
    """Of a crop `box` (top, left, height, width) in an image of `size` (width, height)."""
    top, left, height, width = box
    scale_x, scale_y = width / size[0], height / size[1]
    shift_x, shift_y = (2 * left + width) / size[0] - 1, (2 * top + height) / size[1] - 1
    return (-scale_x if flipped else scale_x, 0.0, shift_x, 0.0, scale_y, shift_y)


class _RandomBox:
    """Stands in for a crop's `get_params`, and remembers what it gave."""

    def __init__(self, draw: Callable[..., Sequence[int]]) -> None:
        self._draw = draw
        self._last: tuple[Sequence[int], tuple[int, int]] = ((0, 0, 1, 1), (1, 1))

    def __call__(self, image: Image.Image, *settings: Any) -> Sequence[int]:
        box = self._draw(image, *settings)
        self._last = box, image.size
        return box

    def last(self) -> tuple[Sequence[int], tuple[int, int]]:
        """The box of the last image, and that image's size."""
        return self._last


class _CentreBox:
    """The box that torchvision's `CenterCrop` cuts out of an image at least as large."""

    def __init__(self, crop: _Step) -> None:
        self._crop = crop

    def last(self) -> tuple[Sequence[int], tuple[int, int]]:
        """The box of the last image, after it was resized, and its size then."""
        width, height = self._crop.size
        crop_height, crop_width = self._crop.step.size
        # as torchvision rounds
        top, left = round((height - crop_height) / 2.0), round((width - crop_width) / 2.0)
        return (top, left, crop_height, crop_width), self._crop.size


class _Step:
    """A step of a transform, the size of the last image it was given, and whether it changed it."""

    def __init__(self, step: Any) -> None:
        self.step = step
        self.size = (1, 1)
        self.changed = False

    def __call__(self, image: Image.Image) -> Any:
        result = self.step(image)
        self.size, self.changed = image.size, result is not image
        return result
