"""The attacks with which recipes train and test."""

from __future__ import annotations

from advprop.config.attacks import AttackConfig, ThreatModelConfig, TrainingAttackConfig


def grey_levels(epsilon: int, num_steps: int) -> TrainingAttackConfig:
    """Return a training attack with steps of 1/255 to a random wrong class, `epsilon` in 1/255."""
    return TrainingAttackConfig(
        threat_model=ThreatModelConfig(epsilon=epsilon / 255),
        num_steps=num_steps,
        step_size=1 / 255,
    )


def attack_to_test(*, epsilon: float, num_steps: int = 10) -> AttackConfig:
    """Return an untargeted test attack; its steps add up to 2.5 `epsilon`, on the scale [0, 1]."""
    return AttackConfig(
        threat_model=ThreatModelConfig(epsilon=epsilon),
        num_steps=num_steps,
        step_size=2.5 * epsilon / num_steps,
        targets="untargeted",
    )
