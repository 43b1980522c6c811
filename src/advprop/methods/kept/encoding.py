"""The stored form of perturbations: shares of epsilon, in int8 or float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from advprop.attacks.threat_models import Linf, ThreatModel

Precision: TypeAlias = Literal["int8", "float16"]
"""The type of stored values: int8 in steps of epsilon / 127, or float16, 11 significant bits."""

_LEVELS = 127


def precision_for(threat_model: ThreatModel) -> Precision:
    """Return int8 for `Linf`, whose values all share one bound, else float16."""
    return "int8" if isinstance(threat_model, Linf) else "float16"


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Converts perturbations to stored shares of `epsilon` and back; 0 and `epsilon` are exact."""

    epsilon: float
    precision: Precision

    def encoded(self, perturbations: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return `perturbations` as stored values, int8 or float16, on the same device."""
        kind = torch.int8 if self.precision == "int8" else torch.float16
        if self.epsilon == 0:
            return torch.zeros_like(perturbations, dtype=kind)
        shares = (perturbations / self.epsilon).clamp(-1, 1)
        if self.precision == "int8":
            shares = (shares * _LEVELS).round()
        return shares.to(kind)

    def decoded(self, values: Tensor) -> Float[Tensor, "batch channels height width"]:
        """Return stored `values` as float32 perturbations, on the same device."""
        shares = values.float()
        return (shares / _LEVELS if self.precision == "int8" else shares) * self.epsilon
