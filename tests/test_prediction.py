from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.data.preprocessing import Preprocessing
from advprop.models.build import build_model
from advprop.models.standardize import Standardized, standardized
from advprop.prediction import predict

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
