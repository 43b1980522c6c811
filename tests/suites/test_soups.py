"""Branch soups of a run: tested, recorded, exported, and drawn."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import advprop
from advprop.auxiliary.soup import mix_branches
from advprop.comparisons.gathering import report
from advprop.data.batches.loaders import train_batches
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.exporting import mix_run
from advprop.runs.folder import load_run
from advprop.suites.recording import TEST, complete_run, record_test

WEIGHTS = [1, 0.5]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training with two branches."""
    base = digits().with_method("advprop")
    training = dataclasses.replace(base.training, num_epochs=2, warmup_epochs=0.0, batch_size=20)
    data = base.data.model_copy(update={"num_train": 90})
    config = base.model_copy(update={"training": training, "data": data})
    folder = tmp_path_factory.mktemp("soups") / "run"
    train(config, folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, Any]:
    return advprop.evaluate(run, mix=WEIGHTS, suites=["clean", "noise", "adversarial"])


def points(found: dict[str, Any], suite: str) -> dict[float, float]:
    return {p["weight"]: p["accuracy"] for p in found["mix"] if p["suite"] == suite}


def test_weight_0_is_what_the_suites_found(found: dict[str, Any]) -> None:
    assert len(found["mix"]) == 3 * 3
    for suite, numbers in found["suites"].items():
        accuracies = points(found, suite)
        assert list(accuracies) == [0, 0.5, 1]
        assert accuracies[0] == numbers[f"{suite}_accuracy"]
    assert len(set(points(found, "adversarial").values())) > 1


def test_statistics_are_estimated_on_the_first_epochs_training_images(run: Path) -> None:
    loaded = load_run(run)
    split = loaded.load_data().train
    batches = train_batches(split, batch_size=20, seed=loaded.config.seed, epoch=0)
    by_hand = mix_branches(loaded.model, 0.5, images=[batch.images for batch in batches])
    mixed, again = (mix_run(loaded, 0.5).state_dict() for _ in range(2))
    for name, tensor in by_hand.state_dict().items():
        assert torch.equal(mixed[name], tensor)
        assert torch.equal(again[name], tensor)


def test_an_export_is_the_soup_that_was_tested_and_its_card_says_so(
    run: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    own = Path(shutil.copytree(run, tmp_path / "run"))
    assert record_test(own, found)
    folder = advprop.export(own, tmp_path / "export", mix=0.5)
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    exported, mixed = advprop.load_export(folder), mix_run(load_run(run), 0.5)
    with torch.no_grad():
        assert torch.equal(exported.model(images), mixed(images))
    assert exported.provenance["mix"] == {"branch": "adversarial", "weight": 0.5}
    card = (folder / "README.md").read_text()
    assert "branch (weight 0) and the branch adversarial (weight 1), at weight 0.5." in card
    listed = card.partition("## Results")[2].partition("## ")[0]
    for suite in ("clean", "noise", "adversarial"):
        assert f"| {suite} accuracy | {points(found, suite)[0.5]:.2%} | digits test |" in listed
    assert listed.count("digits test") == 3
    tested = advprop.evaluate(folder, suites=["adversarial"])["suites"]["adversarial"]
    assert tested["adversarial_accuracy"] == points(found, "adversarial")[0.5]


def test_an_untested_soup_has_no_results_in_its_card(
    run: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    own = Path(shutil.copytree(run, tmp_path / "run"))
    record_test(own, found)
    folder = advprop.export(own, tmp_path / "export", mix=0.75)
    assert "## Results" not in (folder / "README.md").read_text()


def test_points_are_recorded_and_drawn_and_stay(
    run: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    own = Path(shutil.copytree(run, tmp_path / "run"))
    record_test(own, found)
    again = {name: value for name, value in found.items() if name != "mix"}
    record_test(own, again)
    assert json.loads((own / TEST).read_text())["mix"] == found["mix"]
    complete_run(own)
    page = report([own], tmp_path / "page.html").read_text()
    assert '<h2 id="soups">Branch soups</h2>' in page
    file = tmp_path / "found.json"
    file.write_text(json.dumps(found))
    assert '<h2 id="soups">' in report([file], tmp_path / "page.html").read_text()


def test_curves_and_pairs_are_those_of_the_clean_branch(run: Path) -> None:
    found = advprop.evaluate(
        run,
        mix=[1],
        suites=["adversarial"],
        all_branches=True,
        limit=20,
        settings=["evaluation.epsilons=0.05", "evaluation.attack.num_steps=1"],
    )
    assert len(found["suites"]["adversarial"]["pairs"]) == 4
    assert len(found["mix"]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mix": [0.5, 2]}, "weight=2: must be from 0"),
        ({"mix": [0.5], "eval_branch": "adversarial"}, "leave --eval-branch and --attack-branch"),
        ({"mix": [0.5], "attack_branch": "adversarial"}, "leave --eval-branch and --attack-branch"),
    ],
)
def test_what_cannot_be_tested_is_refused(run: Path, changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advprop.evaluate(run, suites=["clean"], **changes)
