"""Images are bytes until they are on their device, where nothing makes other numbers of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from advprop.data.batches.loaders import test_batches, train_batches
from advprop.data.batches.mixing import Mixing
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.builtin import load_builtin
from advprop.data.sets.folders import load_folder
from advprop.data.splits import ArraySplit, ImageSplit, Key
from advprop.data.view import View
from advprop.shapes import Batch, in_bytes, unit_range

COUNTS = {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2}
PLAIN, POLICY = Augmentation(), Augmentation(auto_augment="rand-m9-mstd0.5")
ERASING = Augmentation(random_erasing=0.5)
CPU = torch.device("cpu")


def moved(batch: Batch, memory_format: torch.memory_format = torch.contiguous_format) -> Batch:
    return batch.to(CPU, memory_format=memory_format)


def test_every_byte_is_the_number_that_torchvision_makes_of_it() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    expected = to_tensor(Image.fromarray(pixels[..., 0]))
    found = unit_range(torch.from_numpy(pixels).permute(2, 0, 1))
    assert torch.equal(found, expected)
    assert found.dtype == torch.float32
    assert unit_range(found) is found
    assert torch.equal(in_bytes(found), torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("augmentation", "kind"),
    [(None, torch.uint8), (PLAIN, torch.uint8), (POLICY, torch.uint8), (ERASING, torch.float32)],
)
def test_a_pipeline_says_whether_batches_hold_bytes(augmentation, kind, write_images) -> None:
    view = View(image_size=8, augmentation=augmentation, views={"other": PLAIN, "more": ERASING})
    split = load_folder(write_images(COUNTS), view).train
    keys = [Key(1, index) for index in range(4)]
    batch = split.__getitems__(keys)
    assert batch.images.dtype == kind
    assert {name: seen.dtype for name, seen in batch.views.items()} == {
        "other": torch.uint8,
        "more": torch.float32,
    }
    for layout in (torch.contiguous_format, torch.channels_last):
        floats = moved(batch, layout)
        assert torch.equal(floats.images, unit_range(split.images(keys)))
        assert floats.images.is_contiguous(memory_format=layout)
        assert torch.equal(floats.views["other"], batch.views["other"] / torch.tensor(255.0))
        assert torch.equal(floats.views["more"], batch.views["more"])


def test_evaluation_sees_the_same_image_whatever_training_makes_of_it(write_images) -> None:
    root = write_images(COUNTS)
    plain, erasing = (
        load_folder(root, View(image_size=8, augmentation=augmentation)).train
        for augmentation in (PLAIN, ERASING)
    )
    keys = [Key(None, 1), Key(None, 6)]
    assert torch.equal(unit_range(plain.images(keys)), erasing.images(keys))
    assert torch.equal(plain.image(6), unit_range(plain.preprocessing.framed(plain.read(6))[0]))


def test_images_that_are_not_of_bytes_stay_floats() -> None:
    class Own(ImageSplit):
        labels = torch.zeros(4, dtype=torch.int64)

        def images(self, keys) -> Tensor:
            return torch.full((len(keys), 1, 2, 2), 0.3)

    for split in (Own(), load_builtin("digits").test):  # digits have 17 levels
        batch = next(iter(test_batches(split, batch_size=4)))
        assert batch.images.dtype == torch.float32
        assert moved(batch).images is batch.images


def test_mixtures_are_of_the_same_numbers_as_before() -> None:
    pixels = torch.randint(256, (16, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 4
    in_bytes = ArraySplit(pixels=pixels.byte(), labels=labels)

    class Floats(ArraySplit):
        def __getitems__(self, keys) -> Batch:
            return self.batch_of(keys, unit_range(self.images(keys)))

    def mixed(split: ArraySplit) -> list[Batch]:
        options = {"mixing": Mixing(mixup=0.5, cutmix=1.0), "num_classes": 4}
        return list(train_batches(split, batch_size=8, seed=0, epoch=0, **options))

    for one, other in zip(mixed(in_bytes), mixed(Floats(**vars(in_bytes))), strict=True):
        assert one.images.dtype == torch.float32
        for name in (field.name for field in dataclasses.fields(Batch)):
            first, second = getattr(one, name), getattr(other, name)
            assert torch.equal(first, second) if isinstance(first, Tensor) else first == second


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_hand_over_bytes(write_images) -> None:
    split = load_folder(write_images(COUNTS), View(image_size=8, augmentation=PLAIN)).train
    (batch, *_) = train_batches(split, batch_size=4, seed=0, epoch=0, num_workers=1)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_shared()
