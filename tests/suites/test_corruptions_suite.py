"""The suite `corruptions`, on the fly and from disk, with models whose answers are known."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from advprop.config.evaluation import EvaluationConfig
from advprop.data.preprocessing import Preprocessing
from advprop.data.splits import ArraySplit, ImageData
from advprop.evaluation.corruptions import ALEXNET_ERRORS
from advprop.models.standardize import Standardized
from advprop.suites import corruptions as suite
from advprop.suites.registry import SUITES
from advprop.suites.subjects import Subject
from advprop.suites.trial import Trial

CLASSES = ("bright", "dark")
ATTACK = {"threat_model": {"kind": "linf", "epsilon": 0.1}, "num_steps": 1, "step_size": 0.1}
QUICK = {"corruptions": ["impulse_noise", "contrast", "frost"], "corruption_severities": [1, 4]}


class Brightness(nn.Module):
    """Class 0 for images brighter than 0.5 on average, class 1 else."""

    def forward(self, images: Tensor) -> Tensor:
        brightness = images.mean(dim=(1, 2, 3))
        return torch.stack([brightness, 1 - brightness], dim=1)


class OfOneSize(Brightness):
    """As nets with position embeddings."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[2:] == (28, 28), "input size does not match the model"
        return super().forward(images)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADVPROP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def grey_images(count: int = 12) -> ImageData:
    """Grey images of 28 x 28 around the boundary, the two classes in turn."""
    labels = torch.arange(count) % 2
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(-40, 40, (count, 1, 28, 28), generator=random)
    pixels = (128 + (30 - 60 * labels).view(-1, 1, 1, 1) + noise).clamp(0, 255).byte()
    split = ArraySplit(pixels=pixels, labels=labels)
    return ImageData(
        name="grey",
        class_names=CLASSES,
        preprocessing=Preprocessing(image_shape=(1, 28, 28)),
        train=split,
        validation=split,
        test=split,
    )


def trial(
    *,
    folder: Path | None = None,
    limit: int | None = None,
    model: nn.Module | None = None,
    names: tuple[str, ...] = CLASSES,
    channels: int = 1,
    **settings: object,
) -> Trial:
    mean = (0.0,) * channels
    subject = Subject(
        name="toy",
        model=Standardized(model or Brightness(), mean=mean, std=(1.0,) * channels).eval(),
        evaluation=EvaluationConfig.model_validate({"attack": ATTACK, **settings}),
        weights="last",
        class_names=names,
        preprocessing=Preprocessing(image_shape=(channels, 28, 28)),
        load_data=grey_images,
    )
    return Trial(
        subject=subject, eval_branch="clean", attack_branch="clean", folder=folder, limit=limit
    )


def run(**arguments: object) -> dict[str, object]:
    return SUITES["corruptions"].run(trial(**arguments))


def test_grey_images_below_32_pixels_on_the_fly(cache: Path) -> None:
    found = run(**QUICK)
    assert (found["num_images"], found["images"], found["severities"]) == (12, "grey test", [1, 4])
    assert found["made"].startswith("on the fly, imagecorruptions-imaug 1.")
    assert found["padded_to"] == [32, 32]
    assert "mce" not in found
    assert "extra" not in found
    by = found["by_corruption"]
    assert list(by) == ["impulse_noise", "frost", "contrast"]  # in the order of ImageNet-C
    # lower contrast moves no image over the boundary, frost makes dark images bright
    assert by["contrast"]["accuracy"] == [1.0, 1.0]
    assert by["frost"]["mean_error"] > 0
    low, high = found["ci95"]
    assert low <= found["corruptions_accuracy"] <= high
    assert len(list(cache.rglob("*.npy"))) == 6
    assert run(**QUICK) == found


def test_batches_and_limits_change_no_image() -> None:
    class Recording(Brightness):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Tensor] = []

        def forward(self, images: Tensor) -> Tensor:
            self.seen.append(images)
            return super().forward(images)

    settings = {"corruptions": ["impulse_noise"], "corruption_severities": [3]}
    seen = {}
    for name, options in (
        ("one", {"batch_size": 100}),
        ("five", {"batch_size": 5}),
        ("two readers", {"batch_size": 5, "num_workers": 2}),
        ("part", {"limit": 4}),
    ):
        model = Recording()
        run(model=model, **settings, **options)
        seen[name] = torch.cat(model.seen)
    assert torch.equal(seen["one"], seen["five"])
    assert torch.equal(seen["one"], seen["two readers"])
    assert len(seen["part"]) == 4
    for image in seen["part"]:
        assert any(torch.equal(image, other) for other in seen["one"])


def test_held_out_corruptions_when_asked_for() -> None:
    found = run(corruptions=["contrast"], corruption_severities=[2], extra_corruptions=True)
    assert list(found["by_corruption"]) == ["contrast"]
    assert list(found["extra"]) == ["speckle_noise", "gaussian_blur", "spatter", "saturate"]


def test_a_folder_of_classes_is_corrupted_on_the_fly(tmp_path: Path) -> None:
    for name, shade in (("bright", 180), ("dark", 70)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 30), (shade,) * 3).save(tmp_path / "photos" / name / "0.png")
    found = run(folder=tmp_path / "photos", corruptions=["contrast"])
    assert (found["images"], found["num_images"]) == (str(tmp_path / "photos"), 2)
    assert found["by_corruption"]["contrast"]["accuracy"] == [1.0] * 5


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Brighter with each severity of fog, darker with each of snow; two images a class."""
    for name, step in (("fog", 30), ("snow", -30)):
        for severity in (1, 2, 3):
            for label, shade in (("bright", 150), ("dark", 100)):
                folder = tmp_path / "stored" / name / str(severity) / label
                folder.mkdir(parents=True)
                for number in range(2):
                    pixels = (shade + step * (severity - 1) + number,) * 3
                    Image.new("RGB", (40, 36), pixels).save(folder / f"{number}.JPEG")
    return tmp_path / "stored"


FROM_DISK = {"corruptions": ["snow", "fog"], "corruption_severities": [1, 2, 3], "channels": 3}


def test_images_from_disk_are_tested_as_they_are_stored(stored: Path, cache: Path) -> None:
    found = run(folder=stored, **FROM_DISK)
    assert found["made"] == "read from disk"
    assert found["image_size"] == [36, 40]
    # fog: 150/100, 180/130, 210/160; snow: 150/100, 120/70, 90/40
    assert found["by_corruption"]["fog"]["accuracy"] == [1.0, 0.5, 0.5]
    assert found["by_corruption"]["snow"]["accuracy"] == [1.0, 0.5, 0.5]
    assert found["corruptions_accuracy"] == pytest.approx(4 / 6)
    assert "mce" not in found
    assert not cache.exists()
    half = run(folder=stored, limit=2, **FROM_DISK)
    assert (half["num_images"], half["corruptions_accuracy"]) == (2, pytest.approx(4 / 6))


def test_all_of_imagenets_classes_give_the_mean_corruption_error(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "NUM_CLASSES", 2)
    names = [*ALEXNET_ERRORS]
    for name in names:
        for severity in range(1, 6):
            if not (stored / name / str(severity)).exists():
                shutil.copytree(stored / "fog" / "1", stored / name / str(severity))
    found = run(folder=stored, channels=3)
    errors = dict.fromkeys(names, 0.0) | {"fog": 0.2, "snow": 0.2}
    expected = sum(errors[name] / ALEXNET_ERRORS[name] for name in names) / 15
    assert found["mce"] == pytest.approx(expected)
    assert found["mean_error"] == pytest.approx(0.4 / 15)


def test_a_model_of_another_size_is_told(stored: Path) -> None:
    with pytest.raises(
        ValueError, match=r"toy does not take images of 40 x 36 pixels.*match the model"
    ):
        run(folder=stored, model=OfOneSize(), **FROM_DISK)


def test_a_partly_unpacked_set_is_told(stored: Path) -> None:
    (stored / "fog/3/dark/1.JPEG").unlink()
    with pytest.raises(ValueError, match="snow/1 has 4 images and fog/3 3, 1 are in one of them"):
        run(folder=stored, **FROM_DISK)


def test_severities_of_different_sizes_are_told(stored: Path) -> None:
    for path in (stored / "fog" / "3").rglob("*.JPEG"):
        Image.new("RGB", (20, 20)).save(path)
    with pytest.raises(ValueError, match="fog/3 have 20 x 20 pixels, those of snow/1 40 x 36"):
        run(folder=stored, **FROM_DISK)


def test_what_is_missing_is_told_before_anything_is_tested(stored: Path) -> None:
    with pytest.raises(ValueError, match="lacks 13 of 15 corruptions"):
        SUITES["corruptions"].check(trial(folder=stored, channels=3))
    with pytest.raises(ValueError, match="classes that the model does not know"):
        SUITES["corruptions"].check(trial(folder=stored, names=("a", "b"), **FROM_DISK))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corruptions": ["rain"]}, "unknown: rain; choose from gaussian_noise"),
        ({"corruptions": []}, "at least one"),
        ({"corruption_severities": [0]}, "unknown: 0; choose from 1, 2"),
        ({"corruption_severities": [2, 2]}, "each once"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trial(**settings)


def test_settings_are_short_to_write() -> None:
    settings = trial(corruptions="snow, fog", corruption_severities=3).settings
    assert (settings.corruptions, settings.corruption_severities) == (("snow", "fog"), (3,))
    assert trial(corruption_severities="1,5").settings.corruption_severities == (1, 5)
