import json
import re
from html.parser import HTMLParser

import pytest

from advprop.report import render_report
from advprop.report.facts import run_facts
from advprop.report.page.render import typeset

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Page(HTMLParser):
    """Elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self.scripts, self.stack = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.stack = [tag] if tag in ("script", "style") else []
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.stack = []

    def handle_data(self, data):
        if self.stack == ["script"]:
            self.scripts[-1] += data
        elif not self.stack:
            self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def page(results, details):
    return Page(render_report(results, details))


def test_report_is_one_file_below_six_megabytes(results, details):
    html = render_report(results, details)
    page = Page(html)
    assert len(html.encode()) < 6_000_000
    assert not [a for _, a in page.elements if a.get("src", "data:")[:5] != "data:"]
    assert not [a for a in page.all("link") if a["href"] != "data:,"]
    assert "default-src 'none'" in html


def test_a_large_study_stays_below_fifteen_megabytes(large_study):
    results, details = large_study
    assert len(details["records"]) == 60
    size = len(render_report(results, details).encode())
    assert 8_000_000 < size < 15_000_000


def test_answer_cost_and_doubt_come_first(page):
    start = page.text[:1200]
    assert "Train vanilla longer: 91.6 % accuracy on clean images instead of 89.4 %" in start
    assert "100 epochs of 1 pass per image" in start
    assert "Use adversarial training if this matters" in start
    assert "3 seeds per method" in start


def test_tables_hold_means_intervals_and_p_values(page, results):
    entry = next(e for e in results["summary"] if e["method"] == "advprop")
    versus = entry["versus"]["vanilla_equal_cost"]
    low, high = (100 * end for end in entry["clean_accuracy"]["ci95"])
    assert f"{low:.1f} to {high:.1f}" in page.text
    assert typeset(f"{100 * versus['difference']:+.1f}") in page.text
    assert f"p = {versus['p_holm']:.2g}" in page.text
    assert "20 epochs of 5" in page.text
    assert "Tested on: mnist5k test." in page.text


def test_tables_and_figures_are_semantic(page):
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) == 4
    assert len(page.all("h1")) == 1
    assert all(attrs["alt"] for attrs in page.all("img"))
    charts = [a for a in page.all("div") if a.get("class") == "chart"]
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)
    assert len(charts) == 3 + 6 + 5 + 2


def test_galleries_stand_in_the_order_of_the_table(results, details):
    details["records"].reverse()
    page = Page(render_report(results, details))
    words = page.text.rsplit("Adversarial examples", 1)[1]
    places = [
        words.index(f"{m} seed")
        for m in ("AdvProp", "vanilla", "adversarial training", "mixed training")
    ]
    assert places == sorted(places)


def test_command_versions_and_notes_are_told(results, details):
    details["notes"] = ["2 of 17 runs are missing."]
    results["runs"][0]["red_flags"] = [{"message": "adversarial above clean accuracy"}]
    text = Page(render_report(results, details)).text
    assert "advprop compare mnist5k --seeds 3 --jobs 2 --out runs/demo" in text
    assert "torch 2.14.1" in text
    assert "2 of 17 runs are missing." in text
    assert text.index("adversarial above clean accuracy. Affects vanilla, seed 0.") < text.index(
        "Use "
    )


def test_command_of_the_results_serves_where_details_have_none(results):
    text = Page(render_report({**results, "command": "advprop compare x"})).text
    assert "advprop compare x" in text


def test_hostile_names_stay_text(sample):
    results, details = sample(seeds=2, methods=("vanilla", "advprop"))
    hostile = json.loads(json.dumps([results, details]).replace("advprop", json.dumps(EVIL)[1:-1]))
    results, details = hostile
    results["recipe"] = EVIL
    details["notes"] = [EVIL]
    for item in details["records"][1]["gallery"]:
        item.update(label=EVIL, clean_prediction=EVIL, adversarial_prediction=EVIL)
    for row in details["records"][1]["statistics"]:
        row["layer"] += EVIL
    page = Page(render_report(results, details))
    charts = [a for a in page.all("div") if a.get("class") == "chart"]
    assert len(page.all("script")) == len(charts) + 2
    assert not any("alert(" in script for script in page.scripts[len(charts) :][1:])
    assert not any("onerror" in attrs for _, attrs in page.elements)
    assert EVIL in page.text
    figures = [json.loads(script) for script in page.scripts[: len(charts)]]
    assert any("&lt;script&gt;" in json.dumps(figure) for figure in figures)
    assert not any("<" in script for script in page.scripts[: len(charts)])


@pytest.mark.parametrize(
    ("missing", "anchors"),
    [("curves", {"curves"}), ("records", {"gallery", "statistics"}), ("gallery", {"gallery"})],
)
def test_sections_with_nothing_to_show_are_left_out(results, details, missing, anchors):
    for record in details["records"]:
        record.update({} if missing != "gallery" else {"gallery": []})
    whole = Page(render_report(results, details))
    details.pop(missing, None)
    page = Page(render_report(results, details))
    for shown in (whole, page):
        linked = {attrs["href"] for attrs in shown.all("a")}
        assert linked == {f"#{attrs['id']}" for attrs in shown.all("h2")} - {"#notes", "#flags"}
    left = {attrs["id"] for attrs in page.all("h2")}
    assert not anchors & left
    assert {"results", "cost", "runs", "made"} <= left


def test_a_command_that_is_unknown_is_said_to_be(results, details):
    del details["command"]
    assert "The command was not recorded" in Page(render_report(results, details)).text


def test_images_model_and_attacks_are_told(results, details):
    found = {
        "name": "photos",
        "num_classes": 3,
        "first_classes": ["ant", "bee"],
        "images": {"train": 1200, "validation": 60},
        "sources": {"train": "train/"},
        "fewest_images": 4,
        "most_images": 700,
        "passed_over": {".heic files": 12},
    }
    results["runs"] = [{**run, "data_found": found} for run in results["runs"]]
    attack = {"threat_model": {"kind": "linf", "epsilon": 4 / 255}, "num_steps": 1}
    config = {
        "model": {"name": "efficientnet_b0", "pretrained": True},
        "method": {"attack": attack},
        "evaluation": {"attack": {**attack, "num_steps": 10}, "noise_standard_deviation": 0.1},
    }
    details["configs"] = [{"method": "advprop", "seed": 0, "config": config}] * 2
    text = Page(render_report(results, details)).text
    for told in (
        "Images photos: 1,200 training (train/), 60 validation",
        "Classes 3 (ant, bee, ...), 4 to 700 training images each",
        "Skipped 12 .heic files",
        "Model efficientnet_b0, from pretrained weights",
        "Attack in training Linf, epsilon 0.01569 for pixel values in [0, 1], 1 step ",
        "Attack in tests Linf, epsilon 0.01569 for pixel values in [0, 1], 10 steps",
        "Noise in tests Gaussian, standard deviation 0.1",
    ):
        assert told in text


def test_single_run_claims_no_comparison(sample):
    results, details = sample(seeds=1, methods=("vanilla",))
    text = Page(render_report(results, details)).text
    assert "so there is nothing to compare it with" in text
    assert "No differences to show: this needs a run of vanilla" in text
    assert "Differences between the branches" not in text


def test_one_seed_shows_differences_without_p_values(sample):
    results, details = sample(seeds=1)
    text = Page(render_report(results, details)).text
    assert "Too few seeds to tell: 4 more would be needed" in text
    assert not re.search(r"p [=<] 0\.\d", text)


def test_nothing_finished_yet_is_still_a_page():
    text = Page(render_report({"recipe": "mnist5k", "runs": [], "summary": []})).text
    assert "No run has been tested yet" in text
    assert "Training curves" not in text


def test_settings_of_the_engine_are_told_where_they_differ_from_the_defaults():
    old = {"optimizer": "sgd", "batch_size": 4, "mixed_precision": "no", "compile": False}
    new = {**old, "mixed_precision": "bf16", "deterministic": True, "compile": "max-autotune"}
    facts = [
        dict(run_facts([], [{"method": "vanilla", "config": {"training": training}}]))
        for training in (old, new)
    ]
    assert [found.get("Computation") for found in facts] == [
        None,
        "bf16, compiled (max-autotune), deterministic",
    ]


def test_summary_is_made_from_runs_where_it_is_missing(results, details):
    whole = render_report(results, details)
    assert render_report({k: v for k, v in results.items() if k != "summary"}, details) == whole


def test_minus_signs_only_before_numbers_and_no_break_between_number_and_unit():
    assert typeset("-1.0 to +2.0 (-3) co-op x-5") == (
        "\N{MINUS SIGN}1.0 to +2.0 (\N{MINUS SIGN}3) co-op x-5"
    )
    assert typeset("72.7 % (p < 0.001), p = 0.04: 3 points of 5 seeds") == (
        "72.7_% (p_<_0.001), p_=_0.04: 3_points of 5 seeds".replace("_", "\N{NO-BREAK SPACE}")
    )
