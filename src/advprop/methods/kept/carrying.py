"""Use the stored perturbations of a training's images, and store them anew."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from advprop.attacks.threat_models import ThreatModel
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.methods.kept.encoding import Precision
from advprop.methods.kept.frames import Perturbed
from advprop.methods.kept.store import PerturbationStore
from advprop.methods.step import Context
from advprop.randomness import of_part
from advprop.shapes import Batch, Images

NO_MIXTURES = (
    "each image carries a perturbation, and mixup and CutMix make images of two: set "
    "data.mixing.mixup=0 and data.mixing.cutmix=0, or train another method"
)
_FILE = "perturbations.bin"


@dataclass(frozen=True, kw_only=True)
class Carrying:
    """A store of perturbations for a training's images, and its use by batches.

    An image's first perturbation is a random point of `threat_model` if `start` is "random", or
    zero. With `first_copies` only the first use of an image in an epoch stores its perturbation.
    """

    store: PerturbationStore
    threat_model: ThreatModel
    start: Literal["random", "zero"]
    first_copies: bool

    @classmethod
    def for_training(
        cls,
        facts: TrainingFacts,
        threat_model: ThreatModel,
        *,
        precision: Precision,
        start: Literal["random", "zero"],
    ) -> Carrying:
        """Return the perturbations of a training.

        They are in a file of `facts.folder`, or in memory if that is None. Raises ValueError if
        images are mixtures of two, or if several machines, or several processes without a folder,
        could not share what they store.
        """
        _check(facts)
        store = PerturbationStore(
            num_images=facts.num_images,
            shape=facts.image_shape,
            epsilon=threat_model.epsilon,
            precision=precision,
            seed=facts.seed,
            path=None if facts.folder is None else facts.folder / _FILE,
        )
        # several processes may have copies of one image in the same step, and only one may write
        first_copies = facts.num_processes > 1
        return cls(store=store, threat_model=threat_model, start=start, first_copies=first_copies)

    def perturbed(self, batch: Batch, context: Context, *, first: int = 0) -> Perturbed:
        """Return the images from row `first` on, with their stored perturbations."""
        images = batch.images[first:]
        frames = None if batch.frames is None else batch.frames[first:]
        if images.is_meta:  # meta tensors have no values to read or store
            return Perturbed(images, torch.zeros_like(images), frames, self.threat_model)
        return Perturbed(images, self._kept(batch, context, first), frames, self.threat_model)

    def _kept(self, batch: Batch, context: Context, first: int = 0) -> Images:
        """Return the perturbations of the images from row `first` on, in the sources' frames."""
        values, new = self.store.read(self._indices(batch)[first:], context.epoch)
        device = batch.images.device
        if device.type == "cuda":
            values = values.pin_memory()  # else the copy would wait for the previous step
        kept = self.store.encoding.decoded(values.to(device, non_blocking=True))
        if len(new) and self.start == "random":
            generator = of_part(context.generator, [first + row for row in new.tolist()])
            place = new.to(device, non_blocking=True)
            kept[place] = self.threat_model.random_start(kept[place], generator=generator)
        return kept

    def carry(self, batch: Batch, moved: Tensor, context: Context, *, first: int = 0) -> None:
        """Store `moved`, the perturbations of the images from `first` on, for their next epoch."""
        if moved.is_meta:
            return
        indices = self._indices(batch)[first:]
        if self.first_copies and batch.copies is not None:
            own = (batch.copies[first:].cpu() == 0).nonzero().flatten()
            moved, indices = moved[own.to(moved.device)], indices[own]
        # not late on several processes: the first one's checkpoint relies on the writes of all
        self.store.write(indices, moved, context.epoch, late=not self.first_copies)

    def _indices(self, batch: Batch) -> Int[Tensor, " batch"]:
        shape = tuple(batch.images.shape[1:])
        if shape != self.store.shape:
            raise ValueError(
                f"images of shape {shape}, perturbations are kept for {self.store.shape}: give "
                "images of that shape, or prepare the method for these"
            )
        if batch.indices is None:
            raise ValueError(
                "the batch has no indices, by which perturbations are kept: give each image's "
                "place in its data set, advprop.Batch(images=..., labels=..., indices=...)"
            )
        return batch.indices.cpu()


@dataclass(frozen=True, kw_only=True)
class CarryingMethod(Method):
    """A method that stores a perturbation for each training image; needs a call of `prepare`.

    `dataclasses.replace` gives a method that is not prepared and remembers nothing.
    """

    not_deterministic: ClassVar[str | None] = "grid_sample's backward pass"

    memory: dict[str, Carrying] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def takes_mixtures(self) -> bool:
        """Return False, since each image has a perturbation of its own."""
        return False

    @abstractmethod
    def carrying_for(self, facts: TrainingFacts) -> Carrying:
        """Return `Carrying.for_training` with this method's settings."""

    def prepare(self, facts: TrainingFacts) -> None:
        """Create the store of perturbations; raises ValueError as `Carrying.for_training`."""
        self.memory["all"] = self.carrying_for(facts)

    def bytes_on_disk(self, facts: TrainingFacts) -> int:
        """Return the size in bytes of two perturbations for each image."""
        return self.carrying_for(facts).store.num_bytes

    def carrying(self, batch: Batch) -> Carrying:
        """The perturbations that `prepare` made; raises ValueError if it has not been called."""
        if not self.memory:
            raise ValueError(
                f"{type(self).__name__} keeps a perturbation for each image, and must be told of "
                "them: call method.prepare(advprop.TrainingFacts(num_images=..., "
                f"image_shape={tuple(batch.images.shape[1:])})) before the first step"
            )
        return self.memory["all"]

    def state_dict(self) -> dict[str, Any]:
        """Return the store's identity and, unless a file has them, its perturbations."""
        return self.memory["all"].store.state_dict() if self.memory else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the perturbations of `state_dict`.

        Raises ValueError if `prepare` has not been called or the store is another one, OSError if
        its file is missing or damaged.
        """
        if not self.memory:
            raise ValueError("prepare the method before its state is loaded")
        self.memory["all"].store.load_state_dict(state)


def _check(facts: TrainingFacts) -> None:
    if facts.mixes_images:
        raise ValueError(NO_MIXTURES)
    if facts.num_machines > 1:
        raise ValueError(
            f"perturbations carried by {facts.num_machines} machines: an image is seen by another "
            "one in its next epoch, and they do not share what they keep; train on one machine, or "
            "another method (fast costs little more)"
        )
    if facts.num_processes > 1 and facts.folder is None:
        raise ValueError(
            f"perturbations carried by {facts.num_processes} processes without a folder: they must "
            "share a file; give TrainingFacts a folder"
        )
