"""Configurations of pyramid attacks and of the methods that use them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from advprop.attacks.pyramid import PyramidPGD
from advprop.config.attacks import AnyAttackConfig, Targeted, TargetName
from advprop.config.fields import Fraction, Fractions, parse_list
from advprop.config.method_base import MethodConfig
from advprop.methods.learning import Form
from advprop.methods.pyramid import Pyramid
from advprop.methods.universal import Universal

Scales = Annotated[tuple[int, ...] | None, BeforeValidator(parse_list)]

_PAPER = PyramidPGD()


class PyramidAttackConfig(Targeted[PyramidPGD]):
    """The configuration of `PyramidPGD`; its defaults are those of the paper."""

    builds = PyramidPGD

    epsilon: Fraction = _PAPER.epsilon
    num_steps: int = _PAPER.num_steps
    step_size: Fraction = _PAPER.step_size
    scales: Scales = _PAPER.scales
    multipliers: Fractions = _PAPER.multipliers
    random_start_probability: float = _PAPER.random_start_probability
    targets: TargetName = "random_other_class"


def pyramid_like(attack: AnyAttackConfig | None) -> PyramidAttackConfig:
    """Return a pyramid attack within the threat model of `attack`, or the paper's if it is None.

    Number of steps and targets are those of `attack`. Its epsilon and step size are divided by the
    sum of the multipliers, so that no value of an image changes by more than `attack` allows. For
    an L2 threat model this is impossible, and the paper's values are used.
    """
    if attack is None:
        return PyramidAttackConfig()
    attack = attack.as_pgd()
    alike = PyramidAttackConfig(num_steps=attack.num_steps, targets=attack.targets)
    if attack.threat_model.kind == "l2":
        return alike
    total = sum(alike.multipliers)
    shares = {
        "epsilon": attack.threat_model.epsilon / total,
        "step_size": attack.step_size / total,
    }
    return alike.model_copy(update=shares)


class _TwoPassesConfig(MethodConfig):
    """The base of methods with a pass for each kind of images."""

    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    matched_masks: bool = True
    auxiliary_branch: bool = False
    form: Form = "auto"


class PyramidConfig(_TwoPassesConfig):
    """The configuration of `Pyramid`."""

    builds = Pyramid
    kind: Literal["pyramid"] = "pyramid"
    attack: PyramidAttackConfig = PyramidAttackConfig()

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> PyramidConfig:
        """Return the defaults with the attack `pyramid_like(attack)`."""
        return cls(attack=pyramid_like(attack))


class UniversalConfig(_TwoPassesConfig):
    """The configuration of `Universal`."""

    builds = Universal
    kind: Literal["universal"] = "universal"
    epsilon: Fraction = _PAPER.epsilon
    step_size: Fraction = _PAPER.epsilon / 5
    scales: Scales = _PAPER.scales
    multipliers: Fractions = _PAPER.multipliers
    random_start: bool = False
    start_seed: int = Field(default=0, ge=-(2**63), lt=2**63)

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> UniversalConfig:
        """Return the defaults with the epsilon of `pyramid_like(attack)`, and a fifth as a step."""
        epsilon = pyramid_like(attack).epsilon
        return cls(epsilon=epsilon, step_size=epsilon / 5)
