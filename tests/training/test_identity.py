"""What identifies a run: contents, not places; and what becomes of changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides, read_config, with_identities
from advprop.data.identity import data_facts, find_changes
from advprop.data.shards.writing import write_shards
from advprop.data.splits import ImageData
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.folder import load_run

SMALL = ("data.image_size=8", "data.channels=1", "data.num_train=none", "model.options.width=4")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3), ("test", 2)):
        for name in ("blue", "red"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def of_folder(root: Path, *settings: str) -> RunConfig:
    base = [f"data.root={root}", *SMALL, "training.num_epochs=1", "training.batch_size=8"]
    return apply_overrides(digits().with_method("vanilla"), ["data.kind=folder", *base, *settings])


def of_shards(folder: Path) -> RunConfig:
    settings = ["data.kind=shards", f"data.train={folder}", *SMALL, "training.batch_size=8"]
    return apply_overrides(digits().with_method("vanilla"), [*settings, "training.num_epochs=1"])


def begun(config: RunConfig, folder: Path) -> Path:
    """A run that is at its end but for its result, as after a kill there."""
    train(config, folder, quiet=True)
    (folder / "result.json").unlink()
    return folder


def moved(root: Path) -> Path:
    return root.rename(root.with_name("other place"))


def linked(root: Path) -> Path:
    link = root.with_name("link")
    link.symlink_to(moved(root))
    return link


def copied_into_another_depth(root: Path) -> Path:
    target = root.parent / "scratch" / "job 7" / "data"
    shutil.copytree(root, target)
    return target


@pytest.mark.parametrize("elsewhere", [moved, linked, copied_into_another_depth])
def test_the_same_images_in_another_place_are_the_same(
    elsewhere: Callable[[Path], Path], photos: Path, tmp_path: Path
) -> None:
    run = begun(of_folder(photos), tmp_path / "run")
    config = of_folder(elsewhere(photos))
    train(config, run, resume=True, quiet=True)
    assert read_config(run / "config.json").data == config.data
    assert not (run / "history.json").exists()


def test_the_same_shards_in_another_place_are_the_same(photos: Path, tmp_path: Path) -> None:
    write_shards(photos, tmp_path / "shards", images_per_shard=6)
    run = begun(of_shards(tmp_path / "shards"), tmp_path / "run")
    train(of_shards(moved(tmp_path / "shards")), run, resume=True, quiet=True)
    assert not (run / "history.json").exists()


def test_a_finished_run_learns_where_its_images_are_now(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(of_folder(photos), run, quiet=True)
    place = moved(photos)
    with pytest.raises(FileNotFoundError, match=r"--resume --set data\.root=") as caught:
        load_run(run).load_data()
    with pytest.raises(FileNotFoundError, match=r"check the path; --set data\.root= names another"):
        train(of_folder(photos), tmp_path / "new", quiet=True)
    assert f"advprop train {run}/config.json" in str(caught.value)
    assert train(of_folder(place), run, resume=True, quiet=True) == result
    assert len(load_run(run).load_data().train) == 16
    other = place / "train" / "red" / "more.png"
    other.write_bytes((place / "train" / "red" / "0.png").read_bytes())
    with pytest.raises(ValueError, match="there were 16 training images, there are 17"):
        train(of_folder(copied_into_another_depth(place)), run, resume=True, quiet=True)


def test_places_are_kept_absolute(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(of_folder(Path("photos")), "run", quiet=True)
    monkeypatch.chdir(tmp_path / "run")
    assert len(load_run(tmp_path / "run").load_data().validation) == 6
    settings = ("data.kind=shards", "data.train=s/train-{0..3}.tar", "data.classes=c.txt")
    data = apply_overrides(digits(), settings).absolute().data
    assert data.model_dump()["train"] == f"{tmp_path}/run/s/train-{{0..3}}.tar"
    assert data.model_dump()["classes"] == tmp_path / "run" / "c.txt"
    hub = apply_overrides(digits(), ["data.kind=timm", "data.name=hfds/photos"])
    assert hub.absolute().data.model_dump()["name"] == "hfds/photos"  # no folder of that name here
    monkeypatch.chdir(tmp_path)
    assert hub.absolute().data.model_dump()["name"] == f"hfds/{tmp_path}/photos"


def test_home_is_known_in_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    settings = ("data.kind=folder", "data.root=~/photos", "model.checkpoint=~/w.pt")
    config = apply_overrides(digits(), settings)
    assert config.data.model_dump()["root"] == Path("/somebody/photos")
    assert config.model.checkpoint == Path("/somebody/w.pt")


def repaint(path: Path) -> None:
    Image.new("L", (8, 8), 7).save(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(lambda r: (r / "val/red/0.png").unlink(), "validation", id="deleted"),
        pytest.param(lambda r: repaint(r / "val/red/0.png"), "red/0.png", id="repaired"),
        pytest.param(lambda r: repaint(r / "test/red/1.png"), "test images", id="test"),
        pytest.param(lambda r: shutil.rmtree(r / "test"), "now no test images", id="no test"),
        pytest.param(lambda r: repaint(r / "train/red/0.png"), "1 training", id="training"),
    ],
)
def test_changes_that_do_no_harm_are_told_and_recorded(
    change: Callable[[Path], object], told: str, photos: Path, tmp_path: Path
) -> None:
    run = begun(of_folder(photos), tmp_path / "run")
    change(photos)
    with pytest.warns(UserWarning, match="have changed since the run began") as caught:
        result = train(of_folder(photos), run, resume=True, quiet=True)
    assert told in str(caught[0].message)
    assert told in result["history"][0]["change"]
    assert json.loads((run / "history.json").read_text())["history"] == result["history"]
    (run / "result.json").unlink()
    train(of_folder(photos), run, resume=True, quiet=True)  # told once


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(lambda r: (r / "train/red/0.png").unlink(), "16 training images", id="gone"),
        pytest.param(
            lambda r: (r / "train/red/0.png").rename(r / "train/red/9.png"),
            "names, labels or another order",
            id="renamed",
        ),
        pytest.param(
            lambda r: [repaint(path) for path in (r / "train").glob("*/*")],
            "16 training images have other contents",
            id="repainted",
        ),
        pytest.param(
            lambda r: [(r / s / "red").rename(r / s / "rot") for s in ("train", "val", "test")],
            "class_names lacks red and has rot more",
            id="class",
        ),
    ],
)
def test_other_training_images_are_refused(
    change: Callable[[Path], object], told: str, photos: Path, tmp_path: Path
) -> None:
    data = of_folder(photos).data.load(0)
    before = data_facts(data)
    change(photos)
    now = of_folder(photos).data.load(0)
    changes = find_changes(before, data_facts(now), now)
    assert told in "; ".join(changes.fatal)


def test_facts_of_an_older_run_and_keys_of_a_newer_one_are_taken(photos: Path) -> None:
    data: ImageData = of_folder(photos).data.load(0)
    now = data_facts(data)
    old = {key: value for key, value in now.items() if key != "images"}
    assert not find_changes({**old, "name": "elsewhere", "unheard of": 1}, now, data).fatal
    changes = find_changes({**old, "num_train": 3, "num_test": None}, now, data)
    assert changes.fatal == ["num_train was 3, is 16"]
    assert changes.harmless == ["num_test was None, is 4"]


def test_test_images_that_are_new_are_told(photos: Path) -> None:
    data: ImageData = of_folder(photos).data.load(0)
    now = data_facts(data)
    images = {name: facts for name, facts in now["images"].items() if name != "test"}
    changes = find_changes({**now, "num_test": None, "images": images}, now, data)
    assert changes.harmless == ["there were no test images"]


def test_reports_tell_images_apart_by_what_they_are(photos: Path, tmp_path: Path) -> None:
    def counted(root: Path, *settings: str) -> object:
        config = of_folder(root, *settings)
        settings = config.model_dump(mode="json")
        return with_identities(settings, data_facts(config.data.load(0)))

    here = counted(photos)
    place = moved(photos)
    assert counted(place) == here
    assert counted(place, "data.expected_sizes=20,2") == here  # of images that are not here
    repaint(place / "train" / "red" / "0.png")
    assert counted(place) != here


def test_local_weights_are_known_by_their_contents(photos: Path, tmp_path: Path) -> None:
    from advprop.models.build import build_model

    torch.manual_seed(0)
    first = build_model("small_resnet", num_classes=2, in_chans=1, mean=[0.5], std=[0.5], width=4)
    torch.save(first.model.state_dict(), tmp_path / "start.pt")
    config = of_folder(photos, f"model.checkpoint={tmp_path / 'start.pt'}")
    train(config, tmp_path / "run", quiet=True)
    (tmp_path / "start.pt").rename(tmp_path / "moved.pt")
    config = of_folder(photos, f"model.checkpoint={tmp_path / 'moved.pt'}")
    train(config, tmp_path / "run", resume=True, quiet=True)
    torch.save({k: v + 1 for k, v in first.model.state_dict().items()}, tmp_path / "moved.pt")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(ValueError, match=r"model\.checkpoint holds other weights"):
        train(config, tmp_path / "run", resume=True, quiet=True)
    (tmp_path / "moved.pt").unlink()
    train(config, tmp_path / "run", resume=True, quiet=True)
    assert json.loads((tmp_path / "run" / "data.json").read_text())["first_weights"]
