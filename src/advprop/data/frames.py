"""The position of a view in its source image, by the crop and the flip of a transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

Frame: TypeAlias = tuple[float, float, float, float, float, float]
"""An affine map, row by row, from a view's coordinates to those of its whole source image.

Coordinates run from -1 to 1 between the outer edges of an image, x to the right and y down, as in
torch's `affine_grid` with `align_corners=False`.
"""

WHOLE: Frame = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The view is the source image, only resized."""


class FramedTransform:
    """A transform of timm that also returns the frame of each view.

    It records the transform's own crop and flip, and changes neither random numbers nor pixels. The
    frame does not include later operations that move pixels, such as a shearing policy.
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
        else:  # resize, then centre crop
            steps[1] = _Step(steps[1])
            self._box = _CentreBox(steps[1])

    def __call__(self, image: Image.Image) -> tuple[Tensor, Frame]:
        """Return the view that the transform gives, and its frame."""
        view: Tensor = self._transform(image)
        box, size = self._box.last()
        return view, _frame(box, size, flipped=self._flip is not None and self._flip.changed)


def frames_of(frames: Sequence[Frame]) -> Float[Tensor, "batch 2 3"] | None:
    """Return `frames` as one tensor, or None if all views are whole images."""
    if all(frame == WHOLE for frame in frames):
        return None
    return torch.tensor(frames, dtype=torch.float32).view(-1, 2, 3)


def _frame(box: Sequence[int], size: tuple[int, int], *, flipped: bool) -> Frame:
    """Return the frame of `box` (top, left, height, width) in images of `size` (width, height)."""
    top, left, height, width = box
    scale_x, scale_y = width / size[0], height / size[1]
    shift_x, shift_y = (2 * left + width) / size[0] - 1, (2 * top + height) / size[1] - 1
    return (-scale_x if flipped else scale_x, 0.0, shift_x, 0.0, scale_y, shift_y)


class _RandomBox:
    """Replaces a crop's `get_params` and records its last result."""

    def __init__(self, draw: Callable[..., Sequence[int]]) -> None:
        self._draw = draw
        self._last: tuple[Sequence[int], tuple[int, int]] = ((0, 0, 1, 1), (1, 1))

    def __call__(self, image: Image.Image, *settings: Any) -> Sequence[int]:
        box = self._draw(image, *settings)
        self._last = box, image.size
        return box

    def last(self) -> tuple[Sequence[int], tuple[int, int]]:
        """Return the box of the last image, and that image's size."""
        return self._last


class _CentreBox:
    """Computes the box that torchvision's `CenterCrop` cuts out of a large enough image."""

    def __init__(self, crop: _Step) -> None:
        self._crop = crop

    def last(self) -> tuple[Sequence[int], tuple[int, int]]:
        """Return the box in the last image after resizing, and the size of that resized image."""
        width, height = self._crop.size
        crop_height, crop_width = self._crop.step.size
        # torchvision rounds the same way
        top, left = round((height - crop_height) / 2.0), round((width - crop_width) / 2.0)
        return (top, left, crop_height, crop_width), self._crop.size


class _Step:
    """A step of a transform that records its last image's size and whether it changed the image."""

    def __init__(self, step: Any) -> None:
        self.step = step
        self.size = (1, 1)
        self.changed = False

    def __call__(self, image: Image.Image) -> Any:
        result = self.step(image)
        self.size, self.changed = image.size, result is not image
        return result
