import random

import pytest

from advprop.report.answer.conclusion import conclude
from advprop.report.answer.rivals import compare_all
from advprop.report.page.styles import KNOWN, titled
from advprop.results.summary import summarise

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
    assert "points compared with vanilla at equal cost" in found.headline
    assert "20 epochs of 5 passes per image" in found.cost
    assert "200 s per run" in found.cost
    assert "5 times vanilla's passes" in found.cost


def test_gain_over_equal_epochs_alone_is_no_win():
    summary = summary_of({"vanilla": 0.85, "vanilla_equal_cost": 0.9202, "advprop": 0.92})
    found = conclude(summary)
    assert found.headline.startswith("Train vanilla longer: 92.")
    assert "% accuracy on clean images instead of 85." in found.headline
    assert "not significant" in dict(found.points)["Clean images"]
    assert found.cost.startswith("Vanilla_equal_cost takes 100 epochs of 1 pass per image")


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_vanilla_far_ahead_at_equal_cost_is_the_answer(seeds):
    accuracies = {"vanilla": 0.491, "vanilla_equal_cost": 0.708, "advprop": 0.60}
    headline = conclude(summary_of(accuracies, spread=0.0001, seeds=seeds)).headline
    assert headline.startswith(
        "Train vanilla longer: 70.8 % accuracy on clean images instead of 49.1 %. At the same cost "
        "or less, advprop reaches 60.0 % ("
    )
    assert ("no p-value with" in headline) == (seeds < 3)


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
    assert found.cost.startswith("Vanilla takes 20 epochs of 1 pass per image")


def test_missing_equal_cost_run_is_a_doubt_in_the_headline():
    headline = conclude(summary_of({"vanilla": 0.85, "advprop": 0.92})).headline
    assert headline.startswith("Use advprop")
    assert "Vanilla at equal cost was not run" in headline


@pytest.mark.parametrize(("seeds", "missing"), [(1, 4), (2, 3)])
def test_too_few_seeds_say_how_many_are_missing(seeds, missing):
    names = {"vanilla": 0.85, "vanilla_equal_cost": 0.88, "advprop": 0.95}
    found = conclude(summary_of(names, seeds=seeds))
    assert found.headline.startswith(f"Too few seeds to tell: {missing} more would be needed.")
    text = " ".join(sentence for _, sentence in found.points)
    assert "p =" not in text
    assert "cannot be detected" not in text


def test_gain_that_more_seeds_may_show_says_how_many():
    gains = {"vanilla_equal_cost": (0, 0, 0), "advprop": (0.2, 1.6, 0.9)}
    summary = summarise(
        [
            {"method": method, "seed": seed, "clean_accuracy": 0.9 + gain / 100}
            for method, own in gains.items()
            for seed, gain in enumerate(own)
        ]
    )
    headline = conclude(summary).headline
    assert headline.startswith(
        "Too few seeds to tell: 4 more would be needed. advprop reaches 90.9"
    )


def test_robust_winner_is_named_apart_from_the_clean_answer():
    clean = {"vanilla": 0.85, "vanilla_equal_cost": 0.92, "mixed": 0.90}
    noise = {"vanilla": 0.2, "vanilla_equal_cost": 0.25, "mixed": 0.7}
    found = conclude(summary_of(clean, noise=noise))
    assert found.headline.startswith("Train vanilla longer")
    assert (
        "Use mixed if this matters; on clean images it reaches 90."
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
        (("advprop",), "advprop reaches 90."),
        (("advprop", "mixed"), "its gain is unknown"),
        (("vanilla", "vanilla_equal_cost"), "only vanilla training was run"),
    ],
)
def test_incomplete_comparisons_claim_nothing(names, words):
    headline = conclude(summary_of(dict.fromkeys(names, 0.9), spread=0)).headline
    assert words in headline
    assert "Use " not in headline
    assert "has the highest" not in headline


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
    first = compare_all(alone, "vanilla", "clean_accuracy")[0]
    last = compare_all(crowded, "vanilla", "clean_accuracy")[0]
    assert first.better
    assert not last.better
    assert last.method["method"] == "advprop"
    assert last.difference["p_holm"] == pytest.approx(6 * first.difference["p_holm"])


TITLES = {name: title for name, (title, *_) in KNOWN.items()}
BASELINES = {"vanilla": 0.85, "vanilla_equal_cost": 0.88}


@pytest.mark.parametrize("winner", ["sam", "augmix", "maxup", "advprop", "some other"])
def test_whichever_method_wins_is_named_with_the_others_that_are_better(winner):
    methods = {**BASELINES, "advprop": 0.91, "mixed": 0.90, "adversarial": 0.80, winner: 0.93}
    _, summary = titled([], summary_of(methods))
    found = conclude(summary)
    assert found.headline.startswith(f"Use {TITLES.get(winner, winner)}: 93.")
    (also,) = [
        text for _, text in found.points if text.startswith("Also significantly better than")
    ]
    named = {part.rsplit(maxsplit=2)[0] for part in also.partition(": ")[2].split(", ")}
    assert named == {"AdvProp", "mixed training"} - {TITLES.get(winner)}


def test_rivals_have_titles():
    assert [TITLES[name] for name in ("sam", "augmix", "maxup")] == ["SAM", "AugMix", "MaxUp"]


def given(**gains):
    """Methods with these gains over 90 %, in points, one a seed."""
    return summarise(
        [
            {"method": method, "seed": seed, "clean_accuracy": 0.9 + gain / 100}
            for method, own in gains.items()
            for seed, gain in enumerate(own)
        ]
    )


def test_a_gain_beyond_chance_wins_over_a_higher_mean_that_may_be_chance():
    found = conclude(
        given(vanilla_equal_cost=(0, 0.1, 0), advprop=(-3, 9, 0.6), sam=(1.0, 1.2, 1.1))
    )
    assert found.headline.startswith("Use sam: 91.1 %")
    assert (
        "Clean images",
        "advprop has a higher mean, 92.2 %, but its difference from vanilla at equal cost is not "
        "significant.",
    ) in found.points


def test_the_correction_is_for_all_rivals():
    alone = {"vanilla_equal_cost": (0, 0, 0), "sam": (1.0, 1.6, 1.3)}
    assert conclude(given(**alone)).headline.startswith("Use sam")
    others = {f"other {i}": (-0.5, 0.5 + i, 0) for i in range(4)}
    assert conclude(given(**alone, **others)).headline.startswith("Too few seeds to tell")


def test_vanilla_of_equal_epochs_is_to_be_beaten_where_it_is_the_better_one():
    overfitted = {"vanilla": 0.92, "vanilla_equal_cost": 0.86, "advprop": 0.90}
    found = conclude(summary_of(overfitted))
    assert found.headline.startswith("Stay with vanilla for clean accuracy")
    assert "points compared with vanilla at equal epochs" in found.headline
    better = conclude(summary_of({**overfitted, "sam": 0.94}))
    assert better.headline.startswith("Use sam")
    assert "points compared with vanilla at equal epochs" in better.headline


def test_more_epochs_that_gain_nothing_beyond_chance_are_not_recommended():
    found = conclude(
        given(vanilla=(0, 0.4, 0.2), vanilla_equal_cost=(0.5, 0.1, 0.3), sam=(0.1, 0, -0.3))
    )
    assert found.headline.startswith("Stay with vanilla")


def test_at_equal_time_where_vanilla_itself_drops_out():
    leads = given(vanilla_equal_cost=(1.0, 1.1, 1.3), sam=(0.1, 0, -0.3), advprop=(0, 0.2, 0.4))
    assert conclude(leads).headline.startswith(
        "Train vanilla: 91.1 % accuracy on clean images. At the same cost or less, "
    )
    wins = given(vanilla_equal_cost=(0, 0.1, 0), sam=(1.0, 1.2, 1.1), advprop=(0, 0.2, 0.4))
    assert conclude(wins).headline.startswith("Use sam: 91.1 %")
    summary = given(vanilla_equal_cost=(1, 0, 0.5), sam=(0, 1.2, 0.4))
    summary[0] |= {"epochs": 80, "passes_per_image": 1.0, "total_passes": 80.0}
    found = conclude(summary)
    assert found.headline.startswith("Stay with vanilla")
    assert found.cost.startswith("Vanilla_equal_cost takes 80 epochs of 1 pass per image")
