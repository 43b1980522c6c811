"""The words for tensors that the whole package shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

Images: TypeAlias = Float[Tensor, "batch channels height width"]
"""Images with values in [0, 1]; standardisation is a layer of the model."""

StoredImages: TypeAlias = Images | UInt8[Tensor, "batch channels height width"]
"""Images, or the same in bytes, a quarter of the memory: 255 times as much."""

Labels: TypeAlias = Int[Tensor, " batch"] | Float[Tensor, "batch classes"]
"""Class indices, or one distribution over the classes an image (mixup, label smoothing)."""

Logits: TypeAlias = Float[Tensor, "batch classes"]
LogitsFn: TypeAlias = Callable[[Images], Logits]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a loader yields and, once `to` has made its images floats, a method trains on.

    `indices` are the images' positions in their data set, `copies` tell the uses of one image in
    an epoch apart (0 is the first); `views` holds further versions of the same images under the
    name of the branch that learns from them (fine-grained AdvProp). `frames` tell where in its
    source image each image lies: affine maps from its coordinates to those of the whole source,
    both as in torch's `affine_grid` with `align_corners=False`; None where each is the whole.
    `unreadable` names the files that other images stand in for, and why.
    """

    images: StoredImages
    labels: Labels
    indices: Int[Tensor, " batch"] | None = None
    views: Mapping[str, StoredImages] = field(default_factory=dict)
    copies: Int[Tensor, " batch"] | None = None
    frames: Float[Tensor, "batch 2 3"] | None = None
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device, *, memory_format: torch.memory_format) -> Batch:
        """The same batch on `device`, images in [0, 1]; the copy does not wait for the device."""

        def move(images: StoredImages) -> Images:
            moved = images.to(device, non_blocking=True, memory_format=memory_format)
            return unit_range(moved)

        return replace(
            self,
            images=move(self.images),
            labels=self.labels.to(device, non_blocking=True),
            views={name: move(view) for name, view in self.views.items()},
            frames=None if self.frames is None else self.frames.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """The same batch in memory from which a device copies without waiting."""
        return replace(
            self,
            images=self.images.pin_memory(),
            labels=self.labels.pin_memory(),
            views={name: view.pin_memory() for name, view in self.views.items()},
            frames=None if self.frames is None else self.frames.pin_memory(),
        )

    def share_memory(self) -> Batch:
        """The same batch, moved into memory that processes share; RuntimeError where it is full."""
        others = (self.indices, self.copies, self.frames)
        for tensor in (self.images, self.labels, *self.views.values(), *others):
            if tensor is not None:
                tensor.share_memory_()
        return self


def unit_range(images: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1], the same numbers on every device; floats as they are."""
    if images.dtype != torch.uint8:
        return images
    # not by a plain number: a GPU would multiply with 1 / 255, which is rounded
    return images.to(torch.float32).div_(torch.full((), 255.0, device=images.device))


def correct_predictions(logits: Logits, labels: Labels) -> Tensor:
    """A boolean an image: is the largest logit that of the (most probable) label?"""
    truth = labels if labels.ndim == 1 else labels.argmax(dim=1)
    return logits.argmax(dim=1) == truth


def margins(logits: Logits, labels: Labels) -> Tensor:
    """For each image the logit of its label minus the largest other; negative where it is wrong."""
    truth = labels if labels.ndim == 1 else labels.argmax(dim=1)
    own = logits.gather(1, truth[:, None])[:, 0]
    return own - logits.scatter(1, truth[:, None], -torch.inf).amax(dim=1)
