"""The examples of a detector and of a segmentation net: pictures, tasks, scores, and whole runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import seeded
from torch import nn
from torch.nn import functional as F

from advprop.auxiliary.norm import AuxiliaryNorm
from advprop.shapes import Batch

EXAMPLES = Path(__file__).parents[1] / "examples"
SIDE = 64


@pytest.fixture(scope="module")
def dense() -> Iterator[Any]:
    names = ("composed_pictures", "beside_vanilla", "detection", "segmentation")
    sys.path.insert(0, str(EXAMPLES))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def pictures(dense: Any) -> Any:
    return dense.composed_pictures.compose(20, SIDE, train=True, most=3)


@pytest.fixture(params=["detection", "segmentation"])
def example(dense: Any, request: pytest.FixtureRequest) -> Any:
    if request.param == "detection":
        return dense.detection.Detector("stronger")
    return dense.segmentation.Segmenter()


def test_boxes_and_masks_are_where_the_digits_are(pictures: Any) -> None:
    assert pictures.images.shape == (20, 3, SIDE, SIDE)
    assert 0 <= pictures.images.min() < 0.2 < 0.8 < pictures.images.max() <= 1
    for found, mask in zip(pictures.boxes, pictures.masks, strict=True):
        outside = mask.clone()
        for box, label in zip(found["boxes"].long(), found["labels"], strict=True):
            left, top, right, bottom = box.tolist()
            inside = mask[top:bottom, left:right]
            assert {*inside.unique().tolist()} == {0, label.item()}
            # within a pixel of the digit on every side
            rows, columns = inside.nonzero().unbind(1)
            edges = (
                rows.min(),
                columns.min(),
                bottom - top - rows.max(),
                right - left - columns.max(),
            )
            assert max(int(edge) for edge in edges) <= 3
            outside[top:bottom, left:right] = 0
        assert not outside.any()


def test_pictures_are_a_function_of_the_seed_and_the_part(dense: Any, pictures: Any) -> None:
    def again(**changes: Any) -> Any:
        options = {"train": True, "most": 3, **changes}
        return dense.composed_pictures.compose(20, SIDE, **options)

    assert torch.equal(again().images, pictures.images)
    for other in (again(seed=1), again(train=False)):
        assert not (other.images == pictures.images).flatten(1).all(1).any()


def test_a_batch_of_pictures_keeps_what_belongs_together(pictures: Any) -> None:
    whole = [*pictures.batches(8)]
    assert [len(part.boxes) for part in whole] == [8, 8, 4]
    torch.manual_seed(0)
    for part in (*whole, *pictures.batches(8, shuffled=True)):
        assert len(part.boxes) in (8, 4)
        for row, image in enumerate(part.images):
            (number,) = (pictures.images == image).flatten(1).all(1).nonzero()
            assert part.boxes[row] is pictures.boxes[number]
            assert torch.equal(part.masks[row], pictures.masks[number[0]])


def test_corrupted_pictures(pictures: Any) -> None:
    clean, two = pictures.images[:2], pictures.subset([0, 1])
    roughness = [
        images.diff().abs().mean()
        for images in (two.corrupted("blur").images, clean, two.corrupted("noise").images)
    ]
    assert roughness[0] < 0.5 * roughness[1] < 0.25 * roughness[2]


def test_branches_learn_statistics_of_their_own(dense: Any, pictures: Any, example: Any) -> None:
    torch.manual_seed(0)
    method = dense.beside_vanilla.attacking(8 / 255)
    options = dense.beside_vanilla.parser("Tiny.", epochs=1, batch=8).parse_args([])
    model = dense.beside_vanilla.train(example, method, pictures, 1, options)
    norms = [
        layer
        for name, layer in model.named_modules()
        # without a digit at its scale a box head learns nothing
        if isinstance(layer, AuxiliaryNorm) and "regression_head" not in name
    ]
    assert len(norms) > 40
    for norm in norms:
        clean, adversarial = norm.branches["clean"], norm.branches["adversarial"]
        assert not torch.equal(clean.running_mean, adversarial.running_mean)
        assert not torch.equal(clean.bias, adversarial.bias)


@pytest.mark.parametrize("right", [True, False])
def test_the_score_is_that_of_the_answers(pictures: Any, example: Any, right: bool) -> None:
    class Answers(nn.Module):
        """Those of all pictures, in order; or boxes and pixels of the next class."""

        asked = 0

        def forward(self, images: Any) -> Any:
            rows = range(self.asked, self.asked + len(images))
            self.asked += len(images)
            if isinstance(images, list):
                return [answer(pictures.boxes[row]) for row in rows]
            masks = torch.where(pictures.masks > 0, pictures.masks % 3 + 1, 0)
            found = F.one_hot(pictures.masks if right else masks)[[*rows]]
            return {"out": found.movedim(3, 1).float()}

    def answer(found: Any) -> Any:
        labels = found["labels"] if right else found["labels"] % 3 + 1
        return {"boxes": found["boxes"], "labels": labels, "scores": torch.ones(len(labels))}

    assert example.score(Answers(), pictures) == pytest.approx(1.0 if right else 0.0)


def test_each_picture_is_attacked_in_the_way_that_raises_its_loss_more(dense: Any) -> None:
    class Losses(nn.Module):
        """One grows with brightness and one with darkness, and their sum away from grey."""

        def forward(self, images: list[torch.Tensor], labels: Any) -> dict[str, torch.Tensor]:
            bright = torch.stack(images)
            return {
                "classification": bright.square().mean(),
                "bbox_regression": (1 - bright).square().mean(),
            }

    levels = torch.tensor([0.3, 0.6, 0.8, 0.4])
    images = levels[:, None, None, None].expand(4, 3, 8, 8)
    batch, attack = Batch(images=images, labels=[{}] * 4), dense.beside_vanilla.attacking(0.05)
    for name, brighter in {
        "classification": [True] * 4,
        "localisation": [False] * 4,
        "stronger": [False, True, True, False],
    }.items():
        task = dense.detection.Detector(name).task
        found = task.adversarial_images(attack.attack, Losses(), batch, seeded())
        assert (found.mean((1, 2, 3)) > levels + 0.01).tolist() == brighter
        assert ((found.mean((1, 2, 3)) - levels).abs() > 0.01).all()


def test_both_get_equal_passes_and_the_same_tests(
    dense: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a net of one layer, trained for 1 and 3 epochs, whose score counts what it has seen."""

    class Net(nn.Sequential):
        seen = 0.0

        def forward(self, images: Any) -> Any:
            self.seen += len(images) * self.training
            return {"out": super().forward(images)}

    class Seen(dense.segmentation.Segmenter):
        def build(self, side: int) -> nn.Module:
            return Net(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

        def score(self, model: nn.Module, pictures: Any) -> float:
            assert not model.training
            assert not hasattr(model[1], "branches")
            return model.seen / 100 + pictures.images.mean().item() / 1e4

    monkeypatch.setattr(dense.beside_vanilla, "CORRUPTIONS", {"blur": "defocus_blur"})
    options = dense.beside_vanilla.parser("Counted.", epochs=2, batch=8)
    scores = dense.beside_vanilla.compare(
        Seen(), options.parse_args(["--train=9", "--test=2", f"--side={SIDE}"])
    )
    # whole batches of 8: clean and adversarial ones, while attacks are in eval mode
    assert scores["AdvProp"]["clean"] == pytest.approx([0.32] * 3, abs=1e-3)
    assert scores["vanilla at equal cost"]["clean"] == pytest.approx([0.48] * 3, abs=1e-3)
    assert scores["AdvProp"]["blur"] != scores["AdvProp"]["clean"]
    rows = capsys.readouterr().out.splitlines()[-5:]
    assert rows[0] == "| IoU, mean over digits, % | clean | blur |"
    assert rows[2].startswith("| AdvProp | 32.0")
    assert rows[4].startswith("| AdvProp minus vanilla | -16.0")


@pytest.mark.full
@pytest.mark.parametrize("name", ["detection", "segmentation"])
def test_a_whole_run(dense: Any, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--seeds=1", "--epochs=1", "--train=16", "--test=4", f"--side={SIDE}"]
    scores = getattr(dense, name).main(tiny)
    assert [*scores] == ["AdvProp", "vanilla at equal cost"]
    for by_test in scores.values():
        assert [*by_test] == ["clean", "noise", "blur"]
        assert all(0 <= value <= 1 for values in by_test.values() for value in values)
    printed = capsys.readouterr().out
    longer = {"detection": 5, "segmentation": 3}[name]
    assert f"vanilla at equal cost, {longer} epochs" in printed
    assert printed.rstrip().splitlines()[-1].startswith("| AdvProp minus vanilla |")
