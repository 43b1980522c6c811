"""Threat models: sets of perturbations that an attacker may add to images in [0, 1]."""

from advprop.attacks.threat_models.l2 import L2 as L2
from advprop.attacks.threat_models.linf import Linf as Linf
from advprop.attacks.threat_models.model import ThreatModel as ThreatModel
