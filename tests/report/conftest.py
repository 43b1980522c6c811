"""A made-up but plausible comparison on small images: results and what the runs recorded."""

import base64
import io
import random

import pytest
from PIL import Image

from advprop.evaluation.results import summarise

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
            "variance_ratio": 1.1 - 0.08 * (i % 3),
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
