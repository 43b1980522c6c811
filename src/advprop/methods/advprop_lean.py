"""The method that gained most in vanilla's time in experiments 10 and 11 (docs/reproducing.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from advprop.methods.carried import Carried


@dataclass(frozen=True, kw_only=True)
class AdvPropLean(Carried):
    """`Carried` with other defaults: one pass for each image, and no auxiliary branch.

    A quarter of each batch is adversarial only, the rest clean only, all through the same layers.
    The pass that learns from a perturbed image also improves its perturbation. So a step costs as
    much as vanilla's, plus the gradient with respect to the images and the storage of
    perturbations. The model stays a plain one.
    """

    pairing: Literal["paired", "decoupled"] = "decoupled"
    attacked_fraction: float = 0.25
    auxiliary_branch: bool = False
