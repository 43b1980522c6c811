"""Types of images, labels, logits and batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

Images: TypeAlias = Float[Tensor, "batch channels height width"]
"""Images with values in [0, 1]; standardisation is a layer of the model."""

StoredImages: TypeAlias = Images | UInt8[Tensor, "batch channels height width"]
"""Images in [0, 1], or the same in bytes (times 255), which take a quarter of the memory."""

Labels: TypeAlias = Int[Tensor, " batch"] | Float[Tensor, "batch classes"]
"""Class indices, or a distribution over the classes for each image (mixup, label smoothing)."""

Logits: TypeAlias = Float[Tensor, "batch classes"]
LogitsFn: TypeAlias = Callable[[Images], Logits]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of images and labels, which a loader yields and a method trains on.

    A loader may yield images in bytes; `to` makes floats of them, which methods need. `labels`
    other than `Labels`, for a task that takes them, are a tensor or a sequence that can be sliced,
    with an entry for each image.

    `indices` are the images' positions in their data set; `copies` number the uses of one image in
    an epoch (0 is the first). `views` holds further versions of the same images by name, for
    methods that learn from them (`Method.views`). `frames` give each image's position in its source
    image: affine maps from its coordinates to those of the source, as in torch's `affine_grid` with
    `align_corners=False`; None if all are whole images. `unreadable` names the files that were
    replaced by other images, and the reason.
    """

    images: StoredImages
    labels: Labels | Any
    indices: Int[Tensor, " batch"] | None = None
    views: Mapping[str, StoredImages] = field(default_factory=dict)
    copies: Int[Tensor, " batch"] | None = None
    frames: Float[Tensor, "batch 2 3"] | None = None
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def view(self, name: str) -> Images:
        """Return the further versions called `name`; raises ValueError if the batch has none."""
        if name not in self.views:
            raise ValueError(
                f'the batch has no view "{name}" (it has {", ".join(self.views) or "none"}): give '
                f"it in Batch.views, or name its augmentation, data.views.{name} in a "
                "configuration; what Method.versions tells of, train_batches makes"
            )
        return self.views[name]

    def to(self, device: torch.device, *, memory_format: torch.memory_format) -> Batch:
        """Return the batch on `device`, images in [0, 1]; the copy does not wait for the device."""

        def move(images: StoredImages) -> Images:
            return unit_range(images.to(device, non_blocking=True, memory_format=memory_format))

        return replace(
            self,
            images=move(self.images),
            labels=self.labels.to(device, non_blocking=True),
            views={name: move(view) for name, view in self.views.items()},
            frames=None if self.frames is None else self.frames.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """Return the same batch in pinned memory, which a device copies asynchronously."""
        return replace(
            self,
            images=self.images.pin_memory(),
            labels=self.labels.pin_memory(),
            views={name: view.pin_memory() for name, view in self.views.items()},
            frames=None if self.frames is None else self.frames.pin_memory(),
        )

    def share_memory(self) -> Batch:
        """Move the batch into shared memory and return it; raises RuntimeError if that is full."""
        others = (self.indices, self.copies, self.frames)
        for tensor in (self.images, self.labels, *self.views.values(), *others):
            if tensor is not None:
                tensor.share_memory_()
        return self


def unit_range(images: Tensor) -> Tensor:
    """Convert bytes to float32 in [0, 1], the same values on every device; floats are unchanged."""
    if images.dtype != torch.uint8:
        return images
    # a tensor: on a GPU torch replaces a division by a number by a product with the rounded inverse
    return images.to(torch.float32).div_(torch.full((), 255.0, device=images.device))


def in_bytes(images: Tensor) -> Tensor:
    """Convert images in [0, 1] to bytes, rounded; bytes are unchanged."""
    if images.dtype == torch.uint8:
        return images
    return (images * 255).round().to(torch.uint8)


def correct_predictions(logits: Logits, labels: Labels) -> Tensor:
    """Return for each image whether the largest logit is that of the (most probable) label."""
    truth = labels if labels.ndim == 1 else labels.argmax(dim=1)
    return logits.argmax(dim=1) == truth
