"""Recipes for a user's own folder of images."""

from __future__ import annotations

from advprop.config import RunConfig
from advprop.config.data import FolderDataConfig
from advprop.config.evaluation import EvaluationConfig
from advprop.config.methods import AdvPropConfig
from advprop.config.run import ModelConfig
from advprop.data.preprocessing import Augmentation
from advprop.recipes.attacks import attack_to_test, grey_levels
from advprop.training.settings import TrainingSettings


def from_scratch() -> RunConfig:
    """Return AdvProp from random weights on any folder of images.

    The attack has one weak step (three passes an image), with which public reproductions on
    ImageNet report gains for ResNet-50.
    """
    return RunConfig(
        recipe="from_scratch",
        method=AdvPropConfig(attack=grey_levels(1, 1)),
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
            checkpoint_every_minutes=15.0,
            num_workers=2,
        ),
        evaluation=EvaluationConfig(
            batch_size=64, num_workers=2, attack=attack_to_test(epsilon=1 / 255)
        ),
    )


def finetune() -> RunConfig:
    """Return AdvProp from pretrained weights on any folder of images.

    `model.name=NAME` takes another of timm's pretrained models, `model.pretrained=false` with
    `model.checkpoint=FILE` local weights. Auxiliary branches start from the pretrained clean
    layers. The attack has one weak step (three passes an image). `training.layer_decay=0.8` lowers
    the learning rate of lower layers, `training.frozen_layers=1` freezes the stem.
    """
    return RunConfig(
        recipe="finetune",
        method=AdvPropConfig(attack=grey_levels(1, 1)),
        model=ModelConfig(name="efficientnet_b0.ra_in1k", pretrained=True),
        data=FolderDataConfig(image_size=224, augmentation=Augmentation(scale=(0.3, 1.0))),
        training=TrainingSettings(
            num_epochs=15,
            batch_size=32,
            optimizer="adamw",
            learning_rate=5e-4,
            weight_decay=0.05,
            warmup_epochs=1.0,
            label_smoothing=0.1,
            gradient_clip=5.0,
            checkpoint_every_minutes=15.0,
            num_workers=2,
        ),
        evaluation=EvaluationConfig(
            batch_size=64, num_workers=2, attack=attack_to_test(epsilon=1 / 255)
        ),
    )
