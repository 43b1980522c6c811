"""Views that a method asks the loader for, beside images that stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import AugMixAugment

from advprop.config.overrides import apply_overrides
from advprop.data.batches.loaders import train_batches
from advprop.data.batches.mixing import Mixing
from advprop.data.batches.sampling import Sampling
from advprop.data.decoding import DecodedSplit
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.builtin import load_builtin
from advprop.data.sets.folders import load_folder
from advprop.data.splits import ImageSplit
from advprop.data.view import View
from advprop.methods.augmix import AugMix
from advprop.methods.maxup import MaxUp
from advprop.recipes.builtin import digits
from advprop.recipes.images import from_scratch
from advprop.shapes import AugMixed, Batch, in_bytes, unit_range

AUGMIX, REDRAWN = AugMix().versions, MaxUp(draws=3).versions


@pytest.fixture(params=["digits", "photos"])
def split(request: pytest.FixtureRequest, write_images: Callable[..., Path]) -> ImageSplit:
    if request.param == "digits":
        return load_builtin("digits", num_train=24).train
    root = write_images({"train/cat": 12, "train/dog": 12, "val/cat": 2, "val/dog": 2})
    return load_folder(root, View(image_size=12, augmentation=Augmentation())).train


def batches(split: ImageSplit, *, epoch: int = 0, **settings: object) -> list[Batch]:
    settings = {"batch_size": 8, "versions": AUGMIX, **settings}
    return list(train_batches(split, seed=0, epoch=epoch, **settings))  # type: ignore[arg-type]


def by_image(found: list[Batch], name: str) -> dict[tuple[int, int], torch.Tensor]:
    return {
        (int(index), int(copy)): view
        for batch in found
        for index, copy, view in zip(batch.indices, batch.copies, batch.views[name], strict=True)
    }


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("workers", [0, 2])
def test_views_come_beside_images_and_change_none(split: ImageSplit, workers: int) -> None:
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    plain, found = batches(split, versions={}), batches(split, num_workers=workers)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]
    for batch, without in zip(found, plain, strict=True):
        assert torch.equal(batch.images, without.images)
        assert list(batch.views) == ["augmix1", "augmix2"]
        for view in batch.views.values():
            assert view.shape == batch.images.shape
            assert view.dtype == torch.uint8
            assert not torch.equal(view, in_bytes(batch.images))
        assert not torch.equal(*batch.views.values())
    assert all(not batch.views for batch in plain)


def test_views_are_a_function_of_seed_epoch_image_and_copy(split: ImageSplit) -> None:
    first = by_image(batches(split), "augmix1")
    assert same(first, by_image(batches(split, batch_size=4, num_workers=2), "augmix1"))
    rest = by_image(batches(split, first_batch=2), "augmix1")
    assert same(rest, {key: first[key] for key in rest})
    ranks = [by_image(batches(split, rank=rank, world_size=2), "augmix1") for rank in (0, 1)]
    assert same({**ranks[0], **ranks[1]}, first)
    assert not same(first, by_image(batches(split, epoch=1), "augmix1"))
    repeated = by_image(batches(split, sampling=Sampling(repeats=2)), "augmix1")
    (index, _), *_ = repeated
    assert not torch.equal(repeated[index, 0], repeated[index, 1])


def test_views_are_mixtures_of_the_finished_image(
    split: ImageSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same crop, flip and mixture of two: without operations all that is left is the image."""
    monkeypatch.setattr(AugMixAugment, "__call__", lambda self, image: image)
    for settings in ({}, {"mixing": Mixing(mixup=1.0), "num_classes": 10}):
        for batch in batches(split, **settings):
            for view in batch.views.values():
                assert torch.equal(view, in_bytes(batch.images))


def test_settings_reach_the_operations(split: ImageSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[AugMixAugment] = []
    monkeypatch.setattr(AugMixAugment, "__call__", lambda self, image: seen.append(self) or image)
    version = AugMixed(severity=7.0, width=4, depth=2, alpha=0.5)
    batches(split, versions={"strong": version})
    batches(split, versions={"any": replace(version, depth=None)})
    augment = seen[0]
    assert (augment.width, augment.depth, augment.alpha) == (4, 2, 0.5)
    assert seen[-1].depth == -1  # timm's word for one to three
    assert sorted(operation.name for operation in augment.ops) == [
        *("AutoContrast", "Equalize", "PosterizeIncreasing", "Rotate", "ShearX", "ShearY"),
        *("SolarizeIncreasing", "TranslateXRel", "TranslateYRel"),
    ]
    assert {operation.magnitude for operation in augment.ops} == {7.0}


@pytest.mark.parametrize(("mode", "black"), [("L", 0), ("RGB", (0, 0, 0))])
def test_operations_are_those_of_the_paper(
    mode: str, black: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the transforms of its code, written out: bilinear, black outside, sizes by edge."""
    seen: list[AugMixAugment] = []
    monkeypatch.setattr(AugMixAugment, "__call__", lambda self, image: seen.append(self) or image)
    images = load_builtin("digits", num_train=10).train
    batches(images, versions={"full": AugMixed(severity=10.0)})
    operations = {operation.name: operation for operation in seen[0].ops}
    monkeypatch.setattr("random.uniform", lambda low, high: high * 0.6)
    monkeypatch.setattr("random.random", lambda: 0.0)  # of signs
    shape = (24, 24) if mode == "L" else (24, 24, 3)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    bilinear = Image.Resampling.BILINEAR

    def moved(matrix: tuple[float, ...]) -> Image.Image:
        return image.transform((24, 24), Image.Transform.AFFINE, matrix, bilinear, fillcolor=black)

    def by_value(table: Callable[[int], int]) -> list[Image.Image]:
        return [image.point([table(value) for value in range(256)] * len(image.getbands()))]

    signs = [1, -1]
    expected = {
        "Rotate": [image.rotate(sign * 18, bilinear) for sign in signs],
        "ShearX": [moved((1, sign * 0.18, 0, 0, 1, 0)) for sign in signs],
        "ShearY": [moved((1, 0, 0, sign * 0.18, 1, 0)) for sign in signs],
        "TranslateXRel": [moved((1, 0, sign * 0.6 * 24 / 3, 0, 1, 0)) for sign in signs],
        "TranslateYRel": [moved((1, 0, 0, 0, 1, sign * 0.6 * 24 / 3)) for sign in signs],
        "SolarizeIncreasing": by_value(lambda value: value if value < 256 - 153 else 255 - value),
        "PosterizeIncreasing": by_value(lambda value: value & 0b11000000),
    }
    for name, options in expected.items():
        found = np.asarray(operations[name](image))
        assert any(np.array_equal(found, np.asarray(option)) for option in options), name


def test_embedded_images_and_mixtures_train_by_it() -> None:
    config = apply_overrides(digits().with_method("augmix"), ["data.mixing.cutmix=1"])
    assert config.method.build().views == ("augmix1", "augmix2")


def test_a_batch_without_views_says_what_to_give() -> None:
    batch = Batch(images=torch.rand(2, 3, 4, 4), labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r'no view "augmix1" \(it has none\): give it in Batch'):
        AugMix().forward_backward(torch.nn.Flatten(), batch)


@pytest.fixture(params=["digits", "photos"])
def augmented(request: pytest.FixtureRequest, write_images: Callable[..., Path]) -> DecodedSplit:
    crop = Augmentation(scale=(0.3, 1.0), random_erasing=0.2)
    if request.param == "digits":
        return load_builtin("digits", num_train=24, augmentation=crop).train
    root = write_images({"train/cat": 12, "train/dog": 12, "val/cat": 2, "val/dog": 2})
    return load_folder(root, View(image_size=12, augmentation=crop)).train


@pytest.mark.parametrize("workers", [0, 2])
def test_draws_come_beside_images_and_change_none(augmented: DecodedSplit, workers: int) -> None:
    plain = batches(augmented, versions={})
    found = batches(augmented, versions=REDRAWN, num_workers=workers)
    for batch, without in zip(found, plain, strict=True):
        assert torch.equal(batch.images, without.images)
        draws = [batch.images, batch.views["draw2"], batch.views["draw3"]]
        assert all(0 <= draw.amin() <= draw.amax() <= 1 for draw in draws)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert (draws[one] != draws[other]).flatten(1).any(dim=1).float().mean() > 0.7


def test_draws_are_a_function_of_seed_epoch_image_and_copy(augmented: DecodedSplit) -> None:
    first = by_image(batches(augmented, versions=REDRAWN), "draw2")
    again = batches(augmented, versions=REDRAWN, batch_size=4, num_workers=2)
    assert same(first, by_image(again, "draw2"))
    assert not same(first, by_image(batches(augmented, versions=REDRAWN, epoch=1), "draw2"))


def test_all_draws_are_alike_in_kind(augmented: DecodedSplit) -> None:
    """Over many epochs their pixels have the mean and the deviation of the images'."""
    found = [b for epoch in range(20) for b in batches(augmented, versions=REDRAWN, epoch=epoch)]
    images = torch.cat([batch.images for batch in found])
    draws = torch.cat([batch.views["draw3"] for batch in found])
    torch.testing.assert_close(images.mean(), draws.mean(), atol=0.01, rtol=0)
    torch.testing.assert_close(images.std(), draws.std(), atol=0.01, rtol=0)


def test_an_image_is_read_once_for_all_draws(
    augmented: DecodedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, read = type(augmented).read, []
    monkeypatch.setattr(type(augmented), "read", lambda s, i: read.append(i) or whole(s, i))
    batches(augmented, versions=REDRAWN)
    assert sorted(read) == list(range(24))


def test_draws_without_augmentation_are_refused_where_they_are_asked_for() -> None:
    plain = load_builtin("digits", num_train=24).train
    with pytest.raises(ValueError, match=r"draw2, draw3 are further draws .* these images have n"):
        batches(plain, versions=REDRAWN)
    with pytest.raises(ValueError, match=r"method maxup compares several draws .*hflip.*0"):
        apply_overrides(digits().with_method("maxup"), [])
    config = from_scratch().with_method("maxup")
    assert apply_overrides(config, []).method.draws == 4
    for mixing in ("mixup", "cutmix"):
        with pytest.raises(ValueError, match=r"method maxup .* mixup and CutMix give each"):
            apply_overrides(config, [f"data.mixing.{mixing}=0.2"])


def test_embedded_images_are_augmented_if_that_is_asked() -> None:
    setting = 'data.augmentation={"scale": [0.3, 1], "hflip": 0}'
    plain = digits().data.load(0).train
    train = apply_overrides(digits(), [setting]).data.load(0).train
    assert torch.equal(train.labels, plain.labels)
    keys = [(None, index) for index in range(20)]
    torch.testing.assert_close(
        unit_range(train.images(keys)), plain.images(keys), atol=0.5 / 255 + 1e-6, rtol=0
    )
    assert not torch.equal(train.image(0, epoch=0), train.image(0, epoch=1))
    taken = train.taken([3, 1])
    assert torch.equal(taken.labels, plain.labels[[3, 1]])
    assert torch.equal(taken.image(1), train.image(1))


def test_another_kind_of_source_has_the_augmentation_of_its_own() -> None:
    crop = 'data.augmentation={"scale": [0.3, 1]}'
    folder = apply_overrides(digits(), [crop, "data.kind=folder", "data.root=photos"])
    again = ["data.kind=builtin", "data.name=digits"]
    assert folder.data.augmentation == Augmentation(scale=(0.3, 1.0))
    assert apply_overrides(digits(), ["data.kind=folder"]).data.augmentation == Augmentation()
    assert apply_overrides(from_scratch(), again).data.augmentation is None
