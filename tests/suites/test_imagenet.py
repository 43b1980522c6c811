"""Each of ImageNet's test sets by its protocol, on small folders laid out as the originals are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from imagenet_sets import SIZE, found_by, picture, subject, trial, write_classes
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from advprop.data.preprocessing import Preprocessing
from advprop.suites.imagenet.classes import (
    OBJECTNET_CLASSES,
    imagenet_a_wnids,
    imagenet_r_wnids,
    imagenet_wnids,
    real_labels,
)
from advprop.suites.imagenet.suites import ImageNetSuite
from advprop.suites.registry import SUITES

NUMBER = {wnid: number for number, wnid in enumerate(imagenet_wnids())}


@pytest.fixture(scope="module")
def sketch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand folders, each with an image that is classified rightly."""
    root = tmp_path_factory.mktemp("archive") / "sketch"
    return write_classes(root, {wnid: [number] for wnid, number in NUMBER.items()})


def right(wnids: tuple[str, ...]) -> dict[str, list[int]]:
    return {wnid: [NUMBER[wnid]] for wnid in wnids}


@pytest.mark.parametrize(
    ("suite", "wnids", "other"),
    [
        ("imagenet_a", imagenet_a_wnids(), imagenet_r_wnids()),
        ("imagenet_r", imagenet_r_wnids(), imagenet_a_wnids()),
    ],
)
def test_logits_are_cut_to_the_classes_before_the_largest(
    suite: str, wnids: tuple[str, ...], other: tuple[str, ...], tmp_path: Path
) -> None:
    inside = {NUMBER[wnid] for wnid in wnids}
    # the class before it is none of the set's, nor the one before that: this one is nearest
    alone = next(n for n in sorted(inside) if not inside & {n - 2, n - 1})
    outputs = right(wnids)
    outputs[imagenet_wnids()[alone]].append(alone - 1)
    wrong = next(n for n in sorted(inside) if n + 1 in inside)
    outputs[imagenet_wnids()[wrong]].append(wrong + 1)
    found = found_by(suite, write_classes(tmp_path / "set", outputs))
    assert found["num_images"] == 202
    assert found["num_classes"] == 200
    assert found[f"{suite}_accuracy"] == 201 / 202
    assert found["ci95"][0] < 201 / 202 <= found["ci95"][1]
    assert "200" in found["protocol"]
    # the other set's folders are told apart
    with pytest.raises(ValueError, match=r"114 are missing .* and 114 do not belong to it"):
        found_by(suite, write_classes(tmp_path / "other", right(other)))


def test_a_model_of_another_order_is_read_by_name(tmp_path: Path) -> None:
    reversed_names = imagenet_wnids()[::-1]
    outputs = {wnid: [999 - NUMBER[wnid]] for wnid in imagenet_a_wnids()}
    folder = write_classes(tmp_path, outputs)
    assert found_by("imagenet_a", folder, subject(reversed_names))["imagenet_a_accuracy"] == 1
    assert found_by("imagenet_a", folder)["imagenet_a_accuracy"] < 0.1


def test_imagenet_v2_reads_folders_as_numbers(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {str(number): [number] for number in range(1000)})
    assert sorted(path.name for path in root.iterdir())[2] == "10"  # where number 2 should be
    assert found_by("imagenet_v2", root)["imagenet_v2_accuracy"] == 1
    (root / "7").rename(root / "007")
    with pytest.raises(ValueError, match=r"1,000 class folders, 1 are missing \(7\) and 1 .*007"):
        found_by("imagenet_v2", root)


def test_sketch_is_ordinary(sketch: Path) -> None:
    found = found_by("sketch", sketch)
    assert found["sketch_accuracy"] == 1
    assert found["ci95"] == [1, 1]
    assert found["num_images"] == found["num_classes"] == 1000
    assert found["images"] == str(sketch)
    with pytest.warns(UserWarning, match="holds 1,000 images to test on, the published set has 50"):
        SUITES["sketch"].run(trial("sketch", sketch))
    with pytest.raises(ValueError, match="800 do not belong to it"):
        found_by("imagenet_a", sketch)
    with pytest.raises(ValueError, match=r"1,000 are missing \(n01440764 \(tench\), .*997 more"):
        found_by("sketch", sketch.parent)  # the folder that holds the one with the classes


def write_everywhere(image: Image.Image, folder: Path) -> Path:
    """The same image in a thousand classes."""
    image.save(folder / "image.png")
    for wnid in NUMBER:
        (folder / "val" / wnid).mkdir(parents=True)
        (folder / "val" / wnid / "0.png").hardlink_to(folder / "image.png")
    return folder / "val"


def test_stylized_images_are_not_resized(tmp_path: Path) -> None:
    larger = Preprocessing(image_shape=(3, 300, 300), crop_pct=0.5)
    seen: list[Tensor] = []
    tested = subject(preprocessing=larger)
    tested.model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    noise = Image.effect_noise((224, 224), 80).convert("RGB")
    root = write_everywhere(noise, tmp_path)
    found = found_by("stylized", root, tested, limit=2)
    assert {images.shape[1:] for images in seen} == {(3, 224, 224)}
    assert torch.equal(seen[-1][1], to_tensor(noise))
    assert found["num_images"] == 2
    picture(3, size=256).save(root / "n01440764" / "1.png")
    with pytest.raises(ValueError, match=r"1.png has 256 x 256 pixels, .* 224 x 224 pix"):
        found_by("stylized", root, tested)


@pytest.mark.parametrize("told", [["height (224) doesn't match model (384)"], []], ids=len)
def test_stylized_needs_a_model_of_that_size(tmp_path: Path, told: list[str]) -> None:
    fixed = subject()

    def refuse(*_: object) -> None:
        raise AssertionError(*told)

    fixed.model.register_forward_pre_hook(refuse)
    root = write_everywhere(picture(0, size=224), tmp_path)
    with pytest.raises(ValueError, match=r"not take images of 224 x 224 .*\((.* \(384\)|Ass.*)\):"):
        found_by("stylized", root, fixed)


def test_real_accepts_any_label_and_leaves_out_images_without(tmp_path: Path) -> None:
    assert real_labels()[:4] == ((), (795, 970), (230, 231), (809,))
    shown = {1: 5, 2: 970, 3: 231, 4: 810}  # image 1 has no label, the last one is wrong
    flat, classes = tmp_path / "flat", tmp_path / "classes"
    for number, output in shown.items():
        (classes / f"n0{number}").mkdir(parents=True)
        flat.mkdir(exist_ok=True)
        name = f"ILSVRC2012_val_{number:08}.JPEG"
        picture(output).save(flat / name, format="PNG")
        picture(output).save(classes / f"n0{number}" / name, format="PNG")
    for folder in (flat, classes):
        found = found_by("real", folder)
        assert found["real_accuracy"] == 2 / 3
        assert found["num_images"] == 3
    picture(0).save(flat / "ILSVRC2012_val_00050001.JPEG", format="PNG")
    picture(0).save(flat / "cat.png")
    with pytest.raises(ValueError, match=r"2 of 6 images are not named .*val_00050001.JPEG, cat"):
        found_by("real", flat)
    picture(0).save(classes / "ILSVRC2012_val_00000002.png")
    with pytest.raises(ValueError, match="are the same image; keep one"):
        found_by("real", classes)
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    picture(0).save(unlabelled / "ILSVRC2012_val_00000001_n01751748.png")
    with pytest.raises(ValueError, match="ReaL labels none of these 1 images"):
        found_by("real", unlabelled)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        found_by("real", tmp_path / "none")


def test_objectnet_evaluates_the_common_classes_without_their_frame(tmp_path: Path) -> None:
    images = tmp_path / "objectnet-1.0" / "images"
    for name, wnids in OBJECTNET_CLASSES.items():
        (images / name).mkdir(parents=True)
        for number, wnid in enumerate(wnids):
            # the frame is one pixel wide, and the pixel inside it blurred with it: two go
            framed = Image.new("RGB", (SIZE, SIZE), "red")
            framed.paste("green", (1, 1, SIZE - 1, SIZE - 1))
            framed.paste(picture(NUMBER[wnid], SIZE - 4), (2, 2))
            framed.save(images / name / f"{number}.png")
    (images / "air_freshener").mkdir()  # not in ImageNet: passed over
    picture(0).save(images / "air_freshener" / "0.png")
    for folder in (images, images.parent):
        found = found_by("objectnet", folder)
        assert found["objectnet_accuracy"] == 1  # red or green would make another colour
        assert found["num_images"] == 125
        assert found["num_classes"] == 113
    picture(0).save(images / "chair" / "fish.png")  # a tench is no chair, nor any other object
    assert found_by("objectnet", images)["objectnet_accuracy"] == 125 / 126
    picture(0, size=4).save(images / "chair" / "small.png")
    with pytest.raises(ValueError, match=r"small.png has 4 x 4 pixels, all of them a frame of 2"):
        found_by("objectnet", images)
    (images / "tie").rename(images / "necktie")
    with pytest.raises(ValueError, match=r"113 class folders, 1 are missing \(tie\): name"):
        found_by("objectnet", images)


IMAGENET_SUITES = [name for name, suite in SUITES.items() if isinstance(suite.run, ImageNetSuite)]


@pytest.mark.parametrize("suite", IMAGENET_SUITES)
def test_other_models_are_refused_before_anything_is_computed(suite: str, sketch: Path) -> None:
    other = subject([f"class{number}" for number in range(10)])
    with pytest.raises(ValueError, match=r"reader has 10 classes \(class0, .*needs ImageNet's"):
        trial(suite, sketch, other).images  # noqa: B018


def test_a_limit_takes_the_first_label_of_real_in_proportion(tmp_path: Path) -> None:
    # many sets of labels are those of one image; as classes they would crowd out all others
    numbers = [n for n in range(1, 2000) if real_labels()[n - 1]]
    picture(0).save(tmp_path / "image.png")
    (tmp_path / "val").mkdir()
    for number in numbers:
        name = f"ILSVRC2012_val_{number:08}.JPEG"
        (tmp_path / "val" / name).hardlink_to(tmp_path / "image.png")
    limited = trial("real", tmp_path / "val", limit=10)
    split, _ = limited.images
    assert split.labels.tolist() == [real_labels()[n - 1][0] for n in numbers]
    assert found_by("real", tmp_path / "val", limit=10)["num_images"] == 10
