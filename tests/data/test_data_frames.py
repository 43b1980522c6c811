"""Frames tell where in its source image each pixel of a view lies, and recording them is free."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from advprop.data.batches.loaders import train_batches
from advprop.data.batches.mixing import Mixing
from advprop.data.decoding import DecodedSplit
from advprop.data.frames import WHOLE, frames_of
from advprop.data.preprocessing import Augmentation, Preprocessing
from advprop.data.reading import read_image
from advprop.data.sets.builtin import load_builtin
from advprop.data.sets.folders import FileSplit, load_folder
from advprop.data.splits import Key
from advprop.data.view import View
from advprop.randomness import random_streams
from advprop.shapes import Batch, unit_range
from advprop.training.micro_batches import micro_batches

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SIZE = 24
COUNTS = {"train/a": 8, "train/b": 8, "val/a": 1, "val/b": 1}


def coordinates(height: int, width: int) -> Image.Image:
    """Red is the column, green the row, blue tells left from right by a step in the middle."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


def split_of(tmp_path: Path, image: Image.Image, augmentation: Augmentation | None) -> FileSplit:
    path = tmp_path / "image.png"
    image.save(path)
    preprocessing = Preprocessing(
        image_shape=(3, SIZE, SIZE), interpolation="bilinear", crop_pct=0.75
    )
    return FileSplit(
        paths=(str(path),),
        labels=torch.zeros(1, dtype=torch.int64),
        preprocessing=preprocessing,
        augmentation=augmentation,
    )


def whole(image: Image.Image) -> Tensor:
    return torch.tensor(np.asarray(image)).permute(2, 0, 1)[None] / 255


def errors(batch: Batch, image: Image.Image) -> Tensor:
    """In grey levels, so in pixels of the source: the view against the source at its frame."""
    assert batch.frames is not None
    assert batch.frames.shape == (len(batch), 2, 3)
    grid = F.affine_grid(batch.frames, [len(batch), 3, SIZE, SIZE], align_corners=False)
    source = whole(image).expand(len(batch), -1, -1, -1)
    found = F.grid_sample(source, grid, padding_mode="border", align_corners=False)
    return batch.images - 255 * found


@pytest.mark.parametrize("shape", [(160, 240), (240, 100), (150, 150)], ids=str)
@pytest.mark.parametrize("hflip", [0.0, 0.5, 1.0])
def test_the_source_at_its_frame_is_the_view(
    shape: tuple[int, int], hflip: float, tmp_path: Path
) -> None:
    image = coordinates(*shape)
    split = split_of(tmp_path, image, Augmentation(hflip=hflip))
    batch = split.__getitems__([Key(epoch, 0) for epoch in range(40)])
    found = errors(batch, image)
    # the views see the crop alone at its edges, the source goes on there
    inside = found[..., 2:-2, 2:-2]
    assert inside.abs().max() < 1.0
    # rounding to bytes averages out: a frame that is half a pixel off would not
    assert inside[:, :2].mean(dim=(0, 2, 3)).abs().max() < 0.1
    assert found.abs().max() < 3.0
    flipped = (batch.frames[:, 0, 0] < 0).float().mean()
    assert (flipped == hflip) if hflip != 0.5 else (0.2 < flipped < 0.8)
    assert len(batch.frames.flatten(1).unique(dim=0)) > 30


def test_a_fallback_crop_of_a_long_image_has_its_frame_too(tmp_path: Path) -> None:
    image = coordinates(20, 250)
    settings = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0)
    split = split_of(tmp_path, image, settings)
    batch = split.__getitems__([Key(0, 0)])
    # the middle 20 of 250 columns
    torch.testing.assert_close(batch.frames[0], torch.tensor([[0.08, 0, 0], [0, 1.0, 0]]))
    assert errors(batch, image)[..., 2:-2, 2:-2].abs().max() < 1.0


@pytest.mark.parametrize("epoch", [None, 0])
def test_without_augmentation_it_is_the_centre_that_evaluation_sees(
    epoch: int | None, tmp_path: Path
) -> None:
    image = coordinates(120, 250)
    batch = split_of(tmp_path, image, None).__getitems__([Key(epoch, 0)])
    # the shorter edge to 32, so 66 wide; then the middle 24 x 24, whose left edge is at 21
    expected = torch.tensor([[24 / 66, 0, 2 * (21 + 12) / 66 - 1], [0, 24 / 32, 0]])
    torch.testing.assert_close(batch.frames[0], expected)
    assert errors(batch, image)[..., 2:-2, 2:-2].abs().max() < 2.0


def test_views_need_not_be_square() -> None:
    shape = Preprocessing(image_shape=(3, 24, 36), crop_pct=0.75, interpolation="bilinear")
    view, frame = shape.framed(coordinates(120, 120))
    # to 48 x 48, the middle 24 x 36 of it: a pixel is 2.5 of the source, and 6 columns are left out
    assert frame == pytest.approx((0.75, 0, 0, 0, 0.5, 0))
    columns = [2.5 * (6 + column + 0.5) - 0.5 for column in (2, 33)]
    assert view[0, 0, [2, 33]].tolist() == pytest.approx(columns, abs=1)


def test_policies_and_erasing_leave_the_frame_that_of_crop_and_flip(tmp_path: Path) -> None:
    image = coordinates(160, 240)
    keys = [Key(epoch, 0) for epoch in range(10)]
    plain = split_of(tmp_path, image, Augmentation()).__getitems__(keys)
    settings = Augmentation(auto_augment="rand-m9-mstd0.5", random_erasing=0.5, hflip=0.5)
    other = split_of(tmp_path, image, settings).__getitems__(keys)
    assert torch.equal(plain.frames, other.frames)
    assert not torch.equal(plain.images, other.images)


@pytest.mark.parametrize(
    "settings",
    [
        Augmentation(),
        Augmentation(hflip=0.0),
        Augmentation(auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5),
        Augmentation(auto_augment="original", hflip=0.0),
    ],
    ids=lambda settings: f"{settings.auto_augment}, hflip {settings.hflip}",
)
def test_recording_changes_no_pixel(settings: Augmentation, write_images) -> None:
    """The transform as timm gives it, nothing listening, on the same random numbers."""
    root = write_images(COUNTS, size=(50, 40))
    split = load_folder(root, View(image_size=SIZE, augmentation=settings)).train
    transform = settings.transform(split.preprocessing)
    for key in (Key(0, 3), Key(0, 3, 1), Key(2, 3), Key(1, 11)):
        picture = read_image(split.paths[key.index], channels=3)
        parts = (0, key.epoch, key.index, *([key.copy] if key.copy else []), "augmentation")
        with random_streams(*parts):
            expected = settings.erase(unit_range(transform(picture)))
        assert torch.equal(unit_range(split.images([key]))[0], expected)


def loaded(root: Path, **options) -> list[Batch]:
    split = load_folder(root, View(image_size=SIZE, augmentation=Augmentation())).train
    return list(train_batches(split, batch_size=8, seed=0, epoch=1, **options))


def test_frames_travel_through_workers_and_with_their_batch(write_images) -> None:
    root = write_images(COUNTS, size=(50, 40))
    here, there = loaded(root), loaded(root, num_workers=2)
    for batch, other in zip(here, there, strict=True):
        assert torch.equal(batch.frames, other.frames)
    moved = here[0].to(torch.device("cpu"), memory_format=torch.channels_last)
    assert torch.equal(moved.frames, here[0].frames)
    on_meta = here[0].to(torch.device("meta"), memory_format=torch.channels_last)
    assert on_meta.frames.device.type == "meta"
    parts = list(micro_batches(here[0], 4))
    assert torch.equal(torch.cat([part.frames for part in parts]), here[0].frames)


def test_frames_are_those_of_the_images_that_stand_in_for_others(write_images) -> None:
    root = write_images(COUNTS, size=(50, 40))
    (root / "train/a/003.png").write_bytes(b"no image")
    split = load_folder(
        root, View(image_size=SIZE, augmentation=Augmentation(), max_unreadable=0.5)
    ).train
    assert isinstance(split, DecodedSplit)
    batch = split.__getitems__([Key(0, 3)])
    shown = Key(0, int(batch.indices[0]), int(batch.copies[0]))
    assert shown.index != 3
    assert torch.equal(split.__getitems__([shown]).frames, batch.frames)


def test_images_in_memory_are_whole() -> None:
    assert load_builtin("digits").train.__getitems__([Key(0, 1), Key(0, 2)]).frames is None


def test_whole_views_have_no_frames(write_images) -> None:
    root = write_images(COUNTS, size=(SIZE, SIZE))
    settings = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0)
    for augmentation in (settings, None):
        split = load_folder(
            root, View(image_size=SIZE, crop_pct=1.0, augmentation=augmentation)
        ).train
        assert split.__getitems__([Key(0, 0), Key(0, 1)]).frames is None
    flipped = (-1.0, *WHOLE[1:])
    assert frames_of([WHOLE, flipped]).tolist()[1] == [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_mixtures_have_no_frames(write_images) -> None:
    root = write_images(COUNTS, size=(50, 40))
    for batch in loaded(root, mixing=Mixing(mixup=1.0), num_classes=2):
        assert batch.frames is None
