"""AdvProp: image classifiers that get better because they also learn from adversarial examples.

The public names below resolve on first use, since torch and timm take seconds to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from advprop.attacks.objectives import given as given
    from advprop.attacks.objectives import least_likely_class as least_likely_class
    from advprop.attacks.objectives import random_other_class as random_other_class
    from advprop.attacks.objectives import untargeted as untargeted
    from advprop.attacks.pgd import PGD as PGD
    from advprop.attacks.pgd import Attack as Attack
    from advprop.attacks.pgd import fgsm as fgsm
    from advprop.attacks.pyramid import PyramidPGD as PyramidPGD
    from advprop.attacks.schedule import GrowingSteps as GrowingSteps
    from advprop.attacks.threat_models import L2 as L2
    from advprop.attacks.threat_models import Linf as Linf
    from advprop.attacks.threat_models import ThreatModel as ThreatModel
    from advprop.auxiliary.branches import branch_names as branch_names
    from advprop.auxiliary.branches import branch_parameters as branch_parameters
    from advprop.auxiliary.branches import has_auxiliary_norms as has_auxiliary_norms
    from advprop.auxiliary.branches import use_branch as use_branch
    from advprop.auxiliary.modes import attack_mode as attack_mode
    from advprop.auxiliary.surgery import add_auxiliary_norms as add_auxiliary_norms
    from advprop.auxiliary.surgery import remove_auxiliary_norms as remove_auxiliary_norms
    from advprop.auxiliary.token import add_auxiliary_tokens as add_auxiliary_tokens
    from advprop.comparisons.comparing import compare as compare
    from advprop.config import RunConfig as RunConfig
    from advprop.exports.export import load_export as load_export
    from advprop.exports.prediction import predict as predict
    from advprop.methods.adversarial import Adversarial as Adversarial
    from advprop.methods.adversarial_then_clean import AdversarialThenClean as AdversarialThenClean
    from advprop.methods.advprop import AdvProp as AdvProp
    from advprop.methods.advprop_lean import AdvPropLean as AdvPropLean
    from advprop.methods.base import Context as Context
    from advprop.methods.base import Method as Method
    from advprop.methods.base import StepMetrics as StepMetrics
    from advprop.methods.base import TrainingFacts as TrainingFacts
    from advprop.methods.carried import Carried as Carried
    from advprop.methods.fast import Fast as Fast
    from advprop.methods.fine_grained import FineGrained as FineGrained
    from advprop.methods.mixed import Mixed as Mixed
    from advprop.methods.pyramid import Pyramid as Pyramid
    from advprop.methods.universal import Universal as Universal
    from advprop.methods.vanilla import Vanilla as Vanilla
    from advprop.models.build import build_model as build_model
    from advprop.models.standardize import Standardized as Standardized
    from advprop.models.standardize import standardized as standardized
    from advprop.randomness import ImageStreams as ImageStreams
    from advprop.runs import train as train
    from advprop.runs.folder import export as export
    from advprop.runs.folder import load_run as load_run
    from advprop.shapes import Batch as Batch
    from advprop.suites import evaluate as evaluate

_MODULE_OF = {
    "L2": "attacks.threat_models",
    "PGD": "attacks.pgd",
    "AdvProp": "methods.advprop",
    "Adversarial": "methods.adversarial",
    "AdversarialThenClean": "methods.adversarial_then_clean",
    "Attack": "attacks.pgd",
    "Batch": "shapes",
    "AdvPropLean": "methods.advprop_lean",
    "Carried": "methods.carried",
    "Context": "methods.base",
    "FineGrained": "methods.fine_grained",
    "GrowingSteps": "attacks.schedule",
    "Fast": "methods.fast",
    "ImageStreams": "randomness",
    "Linf": "attacks.threat_models",
    "Method": "methods.base",
    "Mixed": "methods.mixed",
    "Pyramid": "methods.pyramid",
    "PyramidPGD": "attacks.pyramid",
    "RunConfig": "config",
    "Standardized": "models.standardize",
    "StepMetrics": "methods.base",
    "ThreatModel": "attacks.threat_models",
    "TrainingFacts": "methods.base",
    "Universal": "methods.universal",
    "Vanilla": "methods.vanilla",
    "add_auxiliary_norms": "auxiliary.surgery",
    "add_auxiliary_tokens": "auxiliary.token",
    "attack_mode": "auxiliary.modes",
    "branch_names": "auxiliary.branches",
    "branch_parameters": "auxiliary.branches",
    "build_model": "models.build",
    "compare": "comparisons.comparing",
    "evaluate": "suites",
    "export": "runs.folder",
    "fgsm": "attacks.pgd",
    "given": "attacks.objectives",
    "has_auxiliary_norms": "auxiliary.branches",
    "least_likely_class": "attacks.objectives",
    "load_export": "exports.export",
    "load_run": "runs.folder",
    "predict": "exports.prediction",
    "random_other_class": "attacks.objectives",
    "remove_auxiliary_norms": "auxiliary.surgery",
    "standardized": "models.standardize",
    "train": "runs",
    "untargeted": "attacks.objectives",
    "use_branch": "auxiliary.branches",
}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'advprop' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"advprop.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
