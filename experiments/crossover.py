"""When separate normalisation layers matter: strength of attack, size of net, what is separate.

The paper claims a crossover: mixing adversarial images into clean ones costs clean accuracy where
they are strong and the net is small for its data, and branches of their own win it back.

    python experiments/crossover.py             # drawings; icons: fewer of each
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


@dataclass(frozen=True)
class Net:
    """A width of the net, the strengths (of 255) tried with it, and times the usual epochs."""

    width: int
    epsilons: tuple[int, ...]
    length: float = 1.0


NETS = {
    "emoji": (Net(8, (1, 4, 8, 16)), Net(24, (4, 16))),
    "icons": (Net(6, (4, 16)), Net(8, (16,), length=3.0)),
}
LEFT_OUT = {"emoji": (), "icons": ("affine only", "statistics only")}


def variants(base: RunConfig, epsilon: int) -> dict[str, RunConfig]:
    """Vanilla, at equal cost too, and what may be separate in a layer."""
    strength = attack(epsilon / 255, 1)
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
    for net in NETS[name][:1] if options.quick else NETS[name]:
        base = width(longer(base_config(name, options), net.length), net.width)
        epochs = f", {base.training.num_epochs} epochs" if net.length != 1.0 else ""
        for epsilon in net.epsilons[::3] if options.quick else net.epsilons:
            found = variants(base, epsilon)
            kept = {label: found[label] for label in found if label not in LEFT_OUT[name]}
            label = f"width {net.width}{epochs}, epsilon {epsilon} of 255"
            groups.append(Group(name=label, variants=kept))
    return groups


if __name__ == "__main__":
    main("crossover", plan, extras={"shift": shift}, sets=tuple(NETS))
