"""Table, sentences, figures and command line say the same of one difference."""

import re

import pytest

from advprop.cli.tables import print_results
from advprop.report import render_report
from advprop.report.page.render import typeset
from advprop.results.summary import summarise

# against vanilla at equal cost, in points by seed
GAINS = {
    "clear": {
        "advprop": (1.0, 1.1, 0.9, 1.2),
        "mixed": (0, 1, -1, 0.1),
        "adversarial": (0, 0, 1, 0),
    },
    # p = 0.03 alone, 0.1 among three methods
    "by Holm no more": {
        "advprop": (0.4, 1.0, 1.3, 0.5),
        "mixed": (-1.0, 0.5, 1.0, -0.2),
        "adversarial": (0, 1, -1, 0.1),
    },
    "two seeds": {"advprop": (0.4, 1.0), "mixed": (0.3, 0.1), "adversarial": (0.1, 0.2)},
}


def comparison(gains):
    own = gains["advprop"]  # stands last on the terminal
    every = {"vanilla_equal_cost": (0,) * len(own), **dict(sorted(gains.items())[1:]), **gains}
    every["advprop"] = every.pop("advprop")
    runs = [
        {
            "method": method,
            "seed": seed,
            "epochs": 20,
            "passes_per_image": 5.0,
            "train_seconds": 9.0,
            "clean_accuracy": 0.9 + 0.001 * seed + gain / 100,
        }
        for method, own in every.items()
        for seed, gain in enumerate(own)
    ]
    return {"recipe": "mnist5k", "runs": runs, "summary": summarise(runs)}


@pytest.mark.parametrize(
    ("name", "p_value", "significant"),
    [
        ("clear", "p = 0.0015", True),
        ("by Holm no more", "p = 0.098", False),
        ("two seeds", "", False),
    ],
)
def test_every_place_tells_the_same(name, p_value, significant, capsys):
    results = comparison(GAINS[name])
    html = render_report(results)
    page = " ".join(re.sub(r"<(script|style)>.*?</\1>|<[^>]+>", " ", html, flags=re.DOTALL).split())
    headline, card, table = re.search(r"<h1>(.*?)</h1>", html)[1], *_parts(html)
    print_results(results)
    printed = " ".join(capsys.readouterr().out.split())
    assert typeset(headline) in typeset(printed)
    assert headline.startswith("Use AdvProp") == significant
    assert ('class="significant"' in table) == significant
    assert ("not significant" in card) == (not significant and p_value != "")
    found = set(re.findall(r"p = [0-9.]+[0-9]", headline + card + table))
    assert found == ({p_value} if p_value else set())
    row = re.search(r"advprop .*? (?:Use|Too|Train)", printed)[0]
    assert set(re.findall(r"p = [0-9.]+[0-9]", row)) == found
    assert ("Too few seeds to tell" in page) == (not significant)


def _parts(html):
    """The sentences on clean images, and the row of AdvProp in the table of differences."""
    card = re.search(r"<dt>Clean images</dt><dd>(.*?)</dd>", html)[1]
    table = html.split("Difference from <strong>")[1].split("</table>")[0]
    return card, table.split('data-method="AdvProp"')[1].split("</tr>")[0]
