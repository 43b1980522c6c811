"""What gained most at vanilla's measured time (docs/reproducing.md, experiments 10 and 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from advprop.methods.carried import Carried


@dataclass(frozen=True, kw_only=True)
class AdvPropLean(Carried):
    """`Carried` with other defaults: one pass an image, and no branch.

    A quarter of each batch is adversarial only, the rest clean only, all through the same
    layers; each image's perturbation is improved by the pass that learns from it. So a step is
    vanilla's, but for the images' gradient and the keeping of perturbations, and the model is a
    plain one.
    """

    pairing: Literal["paired", "decoupled"] = "decoupled"
    attacked_fraction: float = 0.25
    auxiliary_branch: bool = False
