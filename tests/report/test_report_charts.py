import json
import re

import plotly.graph_objects as go
import pytest

from advprop.report.figures.charts import cost_panels, difference_panels, plot_text
from advprop.report.figures.curves import MOST_POINTS, branch_names, curve_panels, statistics_panels
from advprop.report.page.styles import KNOWN, method_styles
from advprop.report.records import read_records
from advprop.results.summary import summarise


@pytest.fixture
def styles(results):
    return method_styles([entry["method"] for entry in results["summary"]])


@pytest.fixture
def panels(results, details, styles):
    summary, runs = results["summary"], results["runs"]
    return [
        *cost_panels(summary, runs, styles, "total_passes"),
        *cost_panels(summary, runs, styles, "train_seconds"),
        *difference_panels(summary, styles, "vanilla_equal_cost"),
        *curve_panels(details["curves"], styles),
        *statistics_panels(read_records(details["records"]), styles),
    ]


def test_plotly_knows_every_setting(panels):
    assert len(panels) == 3 + 3 + 3 + 5 + 2
    for panel in panels:
        text = re.sub(r"var\(--[a-z0-9-]+\)", "#123456", json.dumps(panel.figure, allow_nan=False))
        assert len(go.Figure(json.loads(text)).data) > 0


def test_every_panel_is_described_in_words(panels):
    assert all(len(panel.label) > 40 for panel in panels)
    assert "advprop 91." in panels[0].label


def test_marks_stand_at_the_means_of_the_summary(results, styles):
    panel = cost_panels(results["summary"], results["runs"], styles, "train_seconds")[0]
    means = [trace for trace in panel.figure["data"] if "error_y" in trace]
    for trace, entry in zip(means, results["summary"], strict=True):
        low, high = entry["clean_accuracy"]["ci95"]
        middle = trace["y"][0]
        assert middle == pytest.approx(100 * entry["clean_accuracy"]["mean"])
        assert middle - trace["error_y"]["arrayminus"][0] == pytest.approx(100 * low)
        assert middle + trace["error_y"]["array"][0] == pytest.approx(100 * high)
        assert trace["marker"]["color"] == styles[entry["method"]].color


def test_equal_costs_do_not_hide_each_other(results, styles):
    panel = cost_panels(results["summary"], results["runs"], styles, "total_passes")[0]
    places = {trace["x"][0] for trace in panel.figure["data"] if "error_y" in trace}
    assert len(places) == len(results["summary"])


def test_many_equal_costs_stay_near_their_cost(results, styles):
    entry = results["summary"][-1]
    many = [{**entry, "method": f"width {i}"} for i in range(40)]
    panel = cost_panels(many, [], method_styles([e["method"] for e in many]), "total_passes")[0]
    places = {trace["x"][0] for trace in panel.figure["data"] if "error_y" in trace}
    assert len(places) == 40
    assert (
        max(abs(place - entry["total_passes"]) for place in places) < 0.06 * entry["total_passes"]
    )


def test_differences_show_zero_and_leave_out_baselines(results, styles):
    for panel in difference_panels(results["summary"], styles, "vanilla"):
        low, high = panel.figure["layout"]["xaxis"]["range"]
        assert low < 0 < high
        assert [t["y"][0] for t in panel.figure["data"]] == ["adversarial", "mixed", "advprop"]


def spread_out(seeds):
    """Runs whose seeds differ so much that intervals reach far beyond what is possible."""
    return summarise(
        [
            {"method": method, "seed": seed, "clean_accuracy": value, "total_passes": 20}
            for method, own in {"vanilla": (0.1, 0.9, 0.4), "advprop": (0.9, 0.2, 0.8)}.items()
            for seed, value in enumerate(own[:seeds])
        ]
    )


@pytest.mark.parametrize("seeds", [1, 2, 3], ids="seeds {}".format)
def test_axes_stay_within_what_is_possible(seeds):
    summary = spread_out(seeds)
    styles = method_styles(["vanilla", "advprop"])
    (cost,) = cost_panels(summary, [], styles, "total_passes")
    low, high = cost.figure["layout"]["yaxis"]["range"]
    assert -2 <= low < high <= 102
    (difference,) = difference_panels(summary, styles, "vanilla")
    low, high = difference.figure["layout"]["xaxis"]["range"]
    found = 100 * summary[1]["versus"]["vanilla"]["difference"]
    assert low < min(0, found) <= max(0, found) < high
    assert high - low < 250
    (trace,) = difference.figure["data"]
    assert trace["error_x"].get("visible", True) == (seeds == 3)


def test_wide_intervals_do_not_hide_small_differences():
    gains = {"vanilla": (0, 0, 0), "advprop": (0.02, -0.01, 0.005)}
    runs = [
        {"method": method, "seed": seed, "clean_accuracy": 0.9 + gain}
        for method, own in gains.items()
        for seed, gain in enumerate(own)
    ]
    (panel,) = difference_panels(summarise(runs), method_styles(["vanilla", "advprop"]), "vanilla")
    low, high = panel.figure["layout"]["xaxis"]["range"]
    assert -6 < low < 0 < high < 6


def test_curves_have_a_line_for_each_branch_and_validation(sample):
    _, details = sample(seeds=1, methods=("advprop",))
    styles = method_styles(["advprop"])
    (panel,) = curve_panels(details["curves"], styles)
    traces = panel.figure["data"]
    assert len(traces) == 5
    assert len({trace["line"].get("dash") for trace in traces if trace["yaxis"] == "y"}) == 3
    assert branch_names(details["curves"]) == ["clean", "adversarial"]
    assert traces[0]["x"][-1] == 100.0


def test_curves_skip_what_was_not_measured():
    points = [
        {
            "epoch": 1.0,
            "passes": 1.0,
            "train": {"clean": {"loss": float("nan"), "accuracy": 0.5}},
            "validation_accuracy": None,
        },
        {"epoch": 2.0, "passes": 2.0, "train": {}},
    ]
    curve = {"method": "vanilla", "seed": 0, "points": points}
    (panel,) = curve_panels([curve], method_styles(["vanilla"]))
    assert [(t["x"], t["y"]) for t in panel.figure["data"]] == [([1.0], [50.0])]
    json.dumps(panel.figure, allow_nan=False)
    assert curve_panels([{**curve, "points": []}], {}) == []


def test_long_curves_are_thinned():
    points = [{"epoch": float(i), "validation_accuracy": 0.5} for i in range(10 * MOST_POINTS + 7)]
    (panel,) = curve_panels(
        [{"method": "vanilla", "seed": 0, "points": points}], method_styles(["vanilla"])
    )
    assert MOST_POINTS / 2 < len(panel.figure["data"][0]["x"]) <= MOST_POINTS


def test_statistics_keep_the_order_of_layers_and_mark_no_difference(details, styles):
    means, variances = statistics_panels(read_records(details["records"]), styles)
    rows = details["records"][-1]["statistics"]
    order = means.figure["layout"]["xaxis"]["categoryarray"]
    assert order == [row["layer"] for row in rows]
    assert len(means.figure["data"]) == 3
    assert means.figure["layout"]["shapes"][0]["y0"] == 0
    assert variances.figure["layout"]["shapes"][0]["y0"] == 1
    assert f"Highest in {order[-1]}" in means.label
    many = [{"layer": f"layer {i}", "mean_distance": 0.1 * i} for i in range(49)]
    record, empty = read_records(
        [{"method": "advprop", "statistics": many}, {"method": "vanilla", "statistics": []}]
    )
    assert statistics_panels([record], styles)[0].height == means.height < 250
    assert statistics_panels([empty], styles) == []


def test_styles_differ_and_do_not_depend_on_company():
    names = [*KNOWN, "another", "third"]
    styles = method_styles(names)
    assert len({style.symbol for style in styles.values()}) == len(names)  # colours: eight
    common = ("vanilla", "vanilla_equal_cost", "adversarial", "mixed", "advprop", "fast")
    common += ("advprop_lean",)
    assert len({styles[name].color for name in common}) == len(common)
    assert method_styles(["advprop"])["advprop"] == styles["advprop"]


def test_looks_repeat_late_and_tell_method_and_group_apart():
    styles = method_styles([f"method {i}" for i in range(56)])
    assert len({(style.color, style.symbol) for style in styles.values()}) == 56
    entries = [
        {"method": f"{kind}, width {width}", "kind": kind, "group": f"width {width}"}
        for kind in ("vanilla", "advprop")
        for width in (8, 16)
    ]
    grouped = method_styles([entry["method"] for entry in entries], entries)
    assert grouped["advprop, width 8"].color == grouped["advprop, width 16"].color
    assert grouped["advprop, width 8"].symbol == grouped["vanilla, width 8"].symbol
    assert len({(s.color, s.symbol) for s in grouped.values()}) == 4


def test_plot_text_keeps_markup_as_text():
    assert plot_text("<b>&%{x}") == "&lt;b&gt;&amp;%&#123;x}"
