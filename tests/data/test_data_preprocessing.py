from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from advprop.data.preprocessing import Augmentation, Preprocessing, _posterize
from advprop.randomness import random_streams


def random_image(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path):
    image = random_image(9, 9)
    image.save(tmp_path / "image.png")
    actual = Preprocessing(image_shape=(3, 9, 9), crop_pct=1.0)(tmp_path / "image.png")
    expected = torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


def test_the_centre_is_cut_out_after_the_shorter_edge_was_resized():
    # 40 high, 80 wide; red outside of the middle 40 columns
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[..., 0] = 255
    pixels[:, 20:60] = (0, 0, 255)
    view = Preprocessing(image_shape=(3, 20, 20), crop_pct=1.0, interpolation="bilinear")
    result = view.apply(Image.fromarray(pixels))
    assert torch.equal(
        result[:, :, 2:-2], torch.tensor([0.0, 0, 1]).view(3, 1, 1).expand(3, 20, 16)
    )
    # crop_pct 0.5: resized to 40 x 80, and the middle 20 x 20 of it
    ramp = np.arange(40, dtype=np.uint8)[:, None].repeat(80, 1)
    ramp_image = Image.fromarray(ramp).convert("RGB")
    result = Preprocessing(image_shape=(3, 20, 20), crop_pct=0.5).apply(ramp_image)
    assert torch.equal(result[0, :, 0], torch.arange(10.0, 30) / 255)


def test_squashed_images_lose_no_edge():
    # 40 high, 80 wide; the right half is blue
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, 40:] = (0, 0, 255)
    view = Preprocessing(
        image_shape=(3, 20, 20), crop_pct=1.0, interpolation="nearest", crop_mode="squash"
    )
    blue = view.apply(Image.fromarray(pixels))[2]
    assert torch.equal(blue, (torch.arange(20) >= 10).float().expand(20, 20))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_agrees_bit_for_bit_with_timm(interpolation):
    from timm.data import create_transform

    image = random_image(50, 37)
    ours = Preprocessing(image_shape=(3, 24, 32), interpolation=interpolation, crop_pct=0.9)
    theirs = create_transform(
        input_size=(3, 24, 32),
        interpolation=interpolation,
        crop_pct=0.9,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    assert torch.equal(ours.apply(image), theirs(image))


def test_augmentation_depends_on_the_streams_alone():
    image = random_image(40, 40)
    settings = Augmentation(auto_augment="rand-m9-mstd0.5-inc1")
    view = settings.transform(Preprocessing(image_shape=(3, 16, 16)))

    def augmented(*key: int) -> torch.Tensor:
        with random_streams(*key, "augmentation"):
            return view(image)

    first, other = augmented(0, 0, 0), augmented(0, 0, 1)
    torch.rand(3), np.random.rand(3)
    assert torch.equal(first, augmented(0, 0, 0))
    assert not torch.equal(first, other)
    assert first.shape == (3, 16, 16)
    assert first.dtype == torch.uint8


def test_the_flip_happens_as_often_as_asked():
    image = random_image(8, 8)
    shape = Preprocessing(image_shape=(3, 8, 8))
    upright = torch.tensor(np.asarray(image)).permute(2, 0, 1)
    for probability, flips in ((0.0, 0), (1.0, 20)):
        whole = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=probability).transform(shape)
        views = [whole(image) for _ in range(20)]
        assert sum(torch.equal(view, upright.flip(-1)) for view in views) == flips
        assert sum(torch.equal(view, upright) for view in views) == 20 - flips


def test_crops_keep_to_their_scale():
    # each pixel holds its row: the range of a crop tells its height
    rows = Image.fromarray(np.arange(100, dtype=np.uint8)[:, None].repeat(100, 1))
    view = Augmentation(scale=(0.25, 0.25), ratio=(1.0, 1.0)).transform(
        Preprocessing(image_shape=(1, 50, 50), interpolation="nearest")
    )
    with random_streams("crops"):
        crops = [view(rows) for _ in range(30)]
    assert {int(crop.max() - crop.min()) for crop in crops} == {49}
    assert len({int(crop.min()) for crop in crops}) > 10


POLICIES = (
    "rand-m9-mstd0.5-inc1", "rand-m9-mstd0.5", "original", "originalr", "v0", "v0r", "augmix-m3-w3",
    "3a",
)  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_change_the_view_and_are_a_function_of_their_key(policy):
    image = random_image(24, 24)
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0}
    shape = Preprocessing(image_shape=(3, 24, 24))
    plain = Augmentation(**whole).transform(shape)(image)
    view = Augmentation(**whole, auto_augment=policy).transform(shape)

    def seen(number):
        with random_streams(0, number, "augmentation"):
            return view(image)

    # so many that each operation comes at each strength: none may fail
    views = [seen(number) for number in range(200)]
    assert all(pixels.dtype == torch.uint8 and pixels.shape == (3, 24, 24) for pixels in views)
    assert sum(not torch.equal(pixels, plain) for pixels in views) > 100
    assert len({pixels.numpy().tobytes() for pixels in views}) > 10
    torch.rand(3), np.random.rand(3)
    for number in (7, 0, 199):
        assert torch.equal(seen(number), views[number])


def test_posterizing_to_no_bits_is_black_and_to_some_as_pillow_does():
    image = random_image(9, 9)
    for bits in (0, 1, 4, 8):
        mask = ~(2 ** (8 - bits) - 1) & 255
        assert (np.asarray(_posterize(image, bits)) == (np.asarray(image) & mask)).all()


def erased(mode, *, probability=1.0, number=0, channels=3):
    image = torch.rand(channels, 32, 32, generator=torch.Generator().manual_seed(number))
    with random_streams(number, "augmentation"):
        settings = Augmentation(random_erasing=probability, erasing_mode=mode)
        return image, settings.erase(image.clone())


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
@pytest.mark.parametrize("channels", [1, 3])
def test_erasing_fills_one_rectangle_and_touches_nothing_else(mode, channels):
    shares, colours = [], []
    for number in range(40):
        image, result = erased(mode, number=number, channels=channels)
        assert torch.equal(result, erased(mode, number=number, channels=channels)[1])
        changed = (result != image).any(dim=0)
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        assert (int(rows.max() - rows.min()) + 1) * (int(columns.max() - columns.min()) + 1) == int(
            changed.sum()
        )
        shares.append(float(changed.float().mean()))
        colours.append(result[:, changed])
        assert 0 <= float(result.min()) <= float(result.max()) <= 1
    assert 0.01 < min(shares) < max(shares) < 0.4
    constant = [bool((colour == colour[:, :1]).all()) for colour in colours]
    assert set(constant) == {mode != "pixel"}
    values = torch.cat([colour.flatten() for colour in colours])
    assert (len(values.unique()) == 1) == (mode == "const")
    assert abs(float(values.mean()) - 0.5) < 0.1
    assert (float(values.std()) > 0.15) == (mode != "const")


def test_erasing_happens_as_often_as_asked_and_never_by_default():
    results = [erased("const", probability=0.3, number=number) for number in range(200)]
    count = sum(not torch.equal(image, result) for image, result in results)
    assert 60 - 4 * 6.5 < count < 60 + 4 * 6.5
    image = torch.rand(3, 8, 8)
    state = torch.get_rng_state()
    assert Augmentation().erase(image) is image
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_shape": (4, 8, 8)}, "4 channels: images have 1"),
        ({"image_shape": (3, 0, 8)}, r"size \(0, 8\): .* at least 1"),
        ({"image_shape": (3, 8, 8), "crop_mode": "border"}, "crop_mode='border': must be one of"),
        ({"image_shape": (3, 8, 8), "crop_pct": 1.5}, r"crop_pct=1\.5: .* at most 1"),
        ({"image_shape": (3, 8, 8), "interpolation": "best"}, "'best': must be one of .*bicubic"),
    ],
)
def test_wrong_preprocessing_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": (0.0, 1.0)}, "scale=.*0 < low"),
        ({"scale": (0.9, 0.1)}, "scale="),
        ({"ratio": (2.0, 1.0)}, "ratio="),
        ({"hflip": 1.1}, r"hflip=1\.1: a probability"),
        ({"color_jitter": -0.1}, "at least 0"),
        ({"random_erasing": 1.5}, r"random_erasing=1\.5: a probability"),
        ({"erasing_mode": "grey"}, r"erasing_mode='grey': must be one of .*'const'"),
    ],
)
def test_wrong_augmentation_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)


def test_wrong_policies_are_refused_before_training():
    with pytest.raises(ValueError, match="timm knows no such policy"):
        Augmentation(auto_augment="nonsense").transform(Preprocessing(image_shape=(3, 8, 8)))
    with pytest.raises(ValueError, match="made for 3 channels"):
        Augmentation(auto_augment="v0").transform(Preprocessing(image_shape=(1, 8, 8)))


def test_a_jitter_that_a_policy_would_replace_is_refused():
    Augmentation(color_jitter=0.4)
    with pytest.raises(ValueError, match=r"color_jitter=0\.4 and auto_augment='v0'.*leave one out"):
        Augmentation(color_jitter=0.4, auto_augment="v0")
