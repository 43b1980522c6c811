import json
import warnings

import numpy as np
import pytest
from scipy import stats

from advprop.results.cells import (
    Cell,
    accuracy_cell,
    difference_cell,
    p_text,
    passes_cell,
)
from advprop.results.significance import (
    holm,
    is_significant,
    mean_interval,
    paired_difference,
    seeds_missing,
)
from advprop.results.summary import corrected, difference_of, summarise

OURS, THEIRS = [0.914, 0.921, 0.907, 0.918], [0.905, 0.917, 0.909, 0.908]


def run(method, seed, clean, **more):
    return {"method": method, "seed": seed, "clean_accuracy": clean, **more}


def entry_of(summary, method):
    return next(entry for entry in summary if entry["method"] == method)


@pytest.mark.parametrize("values", [OURS, OURS[:3], [0.1, 0.9, 0.4]])
def test_interval_is_scipys_student_t(values):
    mean, interval = mean_interval(values)
    expected = stats.t.interval(
        0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values)
    )
    assert mean == pytest.approx(sum(values) / len(values))
    assert interval == pytest.approx(expected)


def test_interval_by_hand():
    # mean 2, standard deviation 1, t(0.975, 2) = 4.30265: 2 -+ 4.30265 / sqrt(3)
    assert mean_interval([1.0, 2.0, 3.0]) == (2.0, pytest.approx([-0.48414, 4.48414], abs=1e-5))


@pytest.mark.parametrize("count", [3, 4])
def test_paired_difference_is_scipys(count):
    found = paired_difference(OURS[:count], THEIRS[:count])
    expected = stats.ttest_rel(OURS[:count], THEIRS[:count])
    interval = expected.confidence_interval(0.95)
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert found["ci95"] == pytest.approx([interval.low, interval.high])
    assert found["n"] == count


def test_sign_is_ours_minus_theirs():
    assert paired_difference([0.9, 0.8], [0.5, 0.6])["difference"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([0.9], [0.8]),
        ([0.91, 0.93], [0.90, 0.91]),
        ([0.91, 0.92, 0.93], [0.90, 0.91, 0.92]),
        ([0.9, 0.9, 0.9], [0.9, 0.9, 0.9]),
    ],
    ids=["one seed", "two seeds", "equal differences", "no difference"],
)
def test_without_spread_nothing_is_estimated(ours, theirs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = paired_difference(ours, theirs)
    assert found["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found["ci95"] is None
    assert found["p_value"] is None


def test_holm_against_scipys_steps():
    # sorted 0.01, 0.02, 0.04 times 3, 2, 1; then never below the one before
    assert holm([0.04, 0.01, None, 0.02]) == pytest.approx([0.04, 0.03, None, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_summary_pairs_by_seed_not_by_order():
    runs = [run("advprop", seed, value) for seed, value in enumerate(OURS)]
    runs += [run("vanilla", seed, THEIRS[seed]) for seed in (3, 1, 0, 2)]
    versus = entry_of(summarise(runs), "advprop")["versus"]["vanilla"]
    assert versus["p_value"] == pytest.approx(stats.ttest_rel(OURS, THEIRS).pvalue)


def test_only_seeds_that_both_have_are_compared():
    runs = [run("advprop", seed, OURS[seed]) for seed in (0, 1, 2)]
    runs += [run("vanilla", seed, THEIRS[seed]) for seed in (1, 2, 3)]
    summary = summarise(runs)
    versus = entry_of(summary, "advprop")["versus"]["vanilla"]
    assert versus["n"] == 2
    assert versus["difference"] == pytest.approx((0.921 - 0.917 + 0.907 - 0.909) / 2)
    assert entry_of(summary, "advprop")["clean_accuracy"]["n"] == 3
    assert entry_of(summary, "advprop")["seeds"] == [0, 1, 2]


def test_no_shared_seed_is_no_difference():
    versus = summarise([run("vanilla", 0, 0.8), run("advprop", 1, 0.9)])[1]["versus"]["vanilla"]
    nothing = {"difference": None, "ci95": None, "p_value": None, "n": 0}
    assert versus == {**nothing, "p_holm": None}
    assert difference_of({"versus": {"vanilla": versus}}, "vanilla", "clean_accuracy") is None


def test_vanilla_stands_first_and_is_not_compared_with_itself():
    runs = [run(m, 0, 0.9) for m in ("mixed", "vanilla_equal_cost", "advprop", "vanilla")]
    summary = summarise(runs)
    names = [entry["method"] for entry in summary]
    assert names == ["vanilla", "vanilla_equal_cost", "mixed", "advprop"]
    assert list(summary[0]["versus"]) == ["vanilla_equal_cost"]
    assert list(summary[1]["versus"]) == ["vanilla"]
    assert list(summary[3]["versus"]) == ["vanilla", "vanilla_equal_cost"]


def test_every_accuracy_is_summarised_and_compared():
    runs = [
        run("vanilla", s, 0.8, noise_accuracy=0.2 + s / 100, adversarial_accuracy=0.1)
        for s in (0, 1)
    ]
    runs += [
        run("advprop", s, 0.9, noise_accuracy=0.7 - s / 50, adversarial_accuracy=None)
        for s in (0, 1)
    ]
    entry = entry_of(summarise(runs), "advprop")
    versus = entry["versus"]["vanilla"]
    assert entry["noise_accuracy"]["mean"] == pytest.approx(0.69)
    assert "adversarial_accuracy" not in entry
    assert versus["noise_accuracy"]["difference"] == pytest.approx(0.69 - 0.205)
    assert "adversarial_accuracy" not in versus


def test_costs_are_means_and_products():
    runs = [
        run("advprop", s, 0.9, epochs=20, passes_per_image=5.0, train_seconds=40.0 + s)
        for s in (0, 1)
    ]
    entry = summarise(runs)[0]
    assert entry["total_passes"] == 100.0
    assert entry["train_seconds"] == 40.5
    assert passes_cell(entry) == Cell(value="100", interval="20 epochs of 5")
    assert "total_passes" not in summarise([run("advprop", 0, 0.9)])[0]


@pytest.mark.parametrize("value", [91.4, -0.1, float("nan"), "0.9", True])
def test_accuracy_that_is_no_fraction_is_refused(value):
    with pytest.raises(ValueError, match=r"clean_accuracy of advprop, seed 3 .* 0 to 1"):
        summarise([run("advprop", 3, value)])


def test_two_runs_of_one_seed_are_refused():
    with pytest.raises(ValueError, match="two runs of method advprop and seed 0"):
        summarise([run("advprop", 0, 0.9), run("advprop", 0, 0.8)])


def test_summary_is_strict_json():
    runs = [run(m, s, 0.9 + s / 100) for m in ("vanilla", "advprop") for s in (0, 1)]
    assert json.loads(json.dumps(summarise(runs), allow_nan=False)) == summarise(runs)
    assert summarise([]) == []


def test_cells_tell_value_interval_and_p_value():
    runs = [run("vanilla", s, 0.80 + s / 100, epochs=2, passes_per_image=1.0) for s in (0, 1, 2)]
    runs += [run("advprop", s, 0.90 + s / 50) for s in (0, 1, 2)]
    vanilla, advprop = summarise(runs)
    assert passes_cell(vanilla).text == "2 (2 epochs of 1)"
    # differences 0.10, 0.11 and 0.12: 11 -+ 4.30265 / sqrt(3) points, t = 19.05
    cell = difference_cell(difference_of(advprop, "vanilla", "clean_accuracy"))
    assert cell.text == "+11.0 (+8.5 to +13.5, p = 0.0027)"
    assert cell.significant


def test_cells_stay_within_what_is_possible():
    assert accuracy_cell({"mean": 0.99, "ci95": [0.93, 1.05], "n": 2}).interval == "93.0 to 100.0"
    wide = {"difference": 0.2, "ci95": [-1.6, 2.0], "p_holm": 0.6, "n": 3}
    assert difference_cell(wide).text == "+20.0 (-100.0 to +100.0, p = 0.6)"
    assert accuracy_cell(None).text == "-"
    assert difference_cell(None).text == "-"


@pytest.mark.parametrize(
    ("seeds", "reason"),
    [(1, "one seed"), (2, "two seeds"), (3, "seeds agree"), (7, "seeds agree")],
    ids=str,
)
def test_cells_say_why_there_is_no_interval(seeds, reason):
    accuracy = accuracy_cell({"mean": 0.5, "ci95": None, "n": seeds})
    assert accuracy.text == f"50.0 % ({reason})"
    difference = {"difference": 0.1, "ci95": None, "p_value": None, "p_holm": None, "n": seeds}
    assert difference_cell(difference).text == f"+10.0 ({reason})"


def rivals(gains, *, group=None, baseline="vanilla_equal_cost"):
    """A baseline, and methods whose gains in points over it are given by seed."""
    names = {baseline: (0.0,) * len(next(iter(gains.values()))), **gains}
    return [
        {
            **run(f"{method}, {group}" if group else method, seed, 0.8 + gain / 100),
            **({"kind": method, "group": group} if group else {}),
        }
        for method, own in names.items()
        for seed, gain in enumerate(own)
    ]


GAINS = {"advprop": (0.4, 1.0, 1.3, 0.5), "mixed": (-1.0, 0.5, 1.0, -0.2), "fast": (0, 1, -1, 0.1)}


def p_values(summary, method):
    versus = entry_of(summary, method)["versus"]["vanilla_equal_cost"]
    return versus["p_value"], versus["p_holm"]


def test_methods_against_one_baseline_are_corrected_together():
    plain, holms = p_values(summarise(rivals(GAINS)), "advprop")
    assert 0.02 < plain < 0.05 < holms == pytest.approx(3 * plain)
    alone = p_values(summarise(rivals({"advprop": GAINS["advprop"]})), "advprop")
    assert alone == (plain, plain)


def test_groups_accuracies_and_longer_vanilla_are_families_of_their_own():
    plain, _ = p_values(summarise(rivals(GAINS)), "advprop")
    apart = [
        row for name, gains in GAINS.items() for row in rivals({name: gains}, group=f"width {name}")
    ]
    assert p_values(summarise(apart), "advprop, width advprop") == (plain, plain)
    vanilla = [run("vanilla", seed, 0.79 + gain) for seed, gain in enumerate((0, 0.004, 0.002, 0))]
    summary = summarise([*rivals(GAINS), *vanilla])
    longer = entry_of(summary, "vanilla_equal_cost")["versus"]["vanilla"]
    assert longer["p_holm"] == longer["p_value"]
    assert p_values(summary, "advprop")[1] == pytest.approx(3 * plain)


def test_old_summaries_are_corrected_when_read():
    old = summarise(rivals(GAINS))
    for entry in old:
        for versus in entry["versus"].values():
            del versus["p_holm"]
    assert corrected(old) == summarise(rivals(GAINS))
    assert "p_holm" not in old[1]["versus"]["vanilla_equal_cost"]


def test_significant_is_what_holm_leaves():
    assert is_significant({"p_value": 0.001, "p_holm": 0.049})
    assert not is_significant({"p_value": 0.001, "p_holm": 0.05})
    assert not is_significant({"p_value": 0.001, "p_holm": None})
    assert not is_significant({"p_value": 0.001})


def test_seeds_that_are_missing_would_be_enough():
    found = paired_difference([0.80, 0.82, 0.81], [0.80, 0.80, 0.80])  # 1 point, deviation 1
    missing = seeds_missing(found)
    chance = np.random.default_rng(0)
    drawn = chance.normal(0.01, 0.01, size=(2000, 3 + missing))
    shown = np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05)
    assert 0.75 < shown < 0.87
    assert seeds_missing(found, rivals=4) > missing
    assert seeds_missing(paired_difference([0.8, 0.9, 0.7], [0.8, 0.8, 0.7999])) is None
    assert [seeds_missing(paired_difference([0.9] * n, [0.8] * n)) for n in (1, 2)] == [4, 3]


def test_small_numbers_are_printed_honestly():
    assert p_text(0.0004) == "p < 0.001"
    assert p_text(0.0123) == "p = 0.012"
    nothing = {"difference": -0.0001, "ci95": None, "p_holm": None, "n": 1}
    assert difference_cell(nothing).value == "+0.0"


def test_rows_are_held_against_the_baselines_of_their_group() -> None:
    runs = [
        {
            "method": f"{kind}, width {width}",
            "kind": kind,
            "group": f"width {width}",
            "seed": seed,
            "clean_accuracy": 0.8 + 0.05 * (kind == "advprop") + 0.001 * width + 0.01 * seed,
            "corruptions_accuracy": 0.5,
        }
        for width in (8, 16)
        for kind in ("advprop", "vanilla")
        for seed in (0, 1)
    ]
    summary = summarise(runs)
    labels = [entry["method"] for entry in summary]
    assert labels == [
        "vanilla, width 8",
        "advprop, width 8",
        "vanilla, width 16",
        "advprop, width 16",
    ]
    for entry in (summary[1], summary[3]):
        assert entry["versus"]["vanilla"]["difference"] == pytest.approx(0.05)
        assert entry["versus"]["vanilla"]["corruptions_accuracy"]["difference"] == 0
        assert entry["corruptions_accuracy"]["mean"] == 0.5
    assert summary[0]["versus"] == {}
    loose = summarise([{**run, "kind": None, "group": None} for run in runs])
    assert all(entry["versus"] == {} for entry in loose)
