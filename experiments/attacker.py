"""How strong the attacker should be for a net's size, and which kind of attacker it takes.

The paper: small nets want weak attackers, large nets strong ones; the kind hardly matters.

    python experiments/attacker.py
    python experiments/attacker.py --quick

Time and result: docs/reproducing.md, experiment 3.
"""

from __future__ import annotations

from measures import shift
from settings import method, width
from study import Group, Options, base_config, main

from advprop.config import RunConfig
from advprop.config.attacks import AttackConfig, ThreatModelConfig

WIDTHS = (8, 16)
# (epsilon, steps)
STRENGTHS = {
    "emoji": ((1 / 255, 1), (4 / 255, 1), (8 / 255, 1), (4 / 255, 5)),
    "mnist5k": ((0.05, 1), (0.1, 1), (0.2, 1), (0.2, 3)),
}
KIND_STEPS = 2


def attack(epsilon: float, num_steps: int, **changes: float | str) -> AttackConfig:
    """PGD whose steps reach from the image to the bound, with one to spare where there are more."""
    return AttackConfig.model_validate(
        {
            "threat_model": ThreatModelConfig(epsilon=epsilon).model_dump(),
            "num_steps": num_steps,
            "step_size": epsilon / max(1, num_steps - 1),
            **changes,
        }
    )


def kinds(base: RunConfig, epsilon: float) -> dict[str, RunConfig]:
    """AdvProp with other attackers of about the same size; noise costs no attack steps."""
    step = epsilon / KIND_STEPS
    attacks = {
        "PGD": attack(epsilon, KIND_STEPS, step_size=step),
        "FGSM": attack(epsilon, 1, random_start_probability=0.0),
        "noise": attack(epsilon, 0),
        # steps that cannot reach the bound: the projection never acts
        "no projection": attack(epsilon, KIND_STEPS, step_size=step, random_start_probability=0.0),
        "true label": attack(epsilon, KIND_STEPS, step_size=step, targets="untargeted"),
    }
    return {
        "vanilla": base,
        **{name: method(base, "advprop", chosen) for name, chosen in attacks.items()},
    }


def plan(name: str, options: Options) -> list[Group]:
    base = base_config(name, options)
    levels = STRENGTHS[name][1:3] if options.quick else STRENGTHS[name]
    strengths = [
        Group(
            name=f"strength at width {channels}",
            variants={
                "vanilla": width(base, channels),
                **{
                    f"{epsilon:.3g} in {steps}": method(
                        width(base, channels), "advprop", attack(epsilon, steps)
                    )
                    for epsilon, steps in levels
                },
            },
        )
        for channels in (WIDTHS[:1] if options.quick else WIDTHS)
    ]
    return [*strengths, Group(name="kind", variants=kinds(base, STRENGTHS[name][1][0]))]


if __name__ == "__main__":
    main("attacker", plan, extras={"shift": shift})
