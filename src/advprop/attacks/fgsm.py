"""FGSM, an attack of one step."""

from __future__ import annotations

from advprop.attacks.objectives import TargetRule, untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import ThreatModel


def fgsm(
    threat_model: ThreatModel,
    *,
    targets: TargetRule = untargeted,
    random_start_probability: float = 0.0,
) -> PGD:
    """Return the fast gradient sign method (Goodfellow et al. 2015): one step of size epsilon."""
    return PGD(
        threat_model=threat_model,
        num_steps=1,
        step_size=threat_model.epsilon,
        random_start_probability=random_start_probability,
        targets=targets,
    )
