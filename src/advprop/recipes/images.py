"""Recipes for a user's own folder of images."""

from __future__ import annotations

from advprop.config import RunConfig
from advprop.config.data import FolderDataConfig
from advprop.config.methods import AdvPropConfig, AttackConfig, ThreatModelConfig
from advprop.config.run import EvaluationConfig, ModelConfig
from advprop.training.settings import TrainingSettings


def from_scratch() -> RunConfig:
    """AdvProp from random weights on any folder of images.

    `advprop train from_scratch --set data.root=DIR`. One weak attack step, with which public
    reproductions on ImageNet report gains for ResNet-50: three passes an image.
    """
    return RunConfig(
        recipe="from_scratch",
        method=AdvPropConfig(
            attack=AttackConfig(
                threat_model=ThreatModelConfig(epsilon=1 / 255), num_steps=1, step_size=1 / 255
            )
        ),
        model=ModelConfig(name="resnet18"),
        data=FolderDataConfig(image_size=128),
        training=TrainingSettings(
            num_epochs=60,
            batch_size=64,
            learning_rate=0.05,
            weight_decay=5e-4,
            warmup_epochs=3.0,
            label_smoothing=0.1,
            gradient_clip=5.0,
        ),
        evaluation=EvaluationConfig(
            batch_size=64,
            noise_standard_deviation=0.1,
            attack=AttackConfig(
                threat_model=ThreatModelConfig(epsilon=1 / 255),
                num_steps=10,
                step_size=0.25 / 255,
                targets="untargeted",
            ),
        ),
    )
