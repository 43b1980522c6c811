"""ImageNet recipes: EfficientNet-B0 to B8, as in AdvProp's published models, and ResNet-50.

    torchrun --nproc_per_node 8 -m advprop train imagenet_efficientnet_b0 --set data.root=IMAGENET

where IMAGENET contains `train/` and `val/` with a folder for each class. `--method vanilla` and
`--method mixed` train two baselines. `advprop plan imagenet_efficientnet_b0` shows time and cost.
All results named here are published ones; this project has not trained on ImageNet. The best epoch
is chosen on `val/`, as in the published AdvProp runs, which held out no training images.
"""

from __future__ import annotations

from typing import NamedTuple

from advprop.config import RunConfig
from advprop.config.data import FolderDataConfig
from advprop.config.evaluation import EvaluationConfig
from advprop.config.methods import AdvPropConfig
from advprop.config.run import ModelConfig
from advprop.data.preprocessing import Augmentation
from advprop.recipes.attacks import attack_to_test, grey_levels
from advprop.training.settings import TrainingSettings

_SIZES = (1_281_167, 1000)


class EfficientNetSize(NamedTuple):
    """One row of EfficientNet's scaling table, with its attack and published results.

    `attack` is (epsilon in 1/255, steps). It is well supported that small networks need weak
    attacks and large ones strong attacks; the strength for each size is second-hand and could not
    be checked against the paper's own table. `published` is the top-1 accuracy in percent of
    AdvProp with AutoAugment, and of AutoAugment alone, in the README of Google's TPU EfficientNet.
    `device_hours` are those of (vanilla, AdvProp) by `advprop plan` without options; a test checks
    them.
    """

    image_size: int
    dropout: float
    attack: tuple[int, int]
    published: tuple[float, float | None]
    device_hours: tuple[int, int]


EFFICIENTNETS = {
    0: EfficientNetSize(224, 0.2, (1, 1), (77.6, 77.1), (46, 122)),
    1: EfficientNetSize(240, 0.2, (1, 1), (79.6, 79.1), (82, 218)),
    2: EfficientNetSize(260, 0.3, (1, 1), (80.5, 80.1), (118, 316)),
    3: EfficientNetSize(300, 0.3, (2, 3), (81.9, 81.6), (218, 873)),
    4: EfficientNetSize(380, 0.4, (4, 5), (83.3, 82.9), (524, 2_800)),
    5: EfficientNetSize(456, 0.4, (4, 5), (84.3, 83.6), (1_226, 6_546)),
    6: EfficientNetSize(528, 0.5, (4, 5), (84.8, 84.0), (2_277, 12_160)),
    7: EfficientNetSize(600, 0.5, (4, 5), (85.2, 84.3), (4_510, 24_076)),
    8: EfficientNetSize(672, 0.5, (4, 5), (85.5, None), (7_482, 39_931)),
}

RESNET50_HOURS = (15, 39)
"""The device-hours of (vanilla, AdvProp), as in `EfficientNetSize`."""


def imagenet_efficientnet(size: int) -> RunConfig:
    """Return AdvProp for EfficientNet-B`size`, 0 to 8, for 350 epochs at the native resolution.

    Hyper-parameters are from timm's model index for the published AdvProp weights and from Google's
    TPU code (RMSProp with decay and momentum 0.9, epsilon 1e-3; learning rate 0.016 per 256 images,
    times 0.97 every 2.4 epochs, 5 epochs of warm-up; weight decay 1e-5; label smoothing 0.1;
    average of weights 0.9999; stochastic depth 0.2; AutoAugment; inputs as 2x - 1).
    """
    row = EFFICIENTNETS[size]
    batch_size = 2048
    return RunConfig(
        recipe=f"imagenet_efficientnet_b{size}",
        method=AdvPropConfig(attack=grey_levels(*row.attack)),
        model=ModelConfig(
            name=f"tf_efficientnet_b{size}",  # TensorFlow's padding, normalisation epsilon 1e-3
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            options={"drop_rate": row.dropout, "drop_path_rate": 0.2, "bn_momentum": 0.01},
        ),
        data=FolderDataConfig(
            image_size=row.image_size,
            crop_pct=round(row.image_size / (row.image_size + 32), 3),
            augmentation=Augmentation(auto_augment="v0"),
            expected_sizes=_SIZES,
        ),
        training=TrainingSettings(
            num_epochs=350,
            batch_size=batch_size,
            optimizer="rmsproptf",
            optimizer_options={"alpha": 0.9, "eps": 1e-3},
            learning_rate=0.016 * batch_size / 256,
            momentum=0.9,
            weight_decay=1e-5,
            schedule="staircase",
            decay_rate=0.97,
            decay_epochs=2.4,
            warmup_epochs=5.0,
            label_smoothing=0.1,
            ema_decay=0.9999,
            ema_warmup=False,
            mixed_precision="bf16",
            checkpoint_every_minutes=30.0,
            keep_checkpoints=2,
            num_workers=8,
        ),
        evaluation=EvaluationConfig(batch_size=64, attack=attack_to_test(epsilon=4 / 255)),
    )


def imagenet_resnet50() -> RunConfig:
    """Return AdvProp for ResNet-50: 105 epochs, one attack step of 1/255, three passes an image.

    With this schedule, the public port pytorch-classification-advprop reports 76.67 % for vanilla
    and 77.42 % for AdvProp (its README; EasyRobust measured 77.04 % for its weights): SGD at 0.1
    per 256 images, divided by 10 after 30, 60, 90 and 100 epochs, weight decay 1e-4.
    """
    return RunConfig(
        recipe="imagenet_resnet50",
        method=AdvPropConfig(attack=grey_levels(1, 1)),
        model=ModelConfig(name="resnet50", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        data=FolderDataConfig(image_size=224, interpolation="bilinear", expected_sizes=_SIZES),
        training=TrainingSettings(
            num_epochs=105,
            batch_size=256,
            optimizer="momentum",
            learning_rate=0.1,
            momentum=0.9,
            weight_decay=1e-4,
            schedule="milestones",
            decay_rate=0.1,
            milestones=(30.0, 60.0, 90.0, 100.0),
            mixed_precision="bf16",
            checkpoint_every_minutes=30.0,
            num_workers=8,
        ),
        evaluation=EvaluationConfig(batch_size=64, attack=attack_to_test(epsilon=4 / 255)),
    )
