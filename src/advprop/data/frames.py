"""The position of a view in its source image, by the crop and the flip of a transform."""

from __future__ import annotations

from collections.abc import Sequence
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
"""The frame of a view that is the whole source image, only resized."""


class FramedTransform:
    """A transform of timm that also returns the frame of each view.

    It records the transform's own crop and flip, and changes neither random numbers nor pixels. The
    frame does not include later operations that move pixels, such as a shearing policy.
    """

    def __init__(self, transform: Any) -> None:
        from timm.data.transforms import RandomResizedCropAndInterpolation  # seconds to import
        from torchvision.transforms import RandomHorizontalFlip

        self._transform = transform
        self._flipped = False
        steps = transform.transforms
        if isinstance(steps[0], RandomResizedCropAndInterpolation):
            self._draw = steps[0].get_params
            steps[0].get_params = self._drawn_box  # type: ignore[method-assign]
            if isinstance(steps[1], RandomHorizontalFlip):
                self._flip, steps[1] = steps[1], self._maybe_flipped
        else:  # resize, then centre crop
            self._crop, steps[1] = steps[1], self._centre_cropped

    def __call__(self, image: Image.Image) -> tuple[Tensor, Frame]:
        """Return the view that the transform gives, and its frame."""
        view: Tensor = self._transform(image)
        (top, left, height, width), size = self._box, self._size
        scale_x, scale_y = width / size[0], height / size[1]
        shift_x, shift_y = (2 * left + width) / size[0] - 1, (2 * top + height) / size[1] - 1
        scale_x = -scale_x if self._flipped else scale_x
        return view, (scale_x, 0.0, shift_x, 0.0, scale_y, shift_y)

    def _drawn_box(self, image: Image.Image, *settings: Any) -> Sequence[int]:
        """Draw the box (top, left, height, width) of a random crop."""
        box: Sequence[int] = self._draw(image, *settings)
        self._box, self._size = box, image.size
        return box

    def _maybe_flipped(self, image: Image.Image) -> Any:
        result = self._flip(image)
        self._flipped = result is not image
        return result

    def _centre_cropped(self, image: Image.Image) -> Any:
        width, height = self._size = image.size
        crop_height, crop_width = self._crop.size
        # torchvision rounds the same way
        top, left = round((height - crop_height) / 2.0), round((width - crop_width) / 2.0)
        self._box = top, left, crop_height, crop_width
        return self._crop(image)


def frames_of(frames: Sequence[Frame]) -> Float[Tensor, "batch 2 3"] | None:
    """Return `frames` as one tensor, or None if all views are whole images."""
    if all(frame == WHOLE for frame in frames):
        return None
    return torch.tensor(frames, dtype=torch.float32).view(-1, 2, 3)
