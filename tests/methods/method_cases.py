"""Every method as the suites try it, derived from the registry: one line there is enough.

What a method does not do as most of them stands in its `Case`; further settings that are worth the
whole suite are in `VARIANTS`. `tests/config/test_registry.py` fails where a method has no case.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from advprop.attacks.fgsm import fgsm
from advprop.attacks.pyramid import PyramidPGD
from advprop.attacks.threat_models import L2, Linf
from advprop.config.attacks import TrainingAttackConfig
from advprop.config.methods import METHODS, method_config
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.advprop_lean import AdvPropLean
from advprop.methods.augmix import AugMix
from advprop.methods.base import Method
from advprop.methods.fast import Fast
from advprop.methods.fine_grained import FineGrained
from advprop.methods.maxup import MaxUp
from advprop.methods.pyramid import Pyramid
from advprop.methods.universal import Universal

ATTACK_CONFIG = TrainingAttackConfig.model_validate(
    {"threat_model": {"epsilon": 8 / 255}, "num_steps": 2, "step_size": 6 / 255}
)
ATTACK = ATTACK_CONFIG.build()
PYRAMID = PyramidPGD(
    epsilon=1 / 255,
    num_steps=2,
    step_size=0.75 / 255,
    scales=(4, 3, 1),
    multipliers=(4.0, 2.0, 1.0),
)
UNIVERSAL = Universal(
    epsilon=1 / 255,
    step_size=0.5 / 255,
    scales=(4, 3, 1),
    multipliers=(4.0, 2.0, 1.0),
    random_start=True,
)
FAST = Fast(threat_model=Linf(8 / 255), attacked_fraction=0.25)
LEAN = AdvPropLean(threat_model=Linf(8 / 255))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method, and what a suite has to know of it.

    The suites try it at `progress`. `draws` tells whether its gradients depend on the generator
    (None: if it perturbs images). `weights` are those of the kinds' mean losses in the loss, 1 for
    a kind that is left out; `own_losses` names kinds whose loss is the method's, not the task's.
    `asks` is the function of a task that the method cannot do without, and that tasks need not
    have. `without_gradients` tells that some of its forward passes have no backward pass, and count
    as a third. `counts` is how many of a batch of 8 images are of a kind, 8 for one that is left
    out. `averages` tells that `passes_per_image` is a mean over training. `largest` bounds the
    mean size of a perturbation. `statistics` is how many batches a step adds to the running
    statistics of a branch, 1 for one that is left out.
    """

    method: Method
    progress: float = 0.0
    draws: bool | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    own_losses: tuple[str, ...] = ()
    asks: str = ""
    without_gradients: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    averages: bool = False
    largest: float = 8 / 255
    statistics: Mapping[str, int] = field(default_factory=dict)


def _lean(method: AdvPropLean, largest: float = 8 / 255) -> Case:
    """6 of 8 images clean, 2 adversarial, each counted once."""
    shares = {"clean": 0.75, "adversarial": 0.25}
    counts = {"clean": 6, "adversarial": 2}
    return Case(method=method, weights=shares, counts=counts, largest=largest)


def _fast(method: Fast, largest: float = 8 / 255) -> Case:
    """Of 8 images 2 are attacked, and both of their passes together count them once."""
    weights = {
        "clean": 0.75,
        "noise": 0.25 * (1 - method.beta),
        "adversarial": 0.25 * method.beta,
    }
    counts = {"clean": 6, "noise": 2, "adversarial": 2}
    twice = {"adversarial": 2}  # at the random start, and attacked
    return Case(method=method, weights=weights, counts=counts, largest=largest, statistics=twice)


BOTH_KINDS = {"clean": 2}
"""Batches that a layer counts which clean and adversarial images share, a pass each."""
OWN: dict[str, Case] = {
    "vanilla": Case(method=method_config("vanilla").build(), draws=False),
    "adversarial_then_clean": Case(
        method=AdversarialThenClean(attack=ATTACK), progress=0.2, averages=True
    ),
    "fast": _fast(FAST),
    # its start is the same for all processes
    "universal": Case(method=UNIVERSAL, draws=False, statistics=BOTH_KINDS),
    "pyramid": Case(method=Pyramid(attack=PYRAMID), statistics=BOTH_KINDS),
    "augmix": Case(
        method=AugMix(),
        weights={"augmix": 12},
        own_losses=("augmix",),
        asks="log_probabilities",
        counts={"augmix": 16},
    ),
    "maxup": Case(method=MaxUp(), asks="losses", without_gradients=True),
    "advprop_lean": _lean(LEAN),
}
VARIANTS: dict[str, Case] = {
    "adversarial_then_clean last": dataclasses.replace(
        OWN["adversarial_then_clean"], progress=0.8, draws=False
    ),
    "advprop joint": Case(method=AdvProp(attack=ATTACK, form="joint")),
    "advprop summed": Case(method=AdvProp(attack=ATTACK, form="summed")),
    "advprop matched": Case(method=AdvProp(attack=ATTACK, matched_masks=True)),
    # FGSM begins at the image and goes away from its label
    "advprop l2": Case(method=AdvProp(attack=fgsm(L2(1.0))), draws=False, largest=0.1),
    "augmix without consistency": Case(method=AugMix(jsd=0.0)),
    "fine_grained joint": Case(
        method=FineGrained(
            attacks={"noise": dataclasses.replace(ATTACK, num_steps=0), "adversarial": ATTACK},
            form="joint",
        )
    ),
    "fast separate": _fast(dataclasses.replace(FAST, form="separate")),
    "fast summed": _fast(dataclasses.replace(FAST, form="summed")),
    "fast l2": _fast(dataclasses.replace(FAST, threat_model=L2(1.0)), largest=0.1),
    "fast not synchronised": _fast(dataclasses.replace(FAST, beta=0.25, synchronise=False)),
    "pyramid summed": Case(method=Pyramid(attack=PYRAMID, form="summed"), statistics=BOTH_KINDS),
    "pyramid branch": Case(method=Pyramid(attack=PYRAMID, auxiliary_branch=True)),
    "universal branch": Case(
        method=dataclasses.replace(UNIVERSAL, auxiliary_branch=True, form="summed"), draws=False
    ),
    "advprop_lean l2": _lean(dataclasses.replace(LEAN, threat_model=L2(1.0)), largest=0.1),
}
CASES: dict[str, Case] = {
    **{
        name: OWN.get(name) or Case(method=method_config(name, ATTACK_CONFIG).build())
        for name in METHODS
    },
    **VARIANTS,
}
