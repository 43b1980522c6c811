"""What readers press, type and print in the report of a study with every suite, in Chromium."""

import pytest

pytestmark = pytest.mark.browser
TRACES = ".scatterlayer .trace path, .heatmaplayer image, .barlayer .point path"


def charts(page, section):
    """For each visible chart of a section: how many of its marks are drawn with a size."""
    return page.locator(f"section[aria-labelledby={section}] .chart:visible").evaluate_all(
        f"""charts => charts.map(chart => [...chart.querySelectorAll("{TRACES}")]
            .filter(mark => mark.getBoundingClientRect().width > 0).length)"""
    )


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def cards(page):
    return page.locator("#browse-cards .card").count()


def press(page, locator, key):
    locator.focus()
    page.keyboard.press(key)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (390, "light"), (1440, "light")])
def test_every_figure_of_the_suites_is_drawn_without_a_complaint(visit, study, width, scheme):
    page = visit(*study, width=width, scheme=scheme)
    counts = {"robustness": 2, "corruptions": 5, "classes": 4, "calibration": 2}
    for section, count in counts.items():
        found = charts(page, section)
        assert len(found) == count, section
        assert min(found) > 0, section
    assert overflow(page) <= 0
    assert page.complaints == []


def test_red_flags_stand_above_the_answer(visit, study):
    page = visit(*study, width=390)
    flags, answer = page.locator(".flags").bounding_box(), page.locator("h1").bounding_box()
    assert flags["y"] + flags["height"] <= answer["y"]
    assert answer["y"] < 900


def test_a_search_by_class_narrows_the_gallery(visit, study):
    page = visit(*study, width=1440)
    assert cards(page) == 24
    search = page.locator("#browse-form [name=class]")
    search.focus()
    page.keyboard.type("7")
    labels = page.locator("#browse-cards .label").all_inner_texts()
    assert labels == ["class 7", "class 7"]
    assert page.locator("#browse-count").inner_text() == "2 of 24 images"
    search.fill("nothing of the kind")
    assert cards(page) == 0
    search.fill("")
    assert cards(page) == 24


def test_only_this_method_errs_is_reached_by_keyboard(visit, study):
    page = visit(*study, width=390)
    page.locator("#browse-form [name=method]").select_option("vanilla")
    press(page, page.get_by_label("all", exact=True), "ArrowDown")
    assert page.locator("#browse-count").inner_text() == "3 of 24 images"
    page.keyboard.press("ArrowDown")
    assert page.get_by_label("where only it is wrong").is_checked()
    assert page.locator("#browse-count").inner_text() == "2 of 24 images"
    assert page.locator("#browse-cards .label").all_inner_texts() == ["class 4", "class 4"]
    assert page.locator("#browse-cards .wrong").count() == 2
    press(page, page.locator("#browse-cards summary").first, "Enter")
    page.until("""document.querySelector("#browse-cards details[open] li") !== null""")
    assert "AdvProp: 4 (" in page.locator("#browse-cards details[open]").inner_text()
    page.locator("#browse-form [name=method]").select_option("AdvProp")
    assert cards(page) == 0
    assert page.complaints == []


def test_methods_are_hidden_and_shown_by_keyboard(visit, study):
    page = visit(*study, width=1440)
    before = sum(charts(page, "robustness"))
    toggle = page.locator("section[aria-labelledby=robustness] [data-toggle=vanilla]")
    press(page, toggle, "Space")
    assert toggle.get_attribute("aria-pressed") == "false"
    page.until(
        """count => [...document.querySelectorAll(
            "section[aria-labelledby=robustness] .scatterlayer .trace path")]
            .filter(mark => mark.getBoundingClientRect().width > 0).length < count""",
        before,
    )
    assert page.locator("tr[data-method=vanilla]:visible").count() == 0
    assert len(charts(page, "corruptions")) == 4
    focused = page.evaluate("document.activeElement.dataset.toggle")
    assert focused == "vanilla"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press(page, page.locator("[data-show=none]").first, "Enter")
    assert charts(page, "robustness") == []
    press(page, page.locator("[data-show=all]").first, "Enter")
    page.until("document.querySelectorAll('[aria-pressed=false]').length === 0")
    assert len(charts(page, "corruptions")) == 5
    assert page.complaints == []


def test_differences_take_the_place_of_accuracies(visit, study):
    page = visit(*study, width=1440)
    press(page, page.get_by_label("Accuracy", exact=True), "ArrowRight")
    page.until("""document.querySelectorAll("#corruption-view-2 .main-svg").length > 0""")
    assert not page.locator("#corruption-view-1").is_visible()
    page.until("""![...document.querySelectorAll("#corruption-view-2 .chart")].some(
        chart => !chart.querySelector(".heatmaplayer image"))""")
    assert len(charts(page, "corruptions")) == 4


def test_the_table_of_classes_is_searched_and_sorted(visit, study):
    page = visit(*study, width=390)
    press(page, page.locator("#class-details > summary"), "Enter")
    rows = page.locator("#class-table tbody tr")
    assert rows.count() == 10
    press(page, page.get_by_role("button", name="Class", exact=True), "Enter")
    assert rows.locator("th").all_inner_texts() == list("0123456789")
    page.locator("#class-search").fill("3")
    assert rows.count() == 1
    assert overflow(page) <= 0


def test_everything_on_paper_lies_within_it(visit, study):
    page = visit(*study, width=1440, scheme="dark")
    page.set_viewport_size({"width": 690, "height": 1000})
    page.emulate_media(media="print", color_scheme="dark")
    for section in ("robustness", "corruptions", "classes", "calibration"):
        assert min(charts(page, section)) > 0
    assert overflow(page) <= 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 245, 242)"
    assert not page.locator("#browse-form").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_large_study_opens_and_answers(visit, large_study):
    page = visit(*large_study, width=390)
    assert overflow(page) <= 0
    page.locator("#browse-form [name=class]").fill("7")
    assert cards(page) == 12
    press(page, page.locator("[data-show=none]").first, "Enter")
    assert charts(page, "robustness") == []
    assert page.complaints == []
