"""A made-up but plausible comparison on small images: results and what the runs recorded."""

import base64
import io
import random
import shutil
import time

import pytest
from PIL import Image

from advprop.report import render_report
from advprop.results.summary import summarise

# method: epochs, passes per image, seconds, accuracies (clean, noise, adversarial)
METHODS = {
    "vanilla": (20, 1.0, 11.2, (0.892, 0.234, 0.081)),
    "vanilla_equal_cost": (100, 1.0, 55.9, (0.913, 0.271, 0.064)),
    "adversarial": (20, 4.0, 37.5, (0.901, 0.745, 0.588)),
    "mixed": (20, 5.0, 44.1, (0.909, 0.722, 0.531)),
    "advprop": (20, 5.0, 46.8, (0.914, 0.604, 0.312)),
}
BRANCHES = {"mixed": 2, "advprop": 2, "adversarial": 1}


def sample_runs(seeds=3, methods=tuple(METHODS)):
    chance = random.Random(1)
    return [
        {
            "method": method,
            "seed": seed,
            "epochs": METHODS[method][0],
            "passes_per_image": METHODS[method][1],
            "train_seconds": METHODS[method][2] * chance.uniform(0.97, 1.03),
            "clean_accuracy": METHODS[method][3][0] + chance.gauss(0, 0.004),
            "noise_accuracy": METHODS[method][3][1] + chance.gauss(0, 0.03),
            "tested_on": "mnist5k test",
            "adversarial_accuracy": METHODS[method][3][2] + chance.gauss(0, 0.02),
        }
        for seed in range(seeds)
        for method in methods
    ]


def sample_results(seeds=3, methods=tuple(METHODS)):
    runs = sample_runs(seeds, methods)
    return {
        "recipe": "mnist5k",
        "versions": {"advprop": "0.1.0", "torch": "2.14.1", "timm": "1.0.31"},
        "runs": runs,
        "summary": summarise(runs),
    }


def sample_curve(method, seed):
    epochs, cost, _, (clean, _, attacked) = METHODS[method]
    chance = random.Random(f"{method} {seed}")
    names = {"adversarial": ("adversarial",)}.get(
        method, ("clean", "adversarial")[: BRANCHES.get(method, 1)]
    )
    points = []
    for epoch in range(1, epochs + 1):
        done = 1 - 0.8**epoch
        train = {
            name: {
                "accuracy": (0.1 + 0.9 * done if name == "clean" else 0.1 + (attacked + 0.2) * done)
                - abs(chance.gauss(0, 0.008)),
                "loss": (2.3 if name == "clean" else 2.5) * (1.02 - done) + chance.uniform(0, 0.05),
            }
            for name in names
        }
        validation = 0.1 + (clean - 0.1) * done + chance.gauss(0, 0.006)
        points.append(
            {
                "epoch": float(epoch),
                "passes": epoch * cost,
                "train": train,
                "validation_accuracy": validation,
            }
        )
    return {"method": method, "seed": seed, "points": points}


def png(shade, size=8):
    stream = io.BytesIO()
    image = Image.new("L", (size, size), 20)
    image.paste(shade, (2, 1, size - 2, size - 1))
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def sample_record(method, seed=0):
    gallery = [
        {
            "clean": png(230),
            "perturbation": png(128 + 9 * i),
            "adversarial": png(200 - 9 * i),
            "label": str(i),
            "clean_prediction": str(i),
            "adversarial_prediction": str(i if i % 3 else (i + 5) % 10),
        }
        for i in range(8)
    ]
    layers = ("stem.norm", *(f"stages.{s}.0.norm{n}" for s in range(3) for n in (1, 2)))
    distances = [
        {
            "layer": layer,
            "mean_distance": 0.06 + 0.05 * i + 0.01 * seed,
            "variance_ratio": 1.1 + 0.08 * (i % 3),
        }
        for i, layer in enumerate(layers)
    ]
    statistics = distances if method == "advprop" else []
    return {"method": method, "seed": seed, "gallery": gallery, "statistics": statistics}


def sample_details(seeds=3, methods=tuple(METHODS)):
    return {
        "command": "advprop compare mnist5k --seeds 3 --jobs 2 --out runs/demo\n"
        "advprop report runs/demo",
        "curves": [sample_curve(method, seed) for method in methods for seed in range(seeds)],
        "records": [sample_record(method, seed) for method in methods for seed in range(seeds)],
        "notes": [],
    }


CORRUPTIONS = ("gaussian_noise", "glass_blur", "fog", "jpeg_compression", "speckle_noise")
CLASSES = tuple("0123456789")


def sample_findings(method, seed=0, classes=CLASSES):
    """What `advprop evaluate` finds on all suites, in the form of its JSON."""
    chance = random.Random(f"{method} {seed} found")
    clean, noise, attacked = METHODS.get(method, METHODS["advprop"])[3]
    if method not in METHODS:
        clean, noise, attacked = (
            share + chance.uniform(-0.06, 0.06) for share in (clean, noise, attacked)
        )

    def near(share, spread=0.01):
        return min(max(share + chance.gauss(0, spread), 0.0), 1.0)

    curve = [
        {"threat_model": model, "epsilon": e, "num_steps": 20, "restarts": 2, "accuracy": accuracy}
        for model, epsilons in (
            ("L2", (0, 0.5, 1, 2)),
            ("Linf", (0, *(2**k / 255 for k in range(6)))),
        )
        for place, e in enumerate(epsilons)
        for accuracy in [near(clean + (attacked - clean) * place / (len(epsilons) - 1), 0.003)]
    ]
    by_corruption = {
        name: {
            "accuracy": [near(clean + (noise - clean) * k * (1 + i) / 30) for k in range(1, 6)],
            "mean_error": 0.3,
        }
        for i, name in enumerate(CORRUPTIONS)
    }
    bins = [
        {
            "low": k / 15,
            "high": (k + 1) / 15,
            "confidence": (k + 0.5) / 15,
            "accuracy": near((k + 0.5) / 15 - 0.04, 0.02),
            "num_images": 5 + k**3,
        }
        for k in range(3, 15)
    ]
    suites = {
        "clean": {
            "clean_accuracy": clean,
            "images": "mnist5k test",
            "num_images": 2000,
            "per_class": [
                {"class": name, "accuracy": near(clean, 0.03), "num_images": 200}
                for name in classes
            ],
            "calibration": {"ece": abs(near(0.03)), "num_bins": 15, "bins": bins},
        },
        "corruptions": {
            "corruptions_accuracy": noise,
            "by_corruption": by_corruption,
            "made": "on the fly, imagecorruptions-imaug 1.1.5",
        },
        "adversarial": {"adversarial_accuracy": attacked, "num_images": 2000, "curve": curve},
        "autoattack": {
            "autoattack_accuracy": 0.9 * attacked,
            "after": {"apgd-ce": attacked, "apgd-t": 0.95 * attacked, "square": 0.9 * attacked},
        },
    }
    return {"method": method, "seed": seed, "suites": suites, "red_flags": []}


def sample_predictions(method, seed=0, count=24, picture=None):
    """Answers to `count` images; vanilla alone errs on images 4 and 14, all err on image 9."""
    chance = random.Random(f"{method} {seed} predictions")
    wrong = {9, 4, 14} if method == "vanilla" else {9}
    draw = picture or (lambda i: png(40 + 8 * (i % 25), size=10))
    return {
        "images": [
            {"id": f"{i:012x}", "label": CLASSES[i % 10], "picture": draw(i)} for i in range(count)
        ],
        "clean": [CLASSES[(i + (i in wrong)) % 10] for i in range(count)],
        "confidence": [round(chance.uniform(0.5, 1), 3) for _ in range(count)],
    }


@pytest.fixture
def findings():
    """Makes what the suites found of one run, from its method and seed."""
    return sample_findings


@pytest.fixture
def predictions():
    """Makes the recorded answers of one run, from its method and seed."""
    return sample_predictions


@pytest.fixture
def study():
    """Results and details of a comparison that was tested on every suite."""
    results, details = sample_results(seeds=2), sample_details(seeds=2)
    details["tests"] = [sample_findings(m, seed) for m in METHODS for seed in (0, 1)]
    for record in details["records"]:
        record["predictions"] = sample_predictions(record["method"], record["seed"])
    for run in results["runs"]:
        run["corruptions_accuracy"] = 0.8 * run["clean_accuracy"]
    flag = {
        "flag": "small_perturbation",
        "suite": "adversarial",
        "message": "perturbations of 0.01 where epsilon is 0.1: give more steps",
        "page": "docs/red_flags.md#small-perturbation",
    }
    details["tests"][0]["red_flags"] = [flag]
    results["summary"] = summarise(results["runs"])
    return results, details


def photo(number, side=64):
    """A colour picture that compresses as badly as a photo does."""
    chance = random.Random(number)
    small = Image.new("RGB", (side // 2, side // 2))
    small.putdata([tuple(chance.randrange(256) for _ in range(3)) for _ in range(side * side // 4)])
    stream = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


@pytest.fixture(scope="session")
def large_study():
    """60 runs, 12 methods of 5 seeds, each with every suite and 200 answers to colour images."""
    pictures = [photo(number) for number in range(200)]
    triple = {kind: photo(kind, side=224) for kind in ("clean", "perturbation", "adversarial")}
    classes = [f"class {i}" for i in range(200)]
    methods = {f"advprop, width {2 * i}": "advprop" for i in range(2, 14)}
    runs, details = [], {"curves": [], "records": [], "tests": [], "notes": []}
    for method, like in methods.items():
        for seed in range(5):
            label = {"method": method, "seed": seed}
            found = sample_findings(method, seed, classes)
            shares = {
                f"{name}_accuracy": s[f"{name}_accuracy"] for name, s in found["suites"].items()
            }
            runs.append({**sample_runs(1, (like,))[0], **shares, **label})
            points = 5 * sample_curve(like, seed)["points"]
            points = [{**point, "passes": 1.0 + at} for at, point in enumerate(points)]
            details["curves"].append({**label, "points": points})
            details["tests"].append(found)
            record = {**sample_record(like, seed), **label}
            record["gallery"] = [{**item, **triple} for item in record["gallery"]]
            record["predictions"] = sample_predictions(method, seed, 200, pictures.__getitem__)
            details["records"].append(record)
    return {"recipe": "large", "runs": runs, "summary": summarise(runs)}, details


@pytest.fixture
def results():
    return sample_results()


@pytest.fixture
def details():
    return sample_details()


@pytest.fixture
def picture():
    """Makes a PNG's data address from a shade and a size."""
    return png


@pytest.fixture
def record():
    """Makes what one run recorded, from its method and seed."""
    return sample_record


@pytest.fixture
def sample():
    """Makes (results, details) of chosen seeds and methods."""

    def build(seeds=3, methods=tuple(METHODS)):
        return sample_results(seeds, methods), sample_details(seeds, methods)

    return build


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, which `make test-all` installs, driven by playwright."""
    from playwright import sync_api

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"], timeout=1000 * PATIENCE
        )
        yield found
        found.close()


PATIENCE = 180.0
"""Seconds for whatever the browser is asked; on a busy machine drawing takes half a minute."""


def wait_until(page, condition, argument=None):
    """Wait for an expression or function; the page forbids what playwright itself waits with."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(condition, argument):
        assert time.monotonic() < end, f"still not: {condition}"
        time.sleep(0.05)


DRAWN = """![...document.querySelectorAll(".chart")].some(
    chart => chart.clientWidth && !chart.querySelector(".main-svg"))"""


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a report; the page has `.complaints`: console messages, errors, requests, dialogs."""
    contexts = []

    def open_report(results, details, *, width, scheme="light"):
        path = tmp_path / "report.html"
        path.write_text(render_report(results, details), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(1000 * PATIENCE)
        page = context.new_page()
        page.complaints = []
        page.until = lambda condition, argument=None: wait_until(page, condition, argument)
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.complaints.append(request.url[:200]))
        page.goto(path.as_uri())
        page.until(DRAWN)
        # opening the file itself and its embedded pictures are the only requests allowed
        own = ("file://", "data:", "blob:")
        page.complaints = [text for text in page.complaints if not text.startswith(own)]
        return page

    yield open_report
    for context in contexts:
        context.close()
