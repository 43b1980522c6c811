"""Runs through the whole command line on real images."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import timm
import torch
from command_line import QUICK, Cli, contents
from PIL import Image

import advprop
from advprop.data.preprocessing import Preprocessing
from advprop.exports.export import write_export
from advprop.models.build import build_model


def test_a_run_from_training_to_prediction(cli: Cli, tmp_path: Path) -> None:
    run, export = tmp_path / "run", tmp_path / "export"
    trained = cli("train", "digits", "--out", run, "--method", "advprop", "--seed", 3, *QUICK)
    assert trained.code == 0, trained.err
    assert f"next: advprop evaluate {run}" in trained.out
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in entries] == [1, 2]
    assert set(entries[0]["train"]) == {"clean", "adversarial"}
    saved = json.loads((run / "config.json").read_text())
    assert (saved["seed"], saved["training"]["num_epochs"]) == (3, 2)

    evaluated = cli("evaluate", run, "--json", tmp_path / "found.json")
    assert evaluated.code == 0, evaluated.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {
        *("run", "folder", "branch", "weights", "versions", "suites", "checks", "red_flags")
    }
    assert set(found["suites"]) == {"clean", "noise", "adversarial"}
    assert (found["branch"], found["weights"]) == ("clean", "last")
    assert f"recorded in {run}" in evaluated.out
    assert json.loads((run / "test.json").read_text()) == found
    limited = cli("evaluate", run, "--limit", 20, "--suite", "clean")
    assert f"not recorded in {run}: only tests without --limit are recorded" in limited.out
    assert json.loads((run / "test.json").read_text()) == found

    exported = cli("export", run, "--out", export, "--format", "hub,torch_export")
    assert exported.code == 0, exported.err
    assert f"{export / 'model.pt2'}: same predictions, logits differ by at most 0 " in exported.out
    card = (export / "README.md").read_text()
    assert "| method | advprop |" in card
    assert "| seed | 3 |" in card
    assert "| train images | 100 |" in card
    assert f"| clean accuracy | {found['suites']['clean']['clean_accuracy']:.2%} |" in card
    again = cli("evaluate", export, "--json", tmp_path / "again.json")
    assert again.code == 0, again.err
    assert json.loads((tmp_path / "again.json").read_text())["suites"] == found["suites"]

    data = advprop.load_run(run).load_data()
    pixels = (data.test.image(0)[0] * 255).round().byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    predicted = cli("predict", export, tmp_path / "digit.png", "--top", 2)
    assert predicted.code == 0, predicted.err
    assert predicted.out.startswith(f"{tmp_path / 'digit.png'}: ")
    assert predicted.out.count("%") == 2

    assert cli("report", run).code == 0
    assert "<html" in (run / "report.html").read_text()


def test_evaluating_other_branches_gives_other_numbers(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cli("train", "digits", "--out", run, *QUICK)
    found = {}
    for branch in ("clean", "adversarial"):
        file = tmp_path / f"{branch}.json"
        assert cli("evaluate", run, "--eval-branch", branch, "--json", file).code == 0
        found[branch] = json.loads(file.read_text())["suites"]
    assert found["clean"]["adversarial"]["attack_branch"] == "clean"
    assert found["adversarial"]["adversarial"]["attack_branch"] == "adversarial"
    assert found["clean"]["clean"] != found["adversarial"]["clean"]


def test_attacks_over_epsilons_branches_and_models(cli: Cli, tmp_path: Path) -> None:
    for seed in (0, 1):
        cli("train", "digits", "--out", tmp_path / f"run{seed}", "--seed", seed, *QUICK)
    asked = ("--suite", "adversarial,transfer", "--source", tmp_path / "run1", "--all-branches")
    steps = ("--restarts", 2, "--epsilons", "0.1,4/255", "--set", "evaluation.attack.num_steps=3")
    file = tmp_path / "found.json"
    ended = cli("evaluate", tmp_path / "run0", *asked, *steps, "--limit", 40, "--json", file)
    assert ended.code == 0, ended.err
    found = json.loads(file.read_text())["suites"]
    attacked = found["adversarial"]
    assert (attacked["restarts"], attacked["num_steps"]) == (2, 3)
    assert [point["epsilon"] for point in attacked["curve"]] == [0.0, 4 / 255, 0.1]
    pairs = {(pair["attack_branch"], pair["eval_branch"]) for pair in attacked["pairs"]}
    assert len(pairs) == 4
    assert found["transfer"]["source"] == str(tmp_path / "run1")
    assert "Linf epsilon 0.01569:" in ended.out
    assert "attacked adversarial, tested clean:" in ended.out
    tested = cli("evaluate", tmp_path / "run0", "--suite", "clean", "--eval-branch", "adversarial")
    assert tested.out.splitlines()[-1].startswith("RED FLAG other_branch: ")
    (tmp_path / "run1" / "result.json").unlink()  # as if it were still in training
    tested = cli("evaluate", tmp_path / "run1", "--suite", "clean", "--limit", 40)
    assert tested.out.splitlines()[-1].startswith("RED FLAG unfinished_training: ")


def test_a_folder_of_photos_trains_and_timm_loads_the_export(
    cli: Cli, photos: Path, tmp_path: Path
) -> None:
    run, export = tmp_path / "run", tmp_path / "export"
    settings = [
        f"data.root={photos}",
        "data.image_size=32",
        "training.num_epochs=2",
        "training.batch_size=8",
        "training.warmup_epochs=0",
    ]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    trained = cli("train", "from_scratch", "--out", run, "--quiet", *flags)
    assert trained.code == 0, trained.err
    assert cli("export", run, "--out", export).code == 0
    model = timm.create_model(f"local-dir:{export}", pretrained=True).eval()
    ours = advprop.load_export(export).model
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        assert torch.equal(model((images - mean) / std), ours(images))
    tested = cli("evaluate", export, "--suite", "clean", "--data", f"clean={photos}")
    assert tested.code == 0, tested.err
    assert "on 40 images" in tested.out


CHINA = Path(str(files("sklearn.datasets.images") / "china.jpg"))


@pytest.fixture
def timm_export(tmp_path: Path) -> Path:
    """An export of one of timm's networks for colour images, its weights random."""
    torch.manual_seed(0)
    model = build_model("test_resnet", num_classes=3, in_chans=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    preprocessing = Preprocessing(image_shape=(3, 64, 64), interpolation="bilinear", crop_pct=0.9)
    return write_export(
        model, tmp_path / "timm", class_names=("a", "b", "c"), preprocessing=preprocessing
    )


def test_prediction_is_what_timm_says_of_the_export(cli: Cli, timm_export: Path) -> None:
    predicted = cli("predict", timm_export, CHINA, "--json", "-")
    assert predicted.code == 0, predicted.err
    ((entry,),) = [json.loads(predicted.out)]
    assert entry["image"] == str(CHINA)
    model = timm.create_model(f"local-dir:{timm_export}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with Image.open(CHINA) as image, torch.no_grad():
        probabilities = model(transform(image.convert("RGB")).unsqueeze(0)).softmax(dim=1)[0]
    names = model.pretrained_cfg["label_names"]
    expected = sorted(zip(probabilities.tolist(), names, strict=True), reverse=True)
    assert expected[0][0] > expected[1][0] + 0.01
    assert [(c["probability"], c["name"]) for c in entry["classes"]] == expected


def test_predictions_of_a_folder_with_a_corrupt_image(
    cli: Cli, timm_export: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "blue" / "07.png").write_bytes(b"no picture")
    found = tmp_path / "found.json"
    ended = cli("predict", timm_export, photos, "--json", found, "--top", 1, "--batch-size", 16)
    assert ended.code == 2
    assert ended.err.count("cannot read the image") == 1
    assert str(photos / "blue" / "07.png") in ended.err
    assert "1 of 40 images could not be read" in ended.err
    entries = json.loads(found.read_text())
    assert [entry["image"] for entry in entries] == sorted(map(str, photos.rglob("*.png")))
    assert [set(entry) for entry in entries].count({"image", "error"}) == 1
    assert ended.out.count("\n") == 39


@pytest.mark.full
def test_onnx_through_the_command_line(cli: Cli, tmp_path: Path) -> None:
    import onnxruntime

    run, export = tmp_path / "run", tmp_path / "export"
    cli("train", "digits", "--out", run, *QUICK)
    exported = cli("export", run, "--out", export, "--format", "onnx")
    assert (exported.code, exported.err) == (0, "")
    assert f"{export / 'model.onnx'}: same predictions, logits differ by at most" in exported.out
    model = advprop.load_export(export).model
    session = onnxruntime.InferenceSession(export / "model.onnx")
    images = torch.rand(5, *session.get_inputs()[0].shape[1:])
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(images), rtol=1e-4, atol=1e-4)


def test_a_finished_run_is_left_as_it_is(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cli("train", "digits", "--out", run, *QUICK)
    before = contents(run)
    again = cli("train", "digits", "--out", run, "--resume", *QUICK)
    assert again.code == 0
    assert "already finished" in again.out
    assert contents(run) == before


def test_a_saved_configuration_and_a_function_are_recipes(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cli("train", "digits", "--out", run, *QUICK)
    copy = cli("train", run / "config.json", "--out", tmp_path / "copy", "--quiet")
    assert copy.code == 0, copy.err
    ours, theirs = (advprop.load_run(folder).model for folder in (run, tmp_path / "copy"))
    for key, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key])
    (tmp_path / "mine.py").write_text(
        "from advprop.recipes.builtin import digits\n\ndef quick():\n    return digits()\n"
    )
    called = cli("recipes", f"{tmp_path / 'mine.py'}:quick")
    assert json.loads(called.out)["recipe"] == "digits"


def test_compare_writes_results_and_goes_on_with_what_it_has(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    one_step = ("--set", "method.attack.num_steps=1")
    command = ("compare", "digits", "--methods", "vanilla,advprop", "--out", folder)
    command = (*command, *QUICK, *one_step)
    threads = torch.get_num_threads()
    compared = cli(*command, "--seeds", 1)
    assert torch.get_num_threads() == threads
    assert compared.code == 0, compared.err
    results = json.loads((folder / "results.json").read_text())
    assert [run["method"] for run in results["runs"]] == [
        "vanilla",
        "advprop",
        "vanilla_equal_cost",
    ]
    costs = {run["method"]: (run["epochs"], run["passes_per_image"]) for run in results["runs"]}
    assert costs == {"vanilla": (2, 1), "advprop": (2, 3), "vanilla_equal_cost": (6, 1)}
    assert (folder / "report.html").is_file()
    checkpoints = contents(folder / "runs" / "advprop-seed0" / "checkpoints")
    more = cli(*command, "--seeds", 2)
    assert more.code == 0, more.err
    results = json.loads((folder / "results.json").read_text())
    assert len(results["runs"]) == 6
    assert contents(folder / "runs" / "advprop-seed0" / "checkpoints") == checkpoints
    advprop_summary = next(s for s in results["summary"] if s["method"] == "advprop")
    assert set(advprop_summary["versus"]) == {"vanilla", "vanilla_equal_cost"}
    assert {"difference", "ci95", "p_value"} <= set(advprop_summary["versus"]["vanilla"])
    assert advprop_summary["clean_accuracy"]["n"] == 2


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_the_installed_command_answers(argument: str) -> None:
    command = [sys.executable, "-m", "advprop", argument]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "advprop" in ended.stdout


def test_help_imports_neither_torch_nor_timm() -> None:
    code = (
        "import sys, advprop.cli.main as m; "
        "sys.exit(str([n for n in ('torch', 'timm', 'accelerate', 'pydantic', 'scipy') "
        "if n in sys.modules] or ''))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not ended.stderr.strip(), ended.stderr
