"""An export gives the same classes by every route: ours, timm, transformers, ONNX, torch.export.

The code that is run is the model card's own, on pictures of every kind.
"""

from __future__ import annotations

import ast
import io
import itertools
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import image_bytes as kinds
import numpy as np
import pytest
import torch
from image_bytes import png, random_samples, tiff
from PIL import Image
from torch import Tensor

from advprop.data.preprocessing import Preprocessing
from advprop.data.reading import read_image
from advprop.exports.card import model_card
from advprop.exports.export import load_export, write_export
from advprop.exports.format import ExportInfo
from advprop.exports.prediction import predict
from advprop.models.build import build_model
from advprop.models.standardize import Standardized

RGB = Preprocessing(image_shape=(3, 32, 32), interpolation="bilinear", crop_pct=0.9)
GREY = Preprocessing(image_shape=(1, 32, 32), crop_pct=1.0)
MEAN, STD = (0.41, 0.37, 0.59), (0.21, 0.33, 0.25)


def pixels(seed: int, channels: int, size: tuple[int, int] = (52, 40)) -> np.ndarray:
    """A smooth random picture, of values from 0 to 1."""
    coarse = torch.rand(1, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size[::-1], mode="bilinear")
    return fine[0].permute(1, 2, 0).squeeze(2).numpy()


def picture(mode: str, seed: int) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    return Image.fromarray(np.uint8(255 * pixels(seed, channels)), mode)


Kind = tuple[Image.Image, dict[str, Any]]


def one_transparent(mode: str, seed: int) -> Kind:
    """One of its few colours is transparent."""
    image = picture(mode, seed).point(lambda value: value // 64 * 64)
    return image, {"transparency": image.getpixel((20, 20))}


def palette(seed: int) -> Kind:
    """A fifth of its colours are transparent, in part or wholly."""
    return picture("RGB", seed).quantize(40), {
        "transparency": bytes(255 if index % 5 else 20 * (index % 7) for index in range(40))
    }


def turned(seed: int, orientation: int) -> Kind:
    image = picture("RGB", seed)
    image.getexif()[0x112] = orientation
    return image, {"exif": image.getexif()}


def sixteen(seed: int) -> Kind:
    return Image.fromarray(np.uint16(65535 * pixels(seed, 1))), {}


def animated(mode: str, seed: int, **options: Any) -> Kind:
    return picture(mode, seed), {
        "save_all": True,
        "append_images": [picture(mode, seed + 50)],
        **options,
    }


KINDS: dict[str, Callable[[int], Kind]] = {
    "colours.jpg": lambda seed: (picture("RGB", seed), {}),
    "print.jpg": lambda seed: (picture("CMYK", seed), {}),
    "grey.jpg": lambda seed: (picture("L", seed), {}),
    "grey_one_transparent.png": partial(one_transparent, "L"),
    "black_or_white.png": lambda seed: (picture("L", seed).convert("1"), {}),
    "grey_transparent.png": lambda seed: (picture("LA", seed), {}),
    "transparent.png": lambda seed: (picture("RGBA", seed), {}),
    "transparent.webp": lambda seed: (picture("RGBA", seed), {"lossless": True}),
    "transparent.tiff": lambda seed: (picture("RGBA", seed), {}),
    "one_colour_transparent.png": partial(one_transparent, "RGB"),
    "palette.bmp": lambda seed: (picture("RGB", seed).quantize(30), {}),
    "palette_transparent.png": palette,
    "palette_transparent.gif": lambda seed: (palette(seed)[0], {"transparency": 7}),
    "animated.gif": partial(animated, "RGB"),
    "animated.webp": partial(animated, "RGBA", lossless=True),
    "sixteen_bits.png": sixteen,
    "sixteen_bits.tiff": sixteen,
    "turned_3.jpg": partial(turned, orientation=3),
    "turned_5.jpg": partial(turned, orientation=5),
    "turned_6.png": partial(turned, orientation=6),
    "turned_8.webp": partial(turned, orientation=8),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for seed, (name, make) in enumerate(KINDS.items()):
        image, options = make(seed)
        image.save(folder / name, **options)
    return [folder / name for name in KINDS]


def trained(pictures: list[Path], preprocessing: Preprocessing) -> Standardized:
    """Each picture is a class of its own, so that small changes to one give another class."""
    channels = preprocessing.image_shape[0]
    torch.manual_seed(0)
    model = build_model(
        "test_resnet",
        num_classes=len(pictures),
        in_chans=channels,
        mean=MEAN[:channels],
        std=STD[:channels],
    )
    images = torch.stack([preprocessing(path) for path in pictures])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), torch.arange(len(images))).backward()
        optimizer.step()
    return model.eval()


@dataclass
class Exported:
    folder: Path
    card: str
    names: list[str]
    """Each picture's class as `predict` sees it."""
    probabilities: Tensor

    @classmethod
    def of(
        cls, pictures: list[Path], preprocessing: Preprocessing, folder: Path, *formats: str
    ) -> Exported:
        model = trained(pictures, preprocessing)
        classes = [path.name for path in pictures]
        write_export(
            model, folder, class_names=classes, preprocessing=preprocessing, formats=formats
        )
        export = load_export(folder)
        told = predict(
            export.model, pictures, class_names=classes, preprocessing=export.preprocessing, top=99
        )
        names = [ranked[0][0] for ranked in told]
        assert len(set(names)) > len(names) / 2  # or it would prove little
        rows = [[dict(ranked)[name] for name in classes] for ranked in told]
        return cls(folder, (folder / "README.md").read_text(), names, torch.tensor(rows))


@pytest.fixture(scope="module")
def export(pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exports") / "rgb"
    return Exported.of(pictures, RGB, folder, "onnx", "torch_export")


def blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.S)


def card_of(preprocessing: Preprocessing) -> str:
    channels = preprocessing.image_shape[0]
    check = {"format": "onnx", "max_difference": 0.0, "tolerance": 1.0, "batch_sizes": [1]}
    info = ExportInfo(
        class_names=tuple(KINDS),
        preprocessing=preprocessing,
        provenance={},
        options={},
        checks={"model.onnx": check},
    )
    return model_card(
        info,
        architecture="small_resnet",
        mean=MEAN[:channels],
        std=STD[:channels],
        branch="clean",
    )


def run_card(card: str, words: str, folder: Path, pictures: list[Path]) -> Iterator[dict[str, Any]]:
    """The card's block with these words, and those that it needs; all names after each picture.

    What needs no picture is run once; what is printed stands under "printed".
    """
    names: dict[str, Any] = {}
    steps: list[str] = []
    made: set[str] = set()  # by the steps
    for block in blocks(card):
        if "print(" in block and words not in block:
            continue
        for line in ast.parse(block.replace("FOLDER", str(folder))).body:
            found = [node for node in ast.walk(line) if isinstance(node, ast.Name)]
            if "photo.jpg" in ast.unparse(line) or made & {node.id for node in found}:
                steps.append(ast.unparse(line))
                made |= {node.id for node in found if isinstance(node.ctx, ast.Store)}
            else:
                exec(ast.unparse(line), names)
    for path in pictures:
        with redirect_stdout(io.StringIO()) as printed:
            exec("\n".join(steps).replace("photo.jpg", str(path)), names)
        yield {**names, "printed": printed.getvalue().strip()}


def by_timm(after: dict[str, Any]) -> Tensor:
    return after["probabilities"]


def by_pipeline(after: dict[str, Any]) -> Tensor:
    scores = after["classify"](after["opened"](after["path"]), top_k=99)
    return torch.tensor([{s["label"]: s["score"] for s in scores}[name] for name in KINDS])


def by_logits(after: dict[str, Any]) -> Tensor:
    return torch.as_tensor(after["logits"][0]).softmax(dim=0)


ROUTES: dict[str, tuple[str, Callable[[dict[str, Any]], Tensor]]] = {
    "timm": ("timm.create_model", by_timm),
    "transformers": ("pipeline(", by_pipeline),
    "onnx": ("onnxruntime", by_logits),
    "torch_export": ("torch.export.load", by_logits),
}


@pytest.mark.parametrize("route", ROUTES)
def test_the_cards_code_gives_the_classes_of_predict(
    route: str, export: Exported, pictures: list[Path]
) -> None:
    words, probabilities = ROUTES[route]
    for path, name, expected, after in zip(
        pictures,
        export.names,
        export.probabilities,
        run_card(export.card, words, export.folder, pictures),
        strict=True,
    ):
        assert after["printed"] == name, path.name
        found = probabilities({**after, "path": path})
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5, msg=path.name)


def test_grey_pictures_take_other_code(pictures: list[Path], tmp_path: Path) -> None:
    export = Exported.of(pictures, GREY, tmp_path / "grey")
    for words in ("timm.create_model", "AutoModelForImageClassification"):
        found = run_card(export.card, words, export.folder, pictures)
        assert [after["printed"] for after in found] == export.names


def every_file() -> Iterator[tuple[str, bytes]]:
    """Each kind of picture by its bytes, rare ones too."""
    for seed, (name, make) in enumerate(KINDS.items()):
        (image, options), file = make(seed), io.BytesIO()
        image.save(file, Path(name).suffix[1:].replace("jpg", "jpeg"), **options)
        yield name, file.getvalue()
    for bits, colour in itertools.product((1, 2, 4, 8, 16), (kinds.GREY, kinds.RGB)):
        if bits >= 8 or colour == kinds.GREY:
            rows = random_samples(6, 8, *([3] if colour else []), top=2**bits)
            rows = rows.astype(np.uint8) if bits < 16 else rows
            key = struct.pack(f">{3 if colour else 1}H", *np.atleast_1d(rows[2, 3]).tolist())
            yield f"grey_or_colour_{colour}_{bits}.png", png(rows, colour, bits)
            yield f"one_transparent_{colour}_{bits}.png", png(rows, colour, bits, tRNS=key)
    for channels, colour in ((2, kinds.GREY_ALPHA), (4, kinds.RGBA)):
        yield f"alpha_{channels}.png", png(random_samples(6, 8, channels, top=65536), colour)
    for bits, white, order in itertools.product((2, 4, 8, 12, 16), (0, 1), "<>"):
        rows = random_samples(6, 8, top=2**bits)
        yield f"tiff_{bits}_{white}_{order}.tiff", tiff(rows, bits, white, order=order)
    for numbers in (np.float32, np.int32):
        file = io.BytesIO()
        Image.fromarray(np.full((6, 8), 200, numbers)).save(file, "tiff")
        yield f"{numbers.__name__}.tiff", file.getvalue()
    file = io.BytesIO()
    picture("RGB", 3).convert("LAB").save(file, "tiff")
    yield "lab.tiff", file.getvalue()
    yield "netpbm.pgm", b"P5 8 6 4095\n" + random_samples(6, 8, top=4096).astype(">u2").tobytes()


def pixels_or_error(open_: Callable[[Path], Image.Image], path: Path) -> np.ndarray | str:
    try:
        return np.asarray(open_(path)).astype(int)
    except (ValueError, OSError) as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:Palette images")
@pytest.mark.parametrize("channels", [1, 3])
def test_the_card_opens_pictures_as_training_does_or_refuses_them(
    channels: int, tmp_path: Path
) -> None:
    names: dict[str, Any] = {}
    exec(blocks(card_of(Preprocessing(image_shape=(channels, 32, 32))))[0], names)
    refused = set()
    for name, content in every_file():
        (tmp_path / name).write_bytes(content)
        ours = pixels_or_error(partial(read_image, channels=channels), tmp_path / name)
        cards = pixels_or_error(names["opened"], tmp_path / name)
        if isinstance(cards, str):
            refused.add(name)
            assert isinstance(ours, str) or "read_image" in cards, name
        else:
            assert isinstance(ours, np.ndarray), (name, ours)
            assert np.abs(ours - cards).max() == 0, name
    unread = {"float32.tiff", "int32.tiff", "tiff_12_0_<.tiff", "tiff_12_0_>.tiff"}
    few = {f"one_transparent_{kind}.png" for kind in ("0_2", "0_4", "0_16", "2_16")}
    assert refused == unread | few | {"tiff_12_1_<.tiff", "tiff_12_1_>.tiff"} | {
        f"tiff_16_0_{order}.tiff" for order in "<>"
    }


@pytest.mark.filterwarnings("ignore:Palette images")
def test_a_picture_opened_without_the_cards_code_may_get_another_class(
    export: Exported, pictures: list[Path]
) -> None:
    """As the card says: transformers' pipeline turns pictures, but lays none over white."""
    (after, *_) = run_card(export.card, "pipeline(", export.folder, pictures[:1])
    other = set()
    for path, name in zip(pictures, export.names, strict=True):
        with Image.open(path) as image:
            if after["classify"](image)[0]["label"] != name:
                other.add(path.name)
    assert {"transparent.png", "sixteen_bits.png"} <= other
    assert not any(name.startswith("turned") for name in other)


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(image_shape=(3, 32, 32), interpolation="lanczos", crop_pct=0.77),
        Preprocessing(image_shape=(1, 33, 33), interpolation="nearest", crop_pct=0.875),
        Preprocessing(image_shape=(3, 48, 31), interpolation="bicubic", crop_pct=0.9),
        Preprocessing(image_shape=(3, 31, 48), interpolation="bilinear", crop_pct=1.0),
        Preprocessing(image_shape=(3, 31, 48), crop_pct=0.95, crop_mode="squash"),
    ],
    ids=["square", "nearest", "tall", "wide", "squashed"],
)
def test_the_cards_preprocessing_without_timm_equals_ours(
    preprocessing: Preprocessing, pictures: list[Path], tmp_path: Path
) -> None:
    card = card_of(preprocessing)
    for path, after in zip(pictures, run_card(card, "nothing", tmp_path, pictures), strict=True):
        assert np.array_equal(after["images"][0], preprocessing(path).numpy()), path.name
