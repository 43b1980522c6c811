"""The figures of the suites: what they show, and that plotly knows their settings."""

import itertools
import json
import re

import plotly.graph_objects as go
import pytest

from advprop.report.answer.estimates import estimate, paired, references, wilson
from advprop.report.figures.calibration import calibration_panels, pooled
from advprop.report.figures.corruptions import (
    corruption_panels,
    corruption_rows,
    difference_panels,
    difference_reach,
)
from advprop.report.figures.lines import (
    MOST_TICKS,
    epsilon_scale,
    robustness_panels,
    strengths,
)
from advprop.report.findings import Calibration, read_findings
from advprop.report.images.classes import (
    class_changes,
    class_panels,
    class_table,
    confusion_table,
)
from advprop.report.page.styles import method_styles

HELD = {"vanilla": "vanilla_equal_cost", "advprop": "vanilla_equal_cost"}


@pytest.fixture
def found(findings):
    methods = ("vanilla", "vanilla_equal_cost", "advprop")
    return read_findings([findings(m, seed) for m in methods for seed in (0, 1)])


@pytest.fixture
def styles(found):
    return method_styles(list(found))


def test_plotly_knows_every_setting(found, styles):
    panels = [
        *robustness_panels(found, styles),
        *corruption_panels(found),
        *difference_panels(found, HELD),
        *class_panels(found, HELD),
        *calibration_panels(found, styles),
    ]
    assert len(panels) == 2 + 3 + 2 + 2 + 2
    for panel in panels:
        text = re.sub(r"var\(--[a-z0-9-]+\)", "#123456", json.dumps(panel.figure, allow_nan=False))
        assert len(go.Figure(json.loads(text)).data) > 0
        assert len(panel.label) > 40


def test_curves_hold_means_and_intervals_over_seeds(found, styles):
    linf, l2 = robustness_panels(found, styles)
    assert (linf.title, l2.title) == ("Linf attacks", "L2 attacks")
    band, line = (t for t in linf.figure["data"] if t["meta"] == "advprop")
    values = [
        [p.accuracy for p in run.suites.adversarial.curve if p.threat_model == "Linf"]
        for run in found["advprop"]
    ]
    means = [50 * (a + b) for a, b in zip(*values, strict=True)]
    assert line["y"] == pytest.approx(means)
    upper, lower = band["y"][:7], band["y"][7:][::-1]
    assert all(low <= y <= high for low, y, high in zip(lower, line["y"], upper, strict=True))
    assert strengths(found) == ["20 steps, 2 restarts"]


def test_epsilons_that_span_much_stand_on_a_logarithmic_axis_with_zero_before_them():
    epsilons = [0.0, *(2**k / 255 for k in range(6))]
    place, axis = epsilon_scale(epsilons, "Linf")
    places = [place(e) for e in epsilons]
    assert [b - a for a, b in itertools.pairwise(places)] == pytest.approx([1.0] * 6)
    assert axis["ticktext"] == ["0", "1", "2", "4", "8", "16", "32"]
    assert "1/255, logarithmic" in axis["title"]["text"]


def test_epsilons_that_span_little_stand_on_a_linear_axis():
    place, axis = epsilon_scale([0.0, 0.05, 0.1, 0.2], "L2")
    assert place(0.1) == 0.1
    assert axis["ticktext"] == ["0", "0.05", "0.1", "0.2"]
    _, crowded = epsilon_scale([k / 100 for k in range(40)], "L2")
    assert len(crowded["ticktext"]) <= MOST_TICKS + 1
    assert crowded["ticktext"][-1] == "0.39"


@pytest.mark.parametrize("epsilons", [[0.0], [0.1], [0.0, 0.1], [0.1, 0.1]])
def test_few_epsilons_make_an_axis_too(epsilons):
    _, axis = epsilon_scale(epsilons, "Linf")
    assert axis["range"][0] < axis["range"][1]


def test_one_seed_has_the_interval_of_its_images():
    assert estimate([0.9], num_images=100).ends == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert wilson(0.0, 50)[0] == pytest.approx(0.0, abs=1e-12)
    assert estimate([0.9]).ends is None
    low, high = estimate([0.9, 0.91, 0.92], num_images=100).ends
    assert (low + high) / 2 == pytest.approx(0.91)


def test_differences_are_paired_by_seed_and_else_of_means():
    ours = [("0", 0.9), ("1", 0.8), ("2", 0.7)]
    change = paired(ours, [("2", 0.4), ("1", 0.7), ("0", 0.6)])
    assert change.mean == pytest.approx(0.7 / 3)
    assert change.ends is not None
    apart = paired([("0", 0.9)], [("1", 0.7), ("2", 0.8)])
    assert (apart.mean, apart.ends) == (pytest.approx(0.15), None)
    assert paired([], [("0", 0.5)]) is None


def test_methods_are_held_against_the_sternest_baseline_of_their_group(found):
    assert references(found, []) == HELD
    two = dict.fromkeys(("a", "b", "v"), found["advprop"])
    summary = [
        {"method": "a", "group": "one"},
        {"method": "b", "group": "two"},
        {"method": "v", "kind": "vanilla", "group": "two"},
    ]
    assert references(two, summary) == {"b": "v"}
    assert references({"a": [], "b": []}, []) == {"b": "a"}


def test_heat_maps_share_a_scale_and_keep_the_order_of_the_benchmark(found):
    panels = corruption_panels(found)
    assert {(p.figure["data"][0]["zmin"], p.figure["data"][0]["zmax"]) for p in panels} == {
        (0, 100)
    }
    trace = panels[0].figure["data"][0]
    assert trace["y"] == [
        *("gaussian noise", "glass blur", "fog", "jpeg compression", "speckle noise")
    ]
    seeds = found["vanilla"]
    first = [run.suites.corruptions.by_corruption["fog"].accuracy[0] for run in seeds]
    assert trace["z"][2][0] == pytest.approx(50 * sum(first), abs=0.06)
    changes = difference_panels(found, HELD)
    low, high = changes[0].figure["data"][0]["zmin"], changes[0].figure["data"][0]["zmax"]
    assert low == -high
    assert {p.figure["data"][0]["zmax"] for p in changes} == {high}
    assert difference_reach({"a": {"fog": [-12.0, None]}}) == 15.0


def test_corruption_table_says_how_images_were_made(found):
    ((method, _, mce, made), *_) = corruption_rows(found)
    assert (method, mce) == ("vanilla", "-")
    assert made == "on the fly, imagecorruptions-imaug 1.1.5"


def test_classes_are_sorted_by_change_and_the_middle_is_left_to_the_table(findings):
    classes = [f"class {i}" for i in range(50)]
    found = read_findings(
        [findings(m, seed, classes) for m in ("vanilla", "advprop") for seed in (0, 1)]
    )
    changes = class_changes(found["advprop"], found["vanilla"])
    means = [change.mean for change in changes.values()]
    assert means == sorted(means, reverse=True)
    (panel,) = class_panels(found, {"advprop": "vanilla"})
    trace = panel.figure["data"][0]
    assert len(trace["x"]) == 20
    assert trace["x"] == sorted(trace["x"], reverse=True)
    table = class_table(found, {"advprop": "vanilla"})
    assert (len(table["classes"]), [c["versus"] for c in table["columns"]]) == (
        50,
        [None, "vanilla"],
    )


def test_confusions_are_means_over_seeds_the_most_frequent_first():
    def run(method, seed, *pairs):
        confusion = [{"class": c, "predicted": p, "count": n} for c, p, n in pairs]
        return {
            "method": method,
            "seed": seed,
            "suites": {"clean": {"confusion": confusion}},
        }

    found = read_findings(
        [
            run("vanilla", 0, ("cat", "dog", 4), ("dog", "cat", 1)),
            run("vanilla", 1, ("dog", "cat", 7)),
            run("advprop", 0, ("cat", "dog", 3)),
        ]
    )
    assert confusion_table(found) == {
        "methods": ["vanilla", "advprop"],
        "rows": [("cat", "dog", ["2.0", "3.0"]), ("dog", "cat", ["4.0", "0.0"])],
    }
    assert confusion_table(read_findings([run("vanilla", 0)])) is None


def test_long_class_names_stay_apart(findings):
    names = ["a very long name of a class, one", "a very long name of a class, two"]
    found = read_findings([findings(m, 0, names) for m in ("vanilla", "advprop")])
    (panel,) = class_panels(found, {"advprop": "vanilla"})
    layout = panel.figure["layout"]
    assert panel.figure["data"][0]["y"] == [0, 1]
    assert all(len(text) <= 22 for text in layout["yaxis"]["ticktext"])


def test_bins_of_seeds_are_pooled_by_their_images():
    def part(accuracy, count):
        bins = [
            {"low": 0.8, "high": 0.9, "confidence": 0.85, "accuracy": accuracy, "num_images": count}
        ]
        return Calibration.model_validate({"ece": 0.1, "bins": bins})

    (found,) = pooled([part(0.6, 30), part(0.9, 10)])
    assert (found.accuracy, found.num_images) == (pytest.approx(0.675), 40)


def test_what_was_not_tested_is_no_figure(styles):
    found = read_findings([{"method": "vanilla", "seed": 0}, {"method": "advprop"}])
    assert robustness_panels(found, styles) == []
    assert corruption_panels(found) == []
    assert calibration_panels(found, styles) == []
    assert class_table(found, {}) is None


@pytest.mark.parametrize(
    ("suites", "place"),
    [
        ({"clean": {"per_class": [{"class": "a", "accuracy": 1.2}]}}, "per_class.0.accuracy"),
        ({"adversarial": {"curve": "no"}}, "adversarial.curve"),
        ({"corruptions": []}, "corruptions"),
        ([], "suites"),
    ],
)
def test_values_of_the_wrong_kind_are_named(suites, place):
    with pytest.raises(ValueError, match=re.escape(place)):
        read_findings([{"method": "vanilla", "suites": suites}])
