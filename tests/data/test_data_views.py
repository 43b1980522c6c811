"""Further versions of the images, for the branches that learn from them."""

import pytest
import torch

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.data.batches.loaders import test_batches, train_batches
from advprop.data.batches.mixing import Mixing
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.folders import load_folder
from advprop.data.view import View
from advprop.recipes import RECIPES

COUNTS = {"train/cat": 6, "train/dog": 6, "val/cat": 2, "val/dog": 2}
WEAK = Augmentation(scale=(0.5, 1.0))
STRONG = Augmentation(scale=(0.2, 1.0), auto_augment="rand-m9-mstd0.5")


def load(root, **settings):
    return load_folder(root, View(image_size=12, augmentation=WEAK, **settings))


def batches(data, *, epoch=0, workers=0, **settings):
    return list(
        train_batches(
            data.train, batch_size=4, seed=0, epoch=epoch, num_workers=workers, **settings
        )
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_views_come_beside_the_images_and_change_none(write_images, workers):
    root = write_images(COUNTS)
    without = batches(load(root))
    found = batches(load(root, views={"strong": STRONG, "twin": WEAK}), workers=workers)
    for batch, plain in zip(found, without, strict=True):
        assert torch.equal(batch.images, plain.images)
        assert list(batch.views) == ["strong", "twin"]
        for view in batch.views.values():
            assert view.shape == batch.images.shape
            assert not torch.equal(view, batch.images)  # "twin" draws numbers of its own
            assert view.dtype == torch.uint8


def test_views_are_a_function_of_seed_epoch_and_image(write_images):
    data = load(write_images(COUNTS), views={"strong": STRONG})

    def by_image(epoch):
        return {
            int(index): view
            for batch in batches(data, epoch=epoch)
            for index, view in zip(batch.indices, batch.views["strong"], strict=True)
        }

    first, again, other = by_image(0), by_image(0), by_image(1)
    assert all(torch.equal(first[index], again[index]) for index in first)
    assert any(not torch.equal(first[index], other[index]) for index in first)


def test_evaluation_has_no_views_of_its_own(write_images):
    data = load(write_images(COUNTS), views={"strong": STRONG})
    assert all(not batch.views for batch in test_batches(data.validation, batch_size=4))


def test_a_wrong_view_is_told_before_training(write_images):
    with pytest.raises(ValueError, match="timm knows no such policy"):
        load(write_images(COUNTS), views={"strong": Augmentation(auto_augment="no-policy")})


def test_mixed_labels_fit_no_view(write_images):
    data = load(write_images(COUNTS), views={"strong": STRONG})
    with pytest.raises(ValueError, match=r"do not fit their views \(strong\): leave data.views"):
        batches(data, mixing=Mixing(mixup=0.2), num_classes=2)


def fine_grained(settings) -> RunConfig:
    recipe = RECIPES["from_scratch"].build().with_method("fine_grained")
    return apply_overrides(recipe, settings)


def test_a_method_asks_for_views_that_the_data_have():
    settings = ['method.views=["strong"]', 'data.views.strong={"auto_augment": "rand-m9-mstd0.5"}']
    config = fine_grained(settings)
    assert config.method.build().auxiliary == ("noise", "adversarial", "strong")
    assert config.data.views["strong"].auto_augment == "rand-m9-mstd0.5"
    with pytest.raises(ValueError, match=r'method.views has "strong", which data.views lacks'):
        fine_grained(settings[:1])
    with pytest.raises(ValueError, match=r"data.views.*no_such"):
        fine_grained(['data.views.strong={"no_such": 1}'])
    with pytest.raises(ValueError, match=r"do not fit data.views \(strong\)"):
        fine_grained([*settings, "data.mixing.mixup=0.2"])
