"""Runs of several places in one report: nothing collides, nothing is silently averaged."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from advprop.comparisons.gathering import gather, report
from advprop.comparisons.labels import short_names
from advprop.comparisons.sources import read_source
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.suites.recording import complete_run, record_test


def comparison(folder: Path, methods: tuple[str, ...], **changes: Any) -> Path:
    """A comparison's folder of which only results.json is left."""
    folder.mkdir(parents=True)
    row = {"epochs": 2, "passes_per_image": 1.0, "tested_on": "digits test", **changes}
    runs = [
        {
            **row,
            "method": method,
            "seed": seed,
            "clean_accuracy": 0.9 + 0.01 * seed,
            "folder": f"runs/{method}-seed{seed}",
        }
        for method in methods
        for seed in (0, 1)
    ]
    results = {
        "recipe": changes.get("recipe", "digits"),
        "command": f"advprop compare digits --out {folder.name}",
        "planned_runs": len(runs),
        "runs": runs,
        "failed": [],
        "versions": {"torch": "2.14"},
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def gathered(*places: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return gather([read_source(place) for place in places], "advprop report ...")


def test_comparisons_with_the_same_methods_are_told_apart_by_folder(tmp_path: Path) -> None:
    first = comparison(tmp_path / "first", ("vanilla", "advprop"))
    second = comparison(tmp_path / "second", ("vanilla", "advprop"))
    results, details = gathered(first, second)
    assert {run["method"] for run in results["runs"]} == {
        f"{method}, {folder}" for method in ("vanilla", "advprop") for folder in ("first", "second")
    }
    versus = {entry["method"]: entry["versus"] for entry in results["summary"]}
    assert set(versus["advprop, first"]) == {"vanilla"}
    assert all(entry["seeds"] == [0, 1] for entry in results["summary"])
    assert details["command"].splitlines() == [
        "advprop compare digits --out first",
        "advprop compare digits --out second",
        "advprop report ...",
    ]


def test_other_methods_of_the_same_recipe_join_one_table(tmp_path: Path) -> None:
    first = comparison(tmp_path / "first", ("vanilla",))
    second = comparison(tmp_path / "second", ("advprop, width 16",))
    results, details = gathered(first, second)
    assert [entry["method"] for entry in results["summary"]] == ["vanilla", "advprop, width 16"]
    assert set(results["summary"][1]["versus"]) == {"vanilla"}
    assert details["notes"] == []


def test_other_recipes_and_images_are_groups_and_said_to_be(tmp_path: Path) -> None:
    first = comparison(tmp_path / "first", ("vanilla", "advprop"))
    second = comparison(
        tmp_path / "second", ("vanilla", "advprop"), recipe="mnist5k", tested_on="mnist5k test"
    )
    results, details = gathered(first, second)
    labels = [entry["method"] for entry in results["summary"]]
    assert labels == ["vanilla, digits", "advprop, digits", "vanilla, mnist5k", "advprop, mnist5k"]
    assert results["recipe"] == "digits, mnist5k"
    (note,) = details["notes"]
    assert "form 2 groups that differ" in note
    assert "different images (digits test, mnist5k test)" in note


def test_the_same_label_with_other_settings_is_not_averaged(tmp_path: Path) -> None:
    first = comparison(tmp_path / "first", ("advprop",), epochs=2)
    second = comparison(tmp_path / "second", ("advprop",), epochs=20)
    results, _ = gathered(first, second)
    assert [e["method"] for e in results["summary"]] == ["advprop, first", "advprop, second"]


def test_short_names_are_as_long_as_needed() -> None:
    paths = [Path("/a/one/runs"), Path("/a/two/runs"), Path("/a/three")]
    assert list(short_names(paths).values()) == ["one/runs", "two/runs", "three"]


BRANCHES = ("clean", "adversarial")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one small run."""
    folder = tmp_path_factory.mktemp("runs")
    base = digits().with_method("advprop")
    training = dataclasses.replace(base.training, num_epochs=1, warmup_epochs=0.0, batch_size=20)
    data = base.data.model_copy(update={"num_train": 40})
    config = base.model_copy(update={"training": training, "data": data})
    folders = [folder / f"seed{seed}" for seed in (0, 1)]
    for seed, place in enumerate(folders):
        train(config.with_seed(seed), place, quiet=True)
        complete_run(place)
    return folders


def test_single_runs_of_one_setting_are_averaged_over_seeds(runs: list[Path]) -> None:
    results, details = gathered(*runs)
    (entry,) = results["summary"]
    assert (entry["method"], entry["seeds"]) == ("advprop", [0, 1])
    assert len(details["tests"]) == len(details["curves"]) == 2
    assert details["command"].count("advprop train") == 2
    assert details["notes"] == []


def test_runs_with_settings_that_are_no_more_are_the_same(runs: list[Path], tmp_path: Path) -> None:
    older = Path(shutil.copytree(runs[1], tmp_path / "older"))
    config = json.loads((older / "config.json").read_text())
    config["method"] |= {"stale_steps": 0, "attack_every": 1}
    (older / "config.json").write_text(json.dumps(config))
    (entry,) = gathered(runs[0], older)[0]["summary"]
    assert (entry["method"], entry["seeds"]) == ("advprop", [0, 1])


def test_an_evaluation_joins_the_run_that_it_is_of(runs: list[Path], tmp_path: Path) -> None:
    test = json.loads((runs[0] / "test.json").read_text())
    corruptions = {"corruptions_accuracy": 0.5, "images": "digits test", "num_images": 9}
    fewer = {**test["suites"]["clean"], "num_images": 3, "clean_accuracy": 0.0}
    found = tmp_path / "found.json"
    found.write_text(json.dumps({**test, "suites": {"corruptions": corruptions, "clean": fewer}}))
    results, details = gathered(runs[0], found)
    (row,) = results["runs"]
    assert row["corruptions_accuracy"] == 0.5
    assert row["clean_accuracy"] == test["suites"]["clean"]["clean_accuracy"]
    assert set(details["tests"][0]["suites"]) == {"clean", "noise", "adversarial", "corruptions"}
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**test, "branch": "adversarial"}))
    results, details = gathered(runs[0], other)
    assert [r["method"] for r in results["runs"]] == ["advprop", "advprop, branch adversarial"]
    assert "--eval-branch adversarial" in details["command"]


def test_tests_of_one_run_add_up(runs: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    test = json.loads((run / "test.json").read_text())
    flags = [{"flag": "f", "suite": suite, "message": suite} for suite in ("clean", "noise")]
    curve = [{"threat_model": "Linf", "epsilon": 0.1, "accuracy": 0.3}]
    test["suites"]["adversarial"]["curve"] = curve
    (run / "test.json").write_text(json.dumps({**test, "red_flags": flags}))
    again = {name: {**test["suites"][name]} for name in ("clean", "adversarial")}
    again["clean"]["clean_accuracy"] = 0.123
    del again["adversarial"]["curve"]
    record_test(run, {**test, "suites": again, "red_flags": [], "checks": {"outputs": 1}})
    whole = json.loads((run / "test.json").read_text())
    assert list(whole["suites"]) == ["noise", "clean", "adversarial"]
    assert whole["suites"]["noise"] == test["suites"]["noise"]
    assert whole["suites"]["clean"]["clean_accuracy"] == 0.123
    assert whole["suites"]["adversarial"]["curve"] == curve
    assert [flag["suite"] for flag in whole["red_flags"]] == ["noise"]
    assert whole["checks"] == {**test["checks"], "outputs": 1}
    assert complete_run(run)["clean_accuracy"] == 0.123


def test_no_test_is_kept_before_the_usual_suites(runs: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    test = json.loads((run / "test.json").read_text())
    (run / "test.json").unlink()
    assert not record_test(run, {**test, "suites": {"noise": test["suites"]["noise"]}})
    assert not (run / "test.json").exists()
    assert record_test(run, test)
    assert json.loads((run / "test.json").read_text()) == test


def test_a_record_holds_answers_to_images_spread_over_the_test_set(runs: list[Path]) -> None:
    found = [json.loads((run / "record.json").read_text())["predictions"] for run in runs]
    assert [len(part["clean"]) for part in found] == [200, 200]
    ids = [[image["id"] for image in part["images"]] for part in found]
    assert ids[0] == ids[1]
    assert len({image["label"] for image in found[0]["images"]}) == 10
    assert all(len(identity) == 12 for identity in ids[0])
    assert all(0 <= sure <= 1 for sure in found[0]["confidence"])


def test_the_gallery_holds_maps_of_both_branches(runs: list[Path]) -> None:
    gallery = json.loads((runs[0] / "record.json").read_text())["gallery"]
    titles = [f"{kind}, {of}" for kind in ("gradient", "Grad-CAM") for of in BRANCHES]
    for entry in gallery:
        assert [found["title"] for found in entry["saliency"]] == titles
        pictures = {found["picture"] for found in entry["saliency"]}
        assert len(pictures) > 2
        assert all(picture.startswith("data:image/png;base64,") for picture in pictures)


def test_one_page_is_written_where_it_is_wanted(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert report(runs) == Path("report.html")
    assert report(runs, tmp_path / "page.html") == tmp_path / "page.html"
    text = (tmp_path / "page.html").read_text()
    assert f"advprop report {runs[0]} {runs[1]} --out {tmp_path / 'page.html'}" in text
    assert report(runs[0]) == runs[0] / "report.html"


@pytest.mark.parametrize(
    ("out", "message"),
    [("notes.html", "not a report"), ("nowhere/page.html", "no such folder"), (".", "a folder")],
)
def test_nothing_else_is_overwritten(
    out: str, message: str, runs: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.html").write_text("mine")
    with pytest.raises(ValueError, match=message):
        report(runs, tmp_path / out)
    assert (tmp_path / "notes.html").read_text() == "mine"


@pytest.mark.parametrize(
    "content", ["{}", '{"suites": 3}', '{"suites": {"clean": {}}, "run": "x"}', "[]", "no"]
)
def test_a_file_that_is_no_evaluation_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"found\.json"):
        report(path)
