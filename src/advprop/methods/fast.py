"""Fast AdvProp (Mei et al., ICLR 2022, arXiv 2204.09838)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from advprop.attacks.objectives import untargeted
from advprop.attacks.pgd import PGD, check_images
from advprop.attacks.threat_models import ThreatModel
from advprop.auxiliary.gradients import scaled_gradients
from advprop.auxiliary.route import CLEAN
from advprop.methods.attacked_fraction import check_fraction, num_clean
from advprop.methods.learning import SeveralKinds, learn, total_loss
from advprop.methods.shuffling import shuffled
from advprop.methods.step import (
    ADVERSARIAL,
    Context,
    StepMetrics,
    perturbation_size,
    through,
    unwrapped,
)
from advprop.methods.vanilla import Vanilla
from advprop.randomness import of_part
from advprop.shapes import Batch, Images

NOISE = "noise"
"""The name in metrics of images at the attack's random start."""


@dataclass(frozen=True, kw_only=True)
class Fast(SeveralKinds):
    """AdvProp at 1 + `attacked_fraction` passes for each image, without an attack pass.

    The last images of each batch, `attacked_fraction` of it (rounded), are adversarial only, the
    others clean only. A noise pass over the attacked images at a random start, in training mode,
    gives gradients to learn from, and the attack's one step of `step_size` (None: epsilon) away
    from their labels. A second pass learns from the result and the clean images. The two passes
    over attacked images have the weights 1 - `beta` and `beta`, so that each image counts once.
    With `synchronise` each branch's own gradients are means over the images that went through the
    branch, not over the whole batch. `form` "separate" learns from both kinds of images in a pass
    each, "joint" in one pass; "auto" is "joint" if the model can split a batch over branches, which
    is faster.

    Raises ValueError for settings out of bounds.
    """

    # exchanged images meet other statistics only if each process normalises by its own images
    synchronises_statistics: ClassVar[bool] = False
    needs_backward: ClassVar[bool] = True

    threat_model: ThreatModel
    step_size: float | None = None
    attacked_fraction: float = 0.2
    beta: float = 0.5
    synchronise: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.attacked_fraction)
        if not 0 <= self.beta < 1:
            raise ValueError(
                f"beta {self.beta}: give one of at least 0 and below 1, since the attack's step "
                "comes from the noise pass, which has the rest of the weight"
            )
        self.attack  # noqa: B018  # checks the step size

    @property
    def attack(self) -> PGD:
        """Return an attack of one step away from the labels, from a random start."""
        whole = self.threat_model.epsilon
        return PGD(
            threat_model=self.threat_model,
            num_steps=1,
            step_size=whole if self.step_size is None else self.step_size,
            targets=untargeted,
        )

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Return the branch of attacked images."""
        return (ADVERSARIAL,)

    @property
    def passes_per_image(self) -> float:
        """Return 2 passes over attacked images and 1 over others, averaged, without rounding."""
        return 1 + self.attacked_fraction

    @property
    def prefers_one_pass(self) -> bool:
        """Return True, since no image occurs twice in a pass."""
        return True

    def check_distributed(self) -> None:
        """Raise ValueError if a backward pass would give a branch no gradient."""
        if self.attacked_fraction == 0:
            raise ValueError(
                "attacked_fraction 0 on several processes: the auxiliary branch gets no gradient, "
                "and DistributedDataParallel waits for one; set method.attacked_fraction above 0, "
                "or train vanilla, which is the same"
            )
        super().check_distributed()

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Add the gradients of the noise pass and of the pass over both kinds of images to `.grad`.

        Between the passes, attacked images are exchanged among processes.
        """
        if self.attacked_fraction == 0:
            with through(model, CLEAN):
                return Vanilla().step(model, batch, context)
        form = self.form_for(model, context.task)
        first = num_clean(len(batch), self.attacked_fraction)
        share = 1 - first / len(batch)
        shares = {CLEAN: 1 - share, NOISE: share, ADVERSARIAL: share}
        source = Batch(images=batch.images[first:], labels=batch.labels[first:])
        weights = {
            CLEAN: shares[CLEAN],
            NOISE: (1 - self.beta) * shares[NOISE],
            ADVERSARIAL: self.beta * shares[ADVERSARIAL],
        }
        speeds = {branch: shares[branch] for branch in (CLEAN, ADVERSARIAL) if self.synchronise}
        generator = of_part(context.generator, slice(first, None))
        with _at_same_speed(model, speeds):
            noise, images = self._noise_pass(
                model, source, replace(context, generator=generator), weight=weights[NOISE]
            )
        parts = {
            CLEAN: Batch(images=batch.images[:first], labels=batch.labels[:first]),
            ADVERSARIAL: shuffled(
                Batch(images=images, labels=source.labels), model, step=context.step
            ),
        }
        with _at_same_speed(model, speeds):
            found = learn(model, parts, context, form=form, weights=weights, branches=True).kinds
        kinds = {CLEAN: found[CLEAN], NOISE: noise.kinds[NOISE], ADVERSARIAL: found[ADVERSARIAL]}
        return StepMetrics(
            loss=total_loss(kinds, weights),
            kinds={kind: replace(kinds[kind], share=shares[kind]) for kind in kinds},
            perturbation=perturbation_size(source.images, images),
        )

    def _noise_pass(
        self, model: nn.Module, batch: Batch, context: Context, *, weight: float
    ) -> tuple[StepMetrics, Images]:
        """Add the gradients of images at a random start to `.grad`, and attack the images.

        Returns the metrics, and the adversarial images, which are made with the pass's own
        gradient.
        """
        attack, clean = self.attack, batch.images.detach()
        check_images(clean)
        noisy = attack.start(clean, context.generator).requires_grad_()
        # the next backward pass exchanges these gradients together with its own
        waits = model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
        with through(model, ADVERSARIAL), waits:
            kinds = {NOISE: Batch(images=noisy, labels=batch.labels)}
            noise = learn(model, kinds, context, weights={NOISE: weight})
        assert noisy.grad is not None
        return noise, attack.ascend(clean, noisy.detach(), noisy.grad)


def _at_same_speed(model: nn.Module, shares: Mapping[str, float]) -> AbstractContextManager[None]:
    """Return a context in which each branch's own gradients are divided by its share of the images.

    They are then as large as if all images had gone through the branch.
    """
    factors = {branch: 1 / share for branch, share in shares.items()}
    reduced = isinstance(model, DistributedDataParallel)
    return scaled_gradients(unwrapped(model), factors, reduced=reduced)
