"""Projected gradient descent (Madry et al. 2018); without steps it gives noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from advprop.attacks.attack import GradientAttack, check_steps
from advprop.attacks.objectives import Objective, TargetRule, gradient_of, random_other_class
from advprop.attacks.threat_models import ThreatModel
from advprop.randomness import Randomness, uniform
from advprop.shapes import Images


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient descent, with each step projected into the threat model and [0, 1].

    There are `num_steps` steps of `step_size`. The attack starts at a random point of the threat
    model with `random_start_probability` for each image, else at the image itself. `targets` sets
    the goal; the loss is cross-entropy, summed over images, so that an image's gradient does not
    depend on its batch. With zero steps the result is the random start: noise.

    Raises ValueError for negative steps or step size, or a probability outside [0, 1].
    """

    threat_model: ThreatModel
    num_steps: int
    step_size: float
    random_start_probability: float = 1.0
    targets: TargetRule = random_other_class

    def __post_init__(self) -> None:
        check_steps(self.num_steps, self.step_size, self.random_start_probability)

    @property
    def passes_per_image(self) -> float:
        """Return the number of steps, one forward-backward pass each."""
        return float(self.num_steps)

    def maximise(
        self, objective: Objective, images: Images, *, generator: Randomness = None
    ) -> Images:
        """Return versions of `images` (in [0, 1]) that raise `objective`, from gradients alone."""
        clean = clean_images(images)
        adversarial = self.start(clean, generator)
        for _ in range(self.num_steps):
            adversarial = self.ascend(clean, adversarial, gradient_of(objective, adversarial))
        return adversarial

    def ascend(self, clean: Images, point: Images, gradient: Tensor) -> Images:
        """Return `point` after one step up its gradient, projected."""
        direction = self.threat_model.ascent_direction(gradient)
        return self._project(clean, point + self.step_size * direction)

    def start(self, clean: Images, generator: Randomness) -> Images:
        """Return the images at which the attack on `clean` begins."""
        if self.random_start_probability == 0.0:
            return clean.clone()
        start = self.threat_model.random_start(clean, generator=generator)
        if self.random_start_probability < 1.0:
            chosen = random_starts(clean, self.random_start_probability, generator)
            start = start.where(chosen, 0.0)
        return self._project(clean, clean + start)

    def _project(self, clean: Images, adversarial: Images) -> Images:
        perturbation = self.threat_model.project(adversarial - clean)
        return (clean + perturbation).clamp(0.0, 1.0)


def random_starts(images: Images, probability: float, generator: Randomness) -> Tensor:
    """Return which images start at random, as booleans of shape [batch, 1, 1, 1]."""
    column = images.new_empty(len(images), *[1] * (images.ndim - 1), dtype=torch.float32)
    return uniform(column, generator, purpose="random start chance") < probability


def clean_images(images: Images) -> Images:
    """Return `images`, detached, for the beginning of an attack.

    Raises RuntimeError in inference mode, ValueError as `check_images`.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("torch.inference_mode() forbids gradients: use torch.no_grad()")
    clean = images.detach()
    check_images(clean)
    return clean


def check_images(images: Images) -> None:
    """Raise ValueError for NaN and values outside [0, 1], which make attacks useless.

    Values are checked on the CPU only, since elsewhere that would wait for the device. Images that
    are not floats raise ValueError on every device.
    """
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}: convert to floats in [0, 1] (divide by 255)")
    if images.device.type == "cpu" and images.numel():
        low, high = (bound.item() for bound in images.aminmax())
        if math.isnan(low):
            raise ValueError("images contain NaN: look for its source in their transform")
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            raise ValueError(
                f"images have values from {low:.3g} to {high:.3g}, attacks work in [0, 1]: take "
                "mean and std out of the transform and into the model, advprop.standardized(model)"
            )
