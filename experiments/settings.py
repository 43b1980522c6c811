"""The image sets of the experiments, and how a small net is trained on each.

Learning rate, weight decay, crops and the attack were chosen on the validation split, with seeds
that no experiment uses (docs/reproducing.md); no test image was looked at for it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from advprop.comparisons.plan import stretched
from advprop.config import RunConfig
from advprop.config.attacks import AttackConfig, ThreatModelConfig
from advprop.config.data import FolderDataConfig
from advprop.config.evaluation import EvaluationConfig
from advprop.config.methods import METHODS, method_config
from advprop.config.run import ModelConfig
from advprop.data.preprocessing import Augmentation
from advprop.recipes import RECIPES
from advprop.recipes.attacks import attack_to_test
from advprop.training.settings import TrainingSettings

EMOJI = Path("data/emoji")  # `make experiments-data` renders both
ICONS = Path("data/icons")
WIDTH = 12  # of the net, where an experiment does not vary it


def emoji() -> RunConfig:
    """1,000 drawings of 17 classes, in colour, 32 pixels: `experiments/emoji.py`."""
    return RunConfig(
        recipe="emoji",
        method=method_config("vanilla"),
        model=ModelConfig(
            name="small_resnet", mean=(0.5,) * 3, std=(0.25,) * 3, options={"width": WIDTH}
        ),
        data=FolderDataConfig(
            root=EMOJI / "32",
            image_size=32,
            crop_pct=1.0,
            num_train=1000,
            augmentation=Augmentation(scale=(0.5, 1.0)),
        ),
        training=TrainingSettings(
            num_epochs=20,
            batch_size=50,
            learning_rate=0.1,
            weight_decay=5e-4,
            warmup_epochs=1.0,
            evaluate_every_epochs=20,
        ),
        evaluation=EvaluationConfig(
            noise_standard_deviation=0.1,
            attack=attack_to_test(epsilon=2 / 255, num_steps=5),
        ),
    )


def mnist5k() -> RunConfig:
    """500 MNIST digits, grey, 28 pixels: the recipe `mnist5k` with a narrower net."""
    return width(RECIPES["mnist5k"].build(), WIDTH)


def icons() -> RunConfig:
    """20,000 icons in 32 pixels, tested on designers whom training never saw: `icons.py`.

    A set that is large for its net: the regime of the paper.
    """
    base = width(emoji(), 16)
    data = base.data.model_copy(update={"root": ICONS / "32", "num_train": 20_000})
    training = dataclasses.replace(
        base.training, num_epochs=8, batch_size=100, learning_rate=0.2, evaluate_every_epochs=8
    )
    return base.model_copy(update={"recipe": "icons", "data": data, "training": training})


def icons64() -> RunConfig:
    """The same icons in 64 pixels."""
    base = icons()
    data = base.data.model_copy(update={"root": ICONS / "64", "image_size": 64})
    return base.model_copy(update={"recipe": "icons64", "data": data})


SMALL_SETS = {"emoji": emoji, "mnist5k": mnist5k}
SETS = {**SMALL_SETS, "icons": icons, "icons64": icons64}
ATTACKS = {
    "icons": AttackConfig(
        threat_model=ThreatModelConfig(epsilon=16 / 255), num_steps=1, step_size=16 / 255
    ),
    "emoji": AttackConfig(
        threat_model=ThreatModelConfig(epsilon=4 / 255), num_steps=1, step_size=4 / 255
    ),
    "mnist5k": RECIPES["mnist5k"].build().method.attack,
}


def method(base: RunConfig, name: str, attack: AttackConfig | None = None) -> RunConfig:
    """`base` with the method `name` and the set's attack, or another one."""
    chosen = method_config(name, attack or ATTACKS[base.recipe])
    return base.model_copy(update={"method": chosen})


def suited(base: RunConfig) -> tuple[str, ...]:
    """All methods but, for images that are not augmented, the one that compares draws of them."""
    return tuple(name for name in METHODS if name != "maxup" or base.data.augmentation)


def width(base: RunConfig, channels: int) -> RunConfig:
    """`base` with a net of another width."""
    options = {**base.model.options, "width": channels}
    return base.model_copy(update={"model": base.model.model_copy(update={"options": options})})


def longer(base: RunConfig, factor: float) -> RunConfig:
    """`base` for so many times the epochs, its schedule stretched with them."""
    return stretched(base, factor)


def trained_on(base: RunConfig, num_train: int) -> RunConfig:
    """`base` on so many training images."""
    data = base.data.model_copy(update={"num_train": num_train})
    return base.model_copy(update={"data": data})
