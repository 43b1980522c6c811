"""Red flags from numbers alone: on either side of each threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advprop.evaluation import checks, model_checks
from advprop.evaluation.checks import red_flag

PAGE = Path(__file__).parents[2] / "docs" / "red_flags.md"
LOGITS = {
    "row_sum_error": 3.0,
    "lowest": -9.0,
    "changed_when_repeated": 0.0,
    "changed_when_alone": 1e-6,
}
GRADIENTS = {"num_images": 100, "zero_gradients": 0, "fruitless_gradients": 0}
IMAGES = {
    "num_images": 100,
    "accuracy": 0.9,
    "accuracy_without": 0.3,
    "lowest": 0.0,
    "highest": 1.0,
}


def curve(*accuracies: float, threat_model: str = "Linf") -> list[dict[str, Any]]:
    return [
        {"threat_model": threat_model, "epsilon": 0.1 * place, "accuracy": accuracy}
        for place, accuracy in enumerate(accuracies)
    ]


def test_perturbations_of_half_epsilon_are_enough() -> None:
    numbers = {"epsilon": 0.1, "reached": 0.51}
    assert checks.check_perturbation("adversarial", numbers) is None
    assert checks.check_perturbation("adversarial", {"epsilon": 0.1}) is None  # none attacked
    flag = checks.check_perturbation("adversarial", {"epsilon": 0.1, "reached": 0.49})
    assert flag is not None
    assert "0.49 of epsilon 0.1" in flag.message


@pytest.mark.parametrize(
    ("accuracies", "raised"),
    [
        ((0.9, 0.5, 0.1), False),
        ((0.9, 0.50, 0.51), False),  # 2 of 200 more
        ((0.9, 0.0, 0.005), False),  # one image
        ((0.9, 0.4, 0.6), True),
        ((0.9, 0.3, 0.35, 0.45), True),  # against the lowest before, not the last
        ((0.0, 0.0, 0.0), False),
    ],
)
def test_rising_accuracy(accuracies: tuple[float, ...], raised: bool) -> None:
    found = checks.check_curve("adversarial", curve(*accuracies), num_images=200)
    assert (found is not None) == raised


def test_threat_models_are_not_compared_with_each_other() -> None:
    points = curve(0.9, 0.1) + curve(0.9, 0.8, threat_model="L2")
    assert checks.check_curve("adversarial", points, num_images=200) is None


@pytest.mark.parametrize(("count", "raised"), [(0, False), (3, False), (4, True), (60, True)])
def test_black_box(count: int, raised: bool) -> None:
    numbers = {"black_box_only": count, "num_images": 100, "num_queries": 50}
    assert (checks.check_black_box("adversarial", numbers) is not None) == raised


@pytest.mark.parametrize(("square", "raised"), [(0.5, False), (0.49, False), (0.485, True)])
def test_square_against_white_box(square: float, raised: bool) -> None:
    after = {"apgd-ce": 0.6, "apgd-t": 0.5, "fab-t": 0.5, "square": square}
    assert (checks.check_square("autoattack", after, num_images=200) is not None) == raised


def test_transfer_is_compared_with_the_same_attack_only() -> None:
    same = {"threat_model": "Linf", "epsilon": 0.1, "num_images": 200, "images": "test"}
    white = {**same, "adversarial_accuracy": 0.8}
    black = {**same, "transfer_accuracy": 0.2, "source": "other"}
    assert checks.check_transfer(black, white) is not None
    assert checks.check_transfer(black, None) is None
    assert checks.check_transfer(black, {**white, "epsilon": 0.01}) is None
    assert checks.check_transfer({**black, "transfer_accuracy": 0.79}, white) is None


@pytest.mark.parametrize(
    ("numbers", "flags"),
    [
        ({}, []),
        ({"zero_gradients": 3}, []),
        ({"zero_gradients": 4}, ["zero_gradients"]),
        ({"fruitless_gradients": 25}, []),
        ({"fruitless_gradients": 40}, ["masked_gradients"]),
    ],
)
def test_gradients(numbers: dict[str, int], flags: list[str]) -> None:
    found = model_checks.check_gradients({**GRADIENTS, **numbers})
    assert [flag.flag for flag in found] == flags


@pytest.mark.parametrize(
    ("numbers", "flags"),
    [
        ({}, []),
        ({"row_sum_error": 0.0}, []),  # log-probabilities may add up to anything
        ({"row_sum_error": 1e-6, "lowest": 0.0}, ["probabilities"]),
        ({"changed_when_repeated": 1e-3}, ["changing_output"]),
        ({"changed_when_alone": 1e-3}, []),  # another batch size rounds otherwise
        ({"changed_when_alone": 0.1}, ["changing_output"]),
        ({"changed_when_repeated": float("nan")}, ["changing_output"]),
    ],
)
def test_outputs(numbers: dict[str, float], flags: list[str]) -> None:
    found = model_checks.check_outputs({**LOGITS, **numbers})
    assert [flag.flag for flag in found] == flags


@pytest.mark.parametrize(
    ("numbers", "raised"),
    [
        ({}, False),
        ({"accuracy_without": 0.99}, False),
        ({"accuracy": 0.2, "accuracy_without": 0.9}, True),
    ],
)
def test_standardisation(numbers: dict[str, float], raised: bool) -> None:
    found = model_checks.check_standardisation({**IMAGES, **numbers})
    assert (found is not None) == raised


def test_branch_and_seen_images() -> None:
    assert model_checks.check_branch("clean", "clean") is None
    assert model_checks.check_branch("adversarial", "clean") is not None
    seen = {"found": 0, "test_images": 9, "train_images": 9}
    assert model_checks.check_seen("clean", seen) is None
    assert model_checks.check_seen("clean", {**seen, "found": 1}) is not None


def test_every_flag_has_a_section() -> None:
    sources = [Path(module.__file__ or "").read_text() for module in (checks, model_checks)]
    names = {part.split('"')[0] for text in sources for part in text.split('flag="')[1:]}
    assert len(names) == 11
    headings = {line[3:] for line in PAGE.read_text().splitlines() if line.startswith("## ")}
    for name in names:
        page = red_flag(flag=name, message="").page
        assert page.removeprefix("docs/red_flags.md#").replace("-", " ") in {
            heading.lower() for heading in headings
        }
