from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.data.preprocessing import Preprocessing
from advprop.exports.prediction import find_images, predict, predictions
from advprop.models.build import build_model
from advprop.models.standardize import Standardized, standardized

NAMES = ("red", "green", "blue")
RGB = Preprocessing(image_shape=(3, 8, 8))


def colour_model() -> Standardized:
    """Its logits are ten times the mean of each channel."""
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return standardized(mean, mean=[0.0] * 3, std=[0.1] * 3)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Images of one colour each, in the order of `NAMES`."""
    colours = ((250, 100, 0), (0, 250, 100), (100, 0, 250))
    for name, colour in zip(NAMES, colours, strict=True):
        Image.new("RGB", (14, 10), colour).save(tmp_path / f"{name}.png")
    return [tmp_path / f"{name}.png" for name in NAMES]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_classes_come_most_probable_first(paths: list[Path], batch_size: int) -> None:
    found = predict(
        colour_model(), paths, class_names=NAMES, preprocessing=RGB, top=2, batch_size=batch_size
    )
    assert [[name for name, _ in classes] for classes in found] == [
        ["red", "green"],
        ["green", "blue"],
        ["blue", "red"],
    ]
    expected = torch.tensor([250, 100, 0]).div(25.5).softmax(dim=0)[:2].tolist()
    for classes in found:
        assert [probability for _, probability in classes] == pytest.approx(expected)


def test_all_classes_where_there_are_fewer_than_asked_for(paths: list[Path]) -> None:
    (classes,) = predict(colour_model(), paths[:1], class_names=NAMES, preprocessing=RGB, top=9)
    assert [name for name, _ in classes] == ["red", "green", "blue"]
    assert sum(probability for _, probability in classes) == pytest.approx(1)


def test_files_go_through_the_clean_branch_in_eval_mode(paths: list[Path]) -> None:
    torch.manual_seed(0)
    model = add_auxiliary_norms(build_model("test_resnet", num_classes=3, in_chans=3))
    preprocessing = Preprocessing(image_shape=(3, 32, 32))
    with torch.no_grad(), use_branch(model, "adversarial"):
        for _ in range(3):
            model.train()(5 * torch.rand(8, 3, 32, 32))  # moves the other branch's statistics
    batch = torch.stack([preprocessing(path) for path in paths])
    with torch.no_grad():
        expected = model.eval()(batch).softmax(dim=1).max(dim=1).values
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    with use_branch(model, "adversarial"):
        found = predict(model, paths, class_names=NAMES, preprocessing=preprocessing, top=1)
    assert [classes[0][1] for classes in found] == expected.tolist()
    assert model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_wrong_input_is_named(paths: list[Path], tmp_path: Path) -> None:
    model = colour_model()
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths[0].read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cannot read the image .*broken\.png"):
        predict(model, [*paths, broken], class_names=NAMES, preprocessing=RGB)
    with pytest.raises(ValueError, match=r"nowhere\.png: there is no such file"):
        predict(model, [tmp_path / "nowhere.png"], class_names=NAMES, preprocessing=RGB)
    with pytest.raises(ValueError, match="no image named"):
        predict(model, [], class_names=NAMES, preprocessing=RGB)
    with pytest.raises(ValueError, match="top=0"):
        predict(model, paths, class_names=NAMES, preprocessing=RGB, top=0)
    with pytest.raises(ValueError, match="2 class names for 3 logits"):
        predict(model, paths, class_names=NAMES[:2], preprocessing=RGB)


def test_an_unreadable_file_leaves_the_others_their_classes(
    paths: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths[0].read_bytes()[:40])
    asked = [broken, paths[0], tmp_path / "gone.png", paths[1], paths[2], broken]
    for batch_size in (1, 2, 6):
        found = list(
            predictions(
                colour_model(),
                asked,
                class_names=NAMES,
                preprocessing=RGB,
                top=1,
                batch_size=batch_size,
            )
        )
        assert [prediction.path for prediction in found] == [str(path) for path in asked]
        assert [p.classes[0][0] for p in found if p.error is None] == ["red", "green", "blue"]
        errors = [prediction.error for prediction in found]
        assert [error is None for error in errors] == [False, True, False, True, True, False]
        assert "broken.png" in errors[0]
        assert "there is no such file" in errors[2]
        assert all(not prediction.classes for prediction in found if prediction.error)


def test_no_more_than_a_batch_is_read_ahead(paths: list[Path]) -> None:
    asked = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        while True:
            asked += 1
            yield paths[0]

    stream = predictions(
        colour_model(), endless(), class_names=NAMES, preprocessing=RGB, batch_size=4
    )
    for _ in range(6):
        assert next(stream).classes[0][0] == "red"
    assert asked == 8


def touched(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def listed(root: Path, *names: str) -> list[str]:
    found = find_images([str(root / name) for name in names])
    return [Path(path).relative_to(root).as_posix() for path in found]


def test_folders_are_searched_for_images(tmp_path: Path) -> None:
    touched(tmp_path, "b.png", "a/2.JPG", "a/1.webp", "a/deep/3.png", "notes.txt", "a/list.csv")
    touched(tmp_path, ".hidden.png", ".cache/4.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert listed(tmp_path, "") == ["b.png", "a/1.webp", "a/2.JPG", "a/deep/3.png"]
    # a file that is named is taken whatever it is called
    assert listed(tmp_path, "notes.txt", "a/deep", "b.png") == [
        "notes.txt",
        "a/deep/3.png",
        "b.png",
    ]


def test_a_name_for_no_image_is_refused_at_once(tmp_path: Path) -> None:
    touched(tmp_path, "b.png", "empty/notes.txt")
    for name, message in (
        ("empty", "no image in this folder or below it; images end in .jpg"),
        ("c.png", r"c\.png: there is no such file or folder"),
    ):
        with pytest.raises(ValueError, match=message):
            find_images([str(tmp_path / "b.png"), str(tmp_path / name)])
    with pytest.raises(ValueError, match="no image named"):
        find_images([])


def test_a_folder_is_listed_as_it_is_asked_for(tmp_path: Path) -> None:
    touched(tmp_path, "1.png", "a/2.png")
    found = find_images([str(tmp_path)])
    assert next(found).endswith("1.png")
    touched(tmp_path, "a/3.png")
    assert [Path(path).name for path in found] == ["2.png", "3.png"]
