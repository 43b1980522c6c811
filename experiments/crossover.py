"""When separate normalisation layers matter: strength of attack, size of net, what is separate.

The paper claims a crossover: mixing adversarial images into clean ones costs clean accuracy where
they are strong and the net is small for its data, and branches of their own win it back.

    python experiments/crossover.py             # drawings; icons, with fewer of each
    python experiments/crossover.py --quick

Time and result: docs/reproducing.md, experiment 15.
"""

from __future__ import annotations

from dataclasses import dataclass

from attacker import attack
from branches import separate
from measures import shift
from settings import longer, method, width
from study import Group, Options, base_config, main

from advprop.config import RunConfig
from advprop.config.attacks import AttackConfig


@dataclass(frozen=True)
class Setting:
    """A width of the net, and how it is trained: epsilons (of 255) and times the usual epochs.

    One attack step goes to a random class, as elsewhere in the experiments; several go away from
    the true class, which makes the strongest images.
    """

    width: int
    epsilons: tuple[int, ...]
    length: float = 1.0
    num_steps: int = 1
    max_seeds: int = 3

    def attack(self, epsilon: int) -> AttackConfig:
        targets = "random_other_class" if self.num_steps == 1 else "untargeted"
        return attack(epsilon / 255, self.num_steps, targets=targets)


SETTINGS = {
    "emoji": (
        Setting(8, (1, 4, 8, 16)),
        Setting(24, (4, 16)),
        Setting(8, (16,), num_steps=5, max_seeds=5),
    ),
    "icons": (
        Setting(6, (4, 16)),
        Setting(8, (16,), length=3.0),
        Setting(8, (16,), num_steps=5, max_seeds=5),
    ),
}
LEFT_OUT = {"emoji": (), "icons": ("affine only", "statistics only")}


def variants(base: RunConfig, strength: AttackConfig) -> dict[str, RunConfig]:
    """Vanilla, at equal cost too, and what may be separate in a layer."""
    advprop = method(base, "advprop", strength)
    return {
        "vanilla": base,
        "vanilla_equal_cost": longer(base, advprop.method.build().passes_per_image),
        "mixed": method(base, "mixed", strength),
        "affine only": separate(advprop, "affine", "joint"),
        "statistics only": separate(advprop, "statistics"),
        "both": advprop,
    }


def plan(name: str, options: Options) -> list[Group]:
    groups = []
    for setting in SETTINGS[name][:1] if options.quick else SETTINGS[name]:
        base = width(longer(base_config(name, options), setting.length), setting.width)
        epochs = f", {base.training.num_epochs} epochs" if setting.length != 1.0 else ""
        steps = f", {setting.num_steps} steps" if setting.num_steps > 1 else ""
        for epsilon in setting.epsilons[::3] if options.quick else setting.epsilons:
            found = variants(base, setting.attack(epsilon))
            kept = {label: found[label] for label in found if label not in LEFT_OUT[name]}
            group = f"width {setting.width}{epochs}, epsilon {epsilon} of 255{steps}"
            groups.append(Group(name=group, variants=kept, max_seeds=setting.max_seeds))
    return groups


if __name__ == "__main__":
    main("crossover", plan, extras={"shift": shift}, sets=tuple(SETTINGS))
