"""From a table or lists of labels to predictions, by the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from command_line import Cli
from PIL import Image

from advprop.exports.export import load_export

SETTINGS = (
    *("data.image_size=32", "data.augmentation=none", "data.balanced=true"),
    *("model.name=test_resnet", "training.num_epochs=1", "training.num_workers=0"),
    *("evaluation.num_workers=0", "training.warmup_epochs=0", "training.batch_size=16"),
    *("evaluation.corruptions=contrast", "evaluation.corruption_severities=1"),
    "evaluation.epsilons=1/255",
)
CHANNELS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures, each bright or dark by channel, a tenth of the labels unknown."""
    folder = tmp_path_factory.mktemp("labels")
    draw = np.random.default_rng(0)
    present = draw.integers(0, 2, (60, 3))
    lines = [",".join(["file", "split", *CHANNELS])]
    for number, labels in enumerate(present):
        pixels = 60 + 120 * labels + draw.integers(0, 40, (40, 36, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        split = ("train", "train", "train", "valid", "test")[number % 5]
        cells = ["" if draw.random() < 0.1 else str(label) for label in labels]
        lines.append(",".join([f"{number}.png", split, *cells]))
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder / "labels.csv"


def train(source: Path | tuple[str, ...], out: Path, *settings: str) -> list[object]:
    """Arguments of a run on a table, or on the images that settings name."""
    table = ("data.kind=table", f"data.table={source}")
    given = (*(table if isinstance(source, Path) else source), *SETTINGS, *settings)
    return ["train", "from_scratch", "--out", out, *[part for s in given for part in ("--set", s)]]


def test_from_a_table_to_predictions(cli: Cli, table: Path, tmp_path: Path) -> None:
    run, exported = tmp_path / "run", tmp_path / "exported"
    ended = cli(*train(table, run))
    assert ended.code == 0, ended.err
    assert "labels: 3 labels (red, green, blue): 36 training images" in ended.err
    (entry,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert {"loss", "accuracy"} == {*entry["train"]["clean"]} == {*entry["train"]["adversarial"]}

    suites = ("clean", "noise", "adversarial", "corruptions")
    ended = cli("evaluate", run, "--suite", ",".join(suites), "--json", tmp_path / "found.json")
    assert ended.code == 0, ended.err
    assert ", AUROC 0." in ended.out
    assert ", average precision 0." in ended.out
    found = json.loads((tmp_path / "found.json").read_text())["suites"]
    for suite in suites:
        for measure in ("accuracy", "auroc", "average_precision", "f1"):
            assert 0 <= found[suite][f"{suite}_{measure}"] <= 1
    assert [entry["class"] for entry in found["clean"]["per_class"]] == list(CHANNELS)

    ended = cli("evaluate", run, "--suite", "clean", "--data", f"clean={table}")
    assert "on 60 images" in ended.out
    ended = cli("report", run, "--out", tmp_path / "report.html")
    assert ended.code == 0, ended.err
    page = (tmp_path / "report.html").read_text()
    assert "Clean images: AUROC" in page
    assert "Taken for" not in page  # no confusions

    ended = cli("export", run, "--out", exported)
    assert ended.code == 0, ended.err
    card = (exported / "README.md").read_text()
    assert "clean AUROC" in card
    assert "sigmoid" in card
    assert "softmax" not in card
    assert load_export(exported).multi_label
    assert json.loads((exported / "config.json").read_text())["problem_type"] == (
        "multi_label_classification"
    )
    image = table.with_name("4.png")
    ended = cli("predict", exported, image, "--json", "-")
    ((_, classes),) = (entry.items() for entry in json.loads(ended.out))
    model = timm.create_model(f"local-dir:{exported}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        sure = model(transform(Image.open(image))[None]).sigmoid()[0]
    by_name = {entry["name"]: entry["probability"] for entry in classes[1]}
    assert by_name == pytest.approx(dict(zip(CHANNELS, sure.tolist(), strict=True)), abs=1e-5)


@pytest.fixture(scope="module")
def lists(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The settings of a Hugging Face set of the same pictures; what is unknown there is absent."""
    import datasets

    rows = list(csv.DictReader(table.read_text().splitlines()))
    columns = {
        "image": [str(table.with_name(row["file"])) for row in rows],
        "label": [[name for name in CHANNELS if row[name] == "1"] for row in rows],
    }
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Sequence(datasets.ClassLabel(names=CHANNELS))}
    )
    folder = tmp_path_factory.mktemp("hub")
    whole = datasets.Dataset.from_dict(columns, features=features)
    (folder / "set").mkdir()
    whole.to_parquet(folder / "set" / "train.parquet")
    places = (f"data.name=hfds/{folder / 'set'}", f"data.root={folder / 'cache'}")
    return ("data.kind=timm", *places, "data.test=none")


def test_from_lists_of_a_hub_set_to_predictions(
    cli: Cli, table: Path, lists: tuple[str, ...], tmp_path: Path
) -> None:
    run, exported = tmp_path / "run", tmp_path / "exported"
    ended = cli(*train(lists, run))
    assert ended.code == 0, ended.err
    assert "set: 3 labels (red, green, blue): " in ended.err

    ended = cli("evaluate", run, "--suite", "clean,adversarial")
    assert ended.code == 0, ended.err
    assert ", AUROC 0." in ended.out
    ended = cli("evaluate", run, "--suite", "clean", "--data", f"clean={table}")
    assert "on 60 images" in ended.out
    ended = cli("report", run, "--out", tmp_path / "report.html")
    assert ended.code == 0, ended.err
    assert "Clean images: AUROC" in (tmp_path / "report.html").read_text()

    ended = cli("export", run, "--out", exported)
    assert ended.code == 0, ended.err
    assert load_export(exported).multi_label
    ended = cli("predict", exported, table.with_name("4.png"), "--json", "-")
    ((_, classes),) = (entry.items() for entry in json.loads(ended.out))
    assert {entry["name"] for entry in classes[1]} == {*CHANNELS}


def test_settings_for_classes_and_for_lists_are_not_confused(
    cli: Cli, lists: tuple[str, ...], photos: Path, tmp_path: Path
) -> None:
    source = ("data.kind=timm", "data.name=torch/image_folder", f"data.root={photos.parent}")
    classes = (*source, f"data.train={photos.name}", "data.test=none")
    for settings, message in (
        ((*lists, "data.mixing.mixup=0.2"), "need one class an image, these images have several"),
        ((*lists, "data.sampling.class_balanced=true"), "these images have several labels"),
        (classes, "data.balanced weighs several labels an image, image_folder has one class"),
    ):
        _, recipe, _, out, *given = train(settings, tmp_path / "run")
        for arguments in (
            ("train", recipe, "--out", out, *given),
            ("plan", recipe, *given),
            ("compare", recipe, "--out", out, "--methods", "advprop", *given),
        ):
            ended = cli(*arguments)
            assert ended.code == 2
            assert message in ended.err
            assert not (tmp_path / "run").exists()


def test_what_needs_classes_is_refused(cli: Cli, table: Path, tmp_path: Path) -> None:
    for setting in ("data.mixing.mixup=0.2", "data.sampling.class_balanced=true"):
        ended = cli(*train(table, tmp_path / "run", setting))
        assert ended.code == 2
        assert "need one class an image, these images have several labels" in ended.err
        assert not (tmp_path / "run").exists()
    assert cli(*train(table, tmp_path / "run", "training.num_epochs=1")).code == 0
    ended = cli("evaluate", tmp_path / "run", "--suite", "autoattack")
    assert ended.code == 2
    assert "suite autoattack needs images of one class each" in ended.err
    assert "choose from clean, noise, adversarial, corruptions" in ended.err
    ended = cli("evaluate", tmp_path / "run", "--data", f"clean={tmp_path}")
    assert ended.code == 2
