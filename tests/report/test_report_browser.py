"""The report in a real browser: Debian's Chromium, driven by playwright."""

import json

import pytest

pytestmark = pytest.mark.browser
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
WIDTHS = (390, 1440)
FILLED = """[...document.querySelectorAll(".chart")].every(chart => Math.abs(chart.clientWidth
    - chart.querySelector(".main-svg")?.getBoundingClientRect().width) <= 1)"""


def drawn(page):
    """For each chart: how many of its traces are on the page with a size."""
    return page.eval_on_selector_all(
        ".chart",
        """charts => charts.map(chart =>
            [...chart.querySelectorAll(".scatterlayer .trace path")]
                .filter(path => path.getBoundingClientRect().width > 0).length)""",
    )


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
def test_every_figure_is_drawn_without_a_complaint(visit, results, details, width, scheme):
    page = visit(results, details, width=width, scheme=scheme)
    assert len(drawn(page)) == 16
    assert min(drawn(page)) > 0
    assert overflow(page) <= 0
    assert page.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
def test_charts_fill_their_places_and_stay_inside(visit, results, details, width):
    page = visit(results, details, width=width)
    page.until(FILLED)
    page.set_viewport_size({"width": 700, "height": 900})
    page.until(f"innerWidth === 700 && {FILLED}")
    assert overflow(page) <= 0


def test_every_axis_text_lies_inside_its_chart(visit, results, details):
    page = visit(results, details, width=390)
    outside = page.eval_on_selector_all(
        ".chart",
        """charts => charts.flatMap(chart => {
            const place = chart.getBoundingClientRect();
            return [...chart.querySelectorAll("text")].filter(text => {
                const box = text.getBoundingClientRect();
                return box.width > 0 && (box.left < place.left - 1 || box.right > place.right + 1);
            }).map(text => text.textContent);
        })""",
    )
    assert outside == []


def test_figures_follow_the_theme_while_open(visit, results, details):
    page = visit(results, details, width=1440, scheme="light")

    def wait_for_ink(color):
        page.until(
            """color => {
                const text = document.querySelector(".chart .xtick text");
                return text && getComputedStyle(text).fill === color;
            }""",
            color,
        )

    wait_for_ink("rgb(86, 90, 102)")
    page.emulate_media(color_scheme="dark")
    wait_for_ink("rgb(169, 174, 187)")
    # paper is light in a dark room too
    page.emulate_media(media="print", color_scheme="dark")
    wait_for_ink("rgb(86, 90, 102)")


def test_print_holds_every_figure_within_the_paper(visit, results, details):
    page = visit(results, details, width=1440)
    page.set_viewport_size({"width": 690, "height": 1000})
    page.emulate_media(media="print")
    assert min(drawn(page)) > 0
    assert overflow(page) <= 0
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_hostile_and_long_names_are_only_text(visit, sample):
    results, details = sample(seeds=2, methods=("vanilla", "vanilla_equal_cost", "advprop"))
    text = json.dumps([results, details]).replace("advprop", json.dumps(EVIL)[1:-1])
    results, details = json.loads(text)
    for item in details["records"][-1]["gallery"]:
        item.update(label=EVIL, clean_prediction="Weimaraner" * 8, adversarial_prediction=EVIL)
    details["records"][-1]["statistics"] = [
        {"layer": f"model.stages.{i}.blocks.12.{EVIL}", "mean_distance": 0.1, "bias_distance": 0.2}
        for i in range(60)
    ]
    page = visit(results, details, width=390)
    page.locator(".chart").first.hover()
    assert page.complaints == []
    assert page.locator("img[onerror]").count() == 0
    assert page.locator("script:not([type])").count() == 2
    assert EVIL in page.locator("tbody").first.inner_text()
    assert overflow(page) <= 0


@pytest.mark.parametrize("methods", [(), ("vanilla",), ("advprop",)])
def test_incomplete_reports_are_whole_pages(visit, sample, methods):
    results, details = sample(seeds=1, methods=methods)
    page = visit(results, details, width=390)
    assert page.complaints == []
    assert overflow(page) <= 0
    assert page.locator("h1").inner_text()
    assert all(count > 0 for count in drawn(page))


def test_narrow_tables_stay_tables_for_assistive_technology(visit, results, details):
    page = visit(results, details, width=390)
    table = page.get_by_role("table").first
    assert table.get_by_role("rowheader").count() == 5
    assert table.get_by_role("cell").count() == 5 * 5
