"""AdvProp at vanilla's cost: the pass that trains on an image also improves its perturbation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from advprop.attacks.pgd import check_images
from advprop.attacks.threat_models import ThreatModel
from advprop.auxiliary.route import CLEAN
from advprop.methods.attacked_fraction import check_fraction, num_clean
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.methods.kept.encoding import precision_for
from advprop.methods.kept.frames import Perturbed
from advprop.methods.kept.store import PerturbationStore
from advprop.methods.learning import learn
from advprop.methods.step import ADVERSARIAL, Context, StepMetrics, perturbation_size
from advprop.methods.vanilla import Vanilla
from advprop.randomness import of_part
from advprop.shapes import Batch, Images

NO_MIXTURES = (
    "each image carries a perturbation, and mixup and CutMix make images of two: set "
    "data.mixing.mixup=0 and data.mixing.cutmix=0, or train another method"
)
_FILE = "perturbations.bin"


@dataclass(frozen=True, kw_only=True)
class AdvPropLean(Method):
    """Trains on clean and perturbed images in one batch, one pass each, without an attack.

    The last images of each batch, `attacked_fraction` of it (rounded), are adversarial only, the
    others clean only. All go through the same layers, and the loss is the mean over the batch. An
    adversarial image is perturbed as it was left at its last use, at first by a random point of
    `threat_model`. The pass that learns from it also gives the gradient with respect to the image:
    a step of `step_size` (None: epsilon) up the loss improves the perturbation for the next use.

    Perturbations are stored in the frame of the whole source image, and shown with the crop and
    flip of the image's present view (`Batch.frames`). Values are int8 for `Linf`, else float16.

    Needs a call of `prepare`, and batches with `indices`. `dataclasses.replace` gives a method that
    is not prepared and remembers nothing. Raises ValueError for settings out of bounds.
    """

    needs_backward: ClassVar[bool] = True

    threat_model: ThreatModel
    step_size: float | None = None
    attacked_fraction: float = 0.25
    memory: dict[str, PerturbationStore] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_fraction(self.attacked_fraction)
        size, smallest = self._step_size, self.threat_model.epsilon / 127
        if not (math.isfinite(size) and size >= 0):
            raise ValueError(f"step_size {size}: give a number of at least 0")
        if precision_for(self.threat_model) == "int8" and 0 < size < smallest:
            raise ValueError(
                f"step_size {size:g} is less than perturbations in int8 can keep, epsilon / 127 = "
                f"{smallest:g}: take a larger one"
            )

    @property
    def _step_size(self) -> float:
        return self.threat_model.epsilon if self.step_size is None else self.step_size

    @property
    def passes_per_image(self) -> float:
        """Return 1, as for vanilla."""
        return 1.0

    @property
    def takes_mixtures(self) -> bool:
        """Return False, since each image has a perturbation of its own."""
        return False

    def prepare(self, facts: TrainingFacts) -> None:
        """Create the store of perturbations, in a file of `facts.folder`, or in memory if None.

        Raises ValueError if the training mixes images, has several machines, or has several
        processes without a folder or with repeated images.
        """
        _check(facts)
        self.memory["store"] = self._store_for(facts)

    def bytes_on_disk(self, facts: TrainingFacts) -> int:
        """Return the size in bytes of two perturbations for each image."""
        return self._store_for(facts).num_bytes

    def _store_for(self, facts: TrainingFacts) -> PerturbationStore:
        return PerturbationStore(
            num_images=facts.num_images,
            shape=facts.image_shape,
            epsilon=self.threat_model.epsilon,
            precision=precision_for(self.threat_model),
            seed=facts.seed,
            path=None if facts.folder is None else facts.folder / _FILE,
            shared=facts.num_processes > 1,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the store's identity and, unless a file has them, its perturbations."""
        return self.memory["store"].state_dict() if self.memory else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the perturbations of `state_dict`.

        Raises ValueError if `prepare` has not been called or the store is another one, OSError if
        its file is missing or damaged.
        """
        if not self.memory:
            raise ValueError("prepare the method before its state is loaded")
        self.memory["store"].load_state_dict(state)

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Add the gradients of the batch's mean loss to `.grad`, and improve perturbations."""
        if self.attacked_fraction == 0:
            return Vanilla().step(model, batch, context)
        first = num_clean(len(batch), self.attacked_fraction)
        check_images(batch.images)
        images, labels = batch.images[first:], batch.labels[first:]
        frames = None if batch.frames is None else batch.frames[first:]
        kept = self._read(batch, context, first)
        perturbed = Perturbed(images, kept, frames, self.threat_model)
        kinds = {
            CLEAN: Batch(images=batch.images[:first], labels=batch.labels[:first]),
            ADVERSARIAL: Batch(images=perturbed.points, labels=labels),
        }
        shares = {kind: len(part) / len(batch) for kind, part in kinds.items()}
        metrics = learn(model, kinds, context, form="joint", weights=shares)
        change = perturbation_size(images, perturbed.points)
        self._write(batch, perturbed.moved(self._step_size), context, first)
        each = {kind: replace(metrics.kinds[kind], share=shares[kind]) for kind in kinds}
        return replace(metrics, kinds=each, perturbation=change)

    def _read(self, batch: Batch, context: Context, first: int) -> Images:
        """Return the perturbations of the images from row `first` on, in the sources' frames."""
        store, device = self._store(batch), batch.images.device
        if batch.images.is_meta:  # meta tensors have no values to read or store
            return torch.zeros_like(batch.images[first:])
        values, new = store.read(_indices(batch)[first:], context.epoch)
        if device.type == "cuda":
            values = values.pin_memory()  # else the copy would wait for the previous step
        kept = store.encoding.decoded(values.to(device, non_blocking=True))
        if len(new):
            generator = of_part(context.generator, [first + row for row in new.tolist()])
            place = new.to(device, non_blocking=True)
            kept[place] = self.threat_model.random_start(kept[place], generator=generator)
        return kept

    def _write(self, batch: Batch, moved: Tensor, context: Context, first: int) -> None:
        """Store `moved`, the perturbations of the images from row `first` on."""
        if moved.is_meta:
            return
        store, indices = self._store(batch), _indices(batch)[first:]
        if store.shared and batch.copies is not None:
            # several processes may have one image in the same step, and only one may write
            own = (batch.copies[first:].cpu() == 0).nonzero().flatten()
            moved, indices = moved[own.to(moved.device)], indices[own]
        store.write(indices, moved, context.epoch)

    def _store(self, batch: Batch) -> PerturbationStore:
        """Return the store that `prepare` made; raises ValueError if it does not fit `batch`."""
        shape = tuple(batch.images.shape[1:])
        if not self.memory:
            raise ValueError(
                "AdvPropLean keeps a perturbation for each image, and must be told of them: call "
                "method.prepare(advprop.TrainingFacts(num_images=..., "
                f"image_shape={shape})) before the first step"
            )
        store = self.memory["store"]
        if shape != store.shape:
            raise ValueError(
                f"images of shape {shape}, perturbations are kept for {store.shape}: give images "
                "of that shape, or prepare the method for these"
            )
        return store


def _indices(batch: Batch) -> Int[Tensor, " batch"]:
    if batch.indices is None:
        raise ValueError(
            "the batch has no indices, by which perturbations are kept: give each image's place in "
            "its data set, advprop.Batch(images=..., labels=..., indices=...)"
        )
    return batch.indices.cpu()


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
    if facts.num_processes > 1 and facts.repeats > 1:
        raise ValueError(
            f"{facts.repeats} repeats of an image in a batch, on {facts.num_processes} processes, "
            "would be clean on one and adversarial on another: set data.sampling.repeats=1"
        )
