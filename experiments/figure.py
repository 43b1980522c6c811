"""The figure of docs/measured.md: accuracy in equal measured time, from `results/budgets-*.json`.

python experiments/figure.py > docs/accuracy_in_equal_time.svg
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from advprop.files.json_files import read_json
from advprop.results.significance import mean_interval

RESULTS = Path(__file__).parent / "results"
TITLES = {
    "mnist5k": "500 digits, from scratch",
    "emoji": "1,000 drawings, from scratch",
    "Lite0": "1,000 drawings, ImageNet weights",
}
BUDGETS = (1.0, 1.25, 1.5)
NAMESPACE = "http://www.w3.org/2000/svg"
ROW, TOP, LEFT, PANEL, GAP = 26, 64, 170, 250, 24
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f } .small { font-size: 11px }
.title { font-weight: 600 } .grid { stroke: #d0d7de } .vanilla { stroke: #57606a;
stroke-dasharray: 3 3 } .b0 { fill: #ffffff } .b1 { fill: #9ec5fe } .b2 { fill: #0969da }
circle, .bar { stroke: #0969da; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .grid { stroke: #30363d }
.vanilla { stroke: #8b949e } .b0 { fill: #0d1117 } .b1 { fill: #1f4b8e } .b2 { fill: #58a6ff }
circle, .bar { stroke: #58a6ff } }
"""

Rows = Sequence[dict[str, Any]]


def panels(paths: Sequence[Path]) -> dict[str, dict[float, Rows]]:
    """Rows by image set and by budget, in times of vanilla."""
    found: dict[str, dict[float, list[dict[str, Any]]]] = {}
    for path in paths:
        for row in read_json(path)["runs"]:
            images, budget = row["group"].split(", ")
            own = found.setdefault(images, {}).setdefault(float(budget.split()[0]), [])
            own.append(row)
    return {name: dict(sorted(found[name].items())) for name in TITLES if name in found}


def methods_in(found: dict[str, dict[float, Rows]]) -> list[str]:
    """All methods, those with most budgets first."""
    budgets: dict[str, int] = {}
    for panel in found.values():
        for rows in panel.values():
            for label in dict.fromkeys(row["label"] for row in rows):
                budgets[label] = budgets.get(label, 0) + 1
    return sorted(budgets, key=lambda label: -budgets[label])


def tag(name: str, text: str = "", **attributes: object) -> str:
    """An element of SVG; `of` stands for the attribute class, numbers are rounded."""
    given = {
        "class" if key == "of" else key.replace("_", "-"): attributes[key] for key in attributes
    }
    shown = (f"{value:.1f}" if isinstance(value, float) else value for value in given.values())
    listed = " ".join(f'{key}="{value}"' for key, value in zip(given, shown, strict=True))
    return f"<{name} {listed}>{text}</{name}>"


def line(of: str, first: tuple[float, float], last: tuple[float, float]) -> str:
    return tag("line", of=of, x1=first[0], y1=first[1], x2=last[0], y2=last[1])


def panel_marks(panel: dict[float, Rows], methods: Sequence[str], left: float) -> Iterator[str]:
    """Axis, vanilla's line, and a mark for each method and budget."""
    found = {
        (budget, label): mean_interval(
            [100 * row["clean_accuracy"] for row in rows if row["label"] == label]
        )
        for budget, rows in panel.items()
        for label in methods
        if any(row["label"] == label for row in rows)
    }
    ends = [end for mean, interval in found.values() for end in (mean, *(interval or ()))]
    low, high = min(ends), max(ends)
    top, bottom = float(TOP - 8), float(TOP + ROW * len(methods))

    def place(value: float) -> float:
        return left + 10 + (PANEL - 20) * (value - low) / (high - low)

    for tick in ticks(low, high):
        yield line("grid", (place(tick), top), (place(tick), bottom))
        at = {"x": place(tick), "y": bottom + 16, "text_anchor": "middle"}
        yield tag("text", f"{tick:g} %", of="small", **at)
    reference = place(found[max(panel), "vanilla"][0])
    yield line("vanilla", (reference, top), (reference, bottom))
    for (budget, label), (mean, interval) in found.items():
        shade = BUDGETS.index(budget)
        is_alone = sum(other == label for _, other in found) == 1
        height = float(TOP + ROW * methods.index(label) + (0 if is_alone else 7 * (shade - 1)) + 8)
        if interval is not None:
            yield line("bar", (place(interval[0]), height), (place(interval[1]), height))
        told = tag("title", f"{escape(label)}, {budget:g} x vanilla: {mean:.1f} %")
        yield tag("circle", told, of=f"b{shade}", cx=place(mean), cy=height, r=4)


def ticks(low: float, high: float) -> Iterator[float]:
    """Round numbers between the two, at most six."""
    step = next(step for step in (0.5, 1, 2, 5, 10, 20) if (high - low) / step <= 5)
    tick = step * -(-low // step)
    while tick <= high:
        yield tick
        tick += step


def legend() -> Iterator[str]:
    """What the shades of the marks mean."""
    yield tag("text", "measured time, in vanilla's:", of="small", x=0, y=16)
    for shade, budget in enumerate(BUDGETS):
        left = LEFT + 10 + 60 * shade
        yield tag("circle", of=f"b{shade}", cx=left, cy=12, r=4)
        yield tag("text", f"{budget:g}", of="small", x=left + 10, y=16)


def figure(paths: Sequence[Path]) -> str:
    """The whole figure as SVG."""
    found = panels(paths)
    methods = methods_in(found)
    width = LEFT + len(found) * (PANEL + GAP)
    height = TOP + ROW * len(methods) + 30
    told = (
        "Test accuracy in the same measured training time (1.0, 1.25 and 1.5 times vanilla's: "
        "light to dark). Means of five seeds, of fine-tuning three, 95 % intervals; dashed: "
        "vanilla at the largest."
    )
    parts = [tag("style", STYLE), *legend()]
    for number, label in enumerate(methods):
        parts.append(tag("text", escape(label), x=0, y=TOP + ROW * number + 12))
    for number, (name, panel) in enumerate(found.items()):
        left = LEFT + number * (PANEL + GAP)
        parts.append(tag("text", escape(TITLES[name]), of="title", x=left, y=TOP - 22))
        parts += panel_marks(panel, methods, left)
    box = f"0 0 {width} {height}"
    inner = "\n".join(["", *parts, ""])
    return tag("svg", inner, xmlns=NAMESPACE, viewBox=box, role="img", aria_label=told) + "\n"


if __name__ == "__main__":
    print(figure(sorted(RESULTS.glob("budgets-*.json"))), end="")
