"""What is left of AdvProp where no statistics can clash: nets with LayerNorm, from scratch.

PyramidAT shares all layers of a vision transformer and matches its masks (Herrmann et al., CVPR
2022); a class token for each branch is said to do as well as layers of their own (Rebuffi et al.,
ICLR 2023). Here with branches of affine parameters too, and beside it a ConvNeXt.

    python experiments/without_batchnorm.py
    python experiments/without_batchnorm.py --quick

How the nets were chosen, time and result: docs/reproducing.md, experiment 9.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from measures import shift
from settings import longer, method
from study import Group, Options, base_config, main

from advprop.comparisons.step_costs import TURNS, step_costs
from advprop.config import RunConfig

NUM_EPOCHS = 24
DROP_PATH = 0.1  # of both nets: masks to match


@dataclass(frozen=True, kw_only=True)
class Net:
    """A net of timm's at the size of the images, and how it is trained on them."""

    architecture: str
    options: dict[str, Any]
    learning_rate: float

    def of(self, base: RunConfig, *, quick: bool) -> RunConfig:
        """`base` with this net, trained by AdamW."""
        options = {**self.options, "drop_path_rate": DROP_PATH}
        # a quick run keeps its own number of epochs
        num_epochs = base.training.num_epochs if quick else NUM_EPOCHS
        training = dataclasses.replace(
            base.training,
            optimizer="adamw",
            learning_rate=self.learning_rate,
            weight_decay=0.05,
            batch_size=25,
            num_epochs=num_epochs,
            warmup_epochs=0.1 * num_epochs,
            evaluate_every_epochs=num_epochs,
        )
        model = base.model.model_copy(update={"name": self.architecture, "options": options})
        return base.model_copy(update={"model": model, "training": training})


def vit(patch_size: int, embed_dim: int, learning_rate: float) -> Net:
    """Two blocks of 16 channels a head, on patches of a convolution's output (4 pixels each)."""
    return Net(
        architecture="vit_tiny_r_s16_p8_224",
        options={
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": 2,
            "num_heads": embed_dim // 16,
            "weight_init": "jax",  # timm's usual one is far too small for so few channels
        },
        learning_rate=learning_rate,
    )


def convnext(output_stride: int) -> Net:
    """Five blocks in four stages behind a stem of two convolutions."""
    return Net(
        architecture="convnext_atto",
        options={
            "depths": [1, 1, 2, 1],
            "dims": [16, 32, 64, 128],
            "stem_type": "overlap_act",
            "output_stride": output_stride,
            "ls_init_value": None,
        },
        learning_rate=1e-3,
    )


NETS = {
    "emoji": {"ViT": vit(2, 64, 1e-3), "ConvNeXt": convnext(32)},
    # 28 pixels can be halved four times only
    "mnist5k": {"ViT": vit(1, 48, 4e-3), "ConvNeXt": convnext(16)},
}


def branched(config: RunConfig, separate: str) -> RunConfig:
    """`config` with branches that own nothing but this."""
    model = config.model.model_copy(update={"separate": separate})
    return config.model_copy(update={"model": model})


def variants(base: RunConfig, *, class_token: bool) -> dict[str, RunConfig]:
    """Vanilla, PyramidAT and AdvProp; the latter by class tokens too in transformers."""
    pyramid, advprop = (method(base, name) for name in ("pyramid", "advprop"))
    branch = pyramid.method.model_copy(update={"auxiliary_branch": True})
    passes = (config.method.build().passes_per_image for config in (pyramid, advprop))
    found = {
        "vanilla": base,
        "vanilla_equal_cost": longer(base, max(passes)),
        "pyramid": pyramid,
        "pyramid, affine": branched(pyramid.model_copy(update={"method": branch}), "affine"),
        "advprop, affine": branched(advprop, "affine"),
    }
    if class_token:
        found["advprop, class token"] = branched(advprop, "token")
    return found


def plan(name: str, options: Options) -> list[Group]:
    base = base_config(name, options)
    return [
        _group(name, kind, net.of(base, quick=options.quick), options)
        for kind, net in NETS[name].items()
    ]


def _group(name: str, kind: str, base: RunConfig, options: Options) -> Group:
    configs = variants(base, class_token=kind == "ViT")
    turns = 6 if options.quick else TURNS
    costs = step_costs(configs, options.out / f"step_costs-{kind}-{name}.json", turns=turns).costs
    return Group(name=kind, variants=configs, costs=costs)


if __name__ == "__main__":
    main("without_batchnorm", plan, extras={"shift": shift})
