import random

import pytest

from advprop.evaluation.results import summarise
from advprop.report.conclusion import conclude
from advprop.report.rivals import compare_best

COSTS = {"vanilla": (20, 1.0), "vanilla_equal_cost": (100, 1.0)}


def summary_of(accuracies, *, spread=0.002, seeds=5, noise=None):
    """Methods around given clean accuracies (and noise accuracies), paired noise by seed."""
    chance = random.Random(7)
    runs = []
    for method, clean in accuracies.items():
        epochs, passes = COSTS.get(method, (20, 5.0))
        runs += [
            {
                "method": method,
                "seed": seed,
                "epochs": epochs,
                "passes_per_image": passes,
                "train_seconds": 2.0 * epochs * passes,
                "clean_accuracy": clean + chance.gauss(0, spread),
                **({"noise_accuracy": noise[method] + chance.gauss(0, spread)} if noise else {}),
            }
            for seed in range(seeds)
        ]
    return summarise(runs)


def test_winner_at_equal_cost_is_named_with_gain_and_cost():
    summary = summary_of({"vanilla": 0.85, "vanilla_equal_cost": 0.88, "advprop": 0.92})
    found = conclude(summary)
    assert found.headline.startswith("Use advprop: 92.")
    assert "points against vanilla of equal cost" in found.headline
    assert "5 passes per image for 20 epochs" in found.cost
    assert "200 s a run here" in found.cost
    assert "5 times vanilla's passes" in found.cost


def test_gain_over_equal_epochs_alone_is_no_win():
    summary = summary_of({"vanilla": 0.85, "vanilla_equal_cost": 0.92, "advprop": 0.92})
    found = conclude(summary)
    assert found.headline.startswith("Train vanilla longer if clean accuracy is all")
    assert "not significant" in dict(found.points)["Clean images"]
    assert found.cost.startswith("vanilla_equal_cost costs 1 pass per image for 100 epochs")


def test_vanilla_that_is_better_at_equal_cost_is_said_to_be():
    summary = summary_of({"vanilla": 0.85, "vanilla_equal_cost": 0.95, "advprop": 0.90})
    assert "at equal cost it is better on clean images than advprop" in conclude(summary).headline


def test_nothing_significant_means_stay_with_vanilla():
    accuracies = {
        "vanilla": (0.90, 0.91, 0.92),
        "vanilla_equal_cost": (0.91, 0.93, 0.90),
        "advprop": (0.93, 0.90, 0.92),
    }
    summary = summarise(
        [
            {
                "method": method,
                "seed": seed,
                "epochs": COSTS.get(method, (20, 5.0))[0],
                "passes_per_image": COSTS.get(method, (20, 5.0))[1],
                "clean_accuracy": value,
            }
            for method, values in accuracies.items()
            for seed, value in enumerate(values)
        ]
    )
    found = conclude(summary)
    assert found.headline.startswith("Stay with vanilla")
    assert found.cost.startswith("vanilla costs 1 pass per image for 20 epochs")


def test_missing_equal_cost_run_is_a_doubt_in_the_headline():
    headline = conclude(summary_of({"vanilla": 0.85, "advprop": 0.92})).headline
    assert headline.startswith("Use advprop")
    assert "Vanilla of equal cost was not run" in headline


def test_one_seed_decides_nothing():
    names = {"vanilla": 0.85, "vanilla_equal_cost": 0.88, "advprop": 0.95}
    found = conclude(summary_of(names, seeds=1))
    assert found.headline.startswith("Not decided: with one seed a method")
    assert "p =" not in dict(found.points)["Clean images"]


def test_robust_winner_is_named_apart_from_the_clean_answer():
    clean = {"vanilla": 0.85, "vanilla_equal_cost": 0.92, "mixed": 0.90}
    noise = {"vanilla": 0.2, "vanilla_equal_cost": 0.25, "mixed": 0.7}
    found = conclude(summary_of(clean, noise=noise))
    assert found.headline.startswith("Train vanilla longer")
    assert (
        "Use mixed where this matters; on clean images it gets 90."
        in dict(found.points)["Under noise"]
    )
    assert "Under attack" not in dict(found.points)


def test_robustness_without_a_difference_recommends_nothing():
    clean = {"vanilla": 0.85, "vanilla_equal_cost": 0.92, "mixed": 0.90}
    noise = dict.fromkeys(clean, 0.5)
    text = dict(conclude(summary_of(clean, spread=0.02, noise=noise)).points)["Under noise"]
    assert "not significant" in text
    assert "Use mixed" not in text


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "No run has been tested yet"),
        (("advprop",), "advprop gets 90."),
        (("advprop", "mixed"), "its gain is unknown"),
        (("vanilla", "vanilla_equal_cost"), "only vanilla training was run"),
    ],
)
def test_incomplete_comparisons_claim_nothing(names, words):
    headline = conclude(summary_of(dict.fromkeys(names, 0.9))).headline
    assert words in headline
    assert "Use " not in headline


def test_trying_many_methods_makes_winning_harder():
    def runs(method, gains):
        return [
            {"method": method, "seed": seed, "clean_accuracy": 0.8 + gain / 100}
            for seed, gain in enumerate(gains)
        ]

    winner = runs("advprop", (2.0, 2.4, 3.1))
    alone = summarise([*runs("vanilla", (0, 0, 0)), *winner])
    others = [r for i in range(5) for r in runs(f"other{i}", (-1.0 - i, 0.5, 1.0))]
    crowded = summarise([*runs("vanilla", (0, 0, 0)), *winner, *others])
    first = compare_best(alone, "vanilla", "clean_accuracy")
    last = compare_best(crowded, "vanilla", "clean_accuracy")
    assert first.better
    assert not last.better
    assert last.best["method"] == "advprop"
    assert last.corrected == pytest.approx(6 * first.corrected)
