"""The configuration of the test suites."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from advprop.attacks.pgd import PGD
from advprop.config.attacks import AttackConfig, ThreatModelConfig
from advprop.config.fields import Config, Fraction, Fractions, parse_list
from advprop.data.corruptions import CORRUPTIONS, SEVERITIES
from advprop.training.settings import MOST_WORKERS

_CURVES: dict[str, Literal["linf", "l2"]] = {"epsilons": "linf", "l2_epsilons": "l2"}


class EvaluationConfig(Config):
    """Settings of the test suites; `num_workers` processes read images (0: the testing process).

    The suites adversarial and transfer use `attack`, up to `restarts` times per image; autoattack
    takes its threat model. `epsilons` (Linf) and `l2_epsilons` are the points of a curve, none by
    default. At most `overlap_images` training images are checked for duplicates of test images.
    `corruptions` names some or all of the 15 of ImageNet-C, `extra_corruptions` adds its 4 held-out
    ones; each is tested at all `corruption_severities`.
    """

    batch_size: int = Field(default=250, ge=1)
    num_workers: int = Field(default=0, ge=0, le=MOST_WORKERS)
    noise_standard_deviation: Fraction = Field(default=0.1, ge=0, le=10)
    attack: AttackConfig
    restarts: int = Field(default=1, ge=1)
    epsilons: Fractions = ()
    l2_epsilons: Fractions = ()
    overlap_images: int = Field(default=5000, ge=0)
    corruptions: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = CORRUPTIONS
    corruption_severities: Annotated[tuple[int, ...], BeforeValidator(parse_list)] = SEVERITIES
    extra_corruptions: bool = False

    @field_validator("corruptions", "corruption_severities")
    @classmethod
    def _known(cls, chosen: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        known = CORRUPTIONS if info.field_name == "corruptions" else SEVERITIES
        if unknown := [str(choice) for choice in chosen if choice not in known]:
            raise ValueError(
                f"unknown: {', '.join(unknown)}; choose from {', '.join(map(str, known))}"
            )
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError("name at least one, and each once")
        return chosen

    @field_validator("epsilons", "l2_epsilons")
    @classmethod
    def _valid(cls, epsilons: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        for epsilon in epsilons:
            ThreatModelConfig(kind=_CURVES[str(info.field_name)], epsilon=epsilon)
        return epsilons

    def curve(self) -> list[PGD]:
        """Return the attacks of the curves, ordered by threat model and epsilon, which begins at 0.

        They have the number of steps and the targets of `attack`, and its step size relative to
        epsilon (if its epsilon is 0, steps that add up to 2.5 epsilon).
        """
        base, own = self.attack, self.attack.threat_model.epsilon
        share = base.step_size / own if own > 0 else 2.5 / max(base.num_steps, 1)
        return [
            base.model_copy(
                update={
                    "threat_model": ThreatModelConfig(kind=kind, epsilon=epsilon),
                    "step_size": share * epsilon,
                    "num_steps": base.num_steps if epsilon > 0 else 0,
                }
            ).build()
            for name, kind in sorted(_CURVES.items(), reverse=True)
            for epsilon in sorted({0.0, *getattr(self, name)})
            if getattr(self, name)
        ]
