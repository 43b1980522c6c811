"""The card tells facts of the run, all of them and no others."""

from __future__ import annotations

import ast
import copy
import html
import re
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from advprop.data.preprocessing import Preprocessing
from advprop.exports.card import model_card
from advprop.exports.format import ExportInfo
from advprop.files.parsing import printable

PROVENANCE: dict[str, Any] = {
    "config": {
        "recipe": "from_scratch",
        "seed": 7,
        "method": {
            "kind": "advprop",
            "attack": {"threat_model": {"kind": "linf", "epsilon": 4 / 255}, "num_steps": 5},
        },
        "model": {"name": "resnet18", "pretrained": True},
        "data": {"kind": "folder", "root": "/home/someone/photos"},
        "training": {"num_epochs": 30, "optimizer": "sgd", "ema_decay": None},
    },
    "weights": "last",
    "result": {
        "epochs": 30,
        "passes_per_image": 7,
        "total_passes": 210,
        "validation_accuracy": 0.875,
        "best_validation_accuracy": 0.9375,
    },
    "data": {"name": "photos", "num_train": 640, "num_validation": 64, "num_test": None},
    "test": {
        "weights": "last",
        "branch": "clean",
        "suites": {
            "clean": {"clean_accuracy": 0.8125, "num_images": 96, "images": "photos test"},
            "adversarial": {
                "adversarial_accuracy": 0.25,
                "num_images": 96,
                "images": "photos test",
                "threat_model": "linf",
                "num_steps": 10,
            },
        },
    },
    "versions": {"torch": "2.15.0"},
}
CHECKS = {
    "model.onnx": {
        "format": "onnx",
        "max_difference": 2.5e-6,
        "tolerance": 1e-3,
        "batch_sizes": [1, 3],
    }
}

INFO = ExportInfo(
    class_names=("cat", "dog|wolf"),
    preprocessing=Preprocessing(image_shape=(3, 64, 96), crop_pct=0.9),
    provenance=PROVENANCE,
    options={},
)


def make(architecture: str = "resnet18", branch: str = "clean", **changes: Any) -> str:
    return model_card(
        replace(INFO, **changes),
        architecture=architecture,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.1),
        branch=branch,
    )


def changed(*path: str, value: Any) -> dict[str, Any]:
    provenance = copy.deepcopy(PROVENANCE)
    *parents, last = path
    entry = provenance
    for parent in parents:
        entry = entry[parent]
    entry[last] = value
    return provenance


def results(card: str) -> dict[tuple[str, str], float]:
    """Of the YAML head, as the Hub reads it: (metric, split) to value."""
    return {
        (result.metric_name, result.dataset_split): result.metric_value
        for result in ModelCard(card).data.eval_results or []
    }


def test_the_hub_reads_its_head() -> None:
    data = ModelCard(make()).data
    assert (data.library_name, data.pipeline_tag) == ("timm", "image-classification")
    assert {"timm", "advprop"} <= set(data.tags)
    assert data.datasets == ["photos"]
    assert data.metrics == ["accuracy"]
    assert data.license is None
    assert data.model_name == "resnet18 advprop"
    assert results(make()) == {
        ("clean accuracy", "validation"): 0.875,
        ("clean accuracy", "test"): 0.8125,
        ("adversarial accuracy", "test"): 0.25,
    }


def test_it_tells_the_facts_of_the_run() -> None:
    card = make()
    for row in (
        "| recipe | from_scratch |",
        "| method | advprop |",
        "| method.attack.threat_model.epsilon | 0.0156863 |",
        "| method.attack.num_steps | 5 |",
        "| began with | timm's pretrained weights of resnet18 |",
        "| epochs | 30 |",
        "| forward-backward passes for each image and epoch | 7 |",
        "| seed | 7 |",
        "| optimizer | sgd |",
        "| weights | last |",
        "| train images | 640 |",
        "| clean accuracy | 81.25% | photos test | num_images 96 |",
        "| adversarial accuracy | 25.00% | photos test | "
        "num_images 96, threat_model linf, num_steps 10 |",
        "| torch | 2.15.0 |",
    ):
        assert row in card, row
    assert "dog\\|wolf" in card
    assert "64 x 96" in card
    assert "mean 0.5, 0.4, 0.3, standard deviation 0.2, 0.2, 0.1" in card
    assert "It is no defence" in card
    assert "and the pretrained weights" in card
    assert "someone" not in card  # a folder's place is nobody's business
    assert "None" not in card


NASTY = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a|b",
    "two\nlines\r# title",
    "[link](http://example.org)",
    "`code` **bold** _italic_ ~~gone~~ $x$",
    "escape \x1b[31m",
    "\udce9 is no UTF-8",
    "&lt;entity&gt;",
    "{{ 7 * 7 }}",
    "snake_case_name",
)


def shown(card: str) -> str:
    """What a reader of the rendered card sees, as text; no tag may be left."""
    from markdown_it import MarkdownIt

    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(ModelCard(card).text)
    tags = set(re.findall(r"<\s*/?\s*([a-zA-Z0-9]+)", page))
    assert not tags & {"script", "img", "a", "em", "strong", "entity"}, tags
    return html.unescape(re.sub(r"<[^>]*>", "", page))


@pytest.mark.parametrize("name", NASTY)
def test_what_a_user_named_is_shown_as_it_is(name: str) -> None:
    provenance = changed("config", "recipe", value=name)
    provenance["config"]["method"]["kind"] = provenance["data"]["name"] = name
    provenance["test"]["suites"]["clean"]["images"] = f"{name} test"
    card = make(class_names=["cat", name], provenance=provenance)
    card.encode()
    # title, method, class, two rows of the table of the training, data, three results
    assert shown(card).count(printable(name, lines=False)) >= 8
    assert ("clean accuracy", "test") in results(card)


def test_local_weights_that_a_run_began_from_are_named_without_their_folder() -> None:
    model = {"name": "resnet18", "pretrained": False, "checkpoint": "/home/someone/own.safetensors"}
    card = make(provenance=changed("config", "model", value=model))
    assert "| began with | weights of a local file, own.safetensors |" in card
    assert "someone" not in card
    assert "training images and the pretrained weights." in " ".join(card.split())


def test_results_of_other_weights_or_branches_are_left_out() -> None:
    validated = ("clean accuracy", "validation")
    best = changed("weights", value="best")
    assert results(make(provenance=best)) == {validated: 0.9375}
    averaged = changed("config", "training", "ema_decay", value=0.999)
    assert validated not in results(make(provenance=averaged))
    averaged["weights"] = averaged["test"]["weights"] = "ema"
    assert results(make(provenance=averaged))[validated] == 0.875
    assert results(make(branch="adversarial")) == {}
    other_branch = changed("test", "branch", value="adversarial")
    assert results(make(provenance=other_branch)) == {validated: 0.875}


def test_results_on_validation_images_are_called_so() -> None:
    images = "photos validation (there is no test/)"
    provenance = changed("test", "suites", "clean", "images", value=images)
    assert ("clean accuracy", "test") not in results(make(provenance=provenance))
    provenance = changed("test", "suites", "clean", "images", value="validation_photos")
    assert results(make(provenance=provenance))["clean accuracy", None] == 0.8125


@pytest.mark.parametrize("provenance", [{}, {"config": "unknown", "result": {}, "test": None}])
def test_what_is_not_known_is_left_out(provenance: dict[str, Any]) -> None:
    card = make(provenance=provenance)
    data = ModelCard(card).data
    assert data.datasets is None
    assert data.metrics is None
    assert data.eval_results is None
    for title in ("Data", "Results", "Versions"):
        assert f"## {title}" not in card
    assert "None" not in card
    assert ("## Training" in card) == ("result" in provenance)
    assert ("was not finished" in card) == ("result" in provenance)


def test_a_name_that_is_none_on_the_hub_stays_out_of_the_head() -> None:
    card = make(provenance=changed("data", "name", value="my photos: 2"))
    assert ModelCard(card).data.datasets is None
    assert "| name | my photos: 2 |" in card
    assert results(card)["clean accuracy", "validation"] == 0.875


def test_how_to_use_it_follows_what_is_there() -> None:
    card = make(checks=CHECKS)
    assert "differ by at most 2.5e-06 (allowed: 0.001)" in card
    assert "[batch, 3, 64, 96]" in card
    assert "model.pt2" not in card
    for block in re.findall(r"```python\n(.*?)```", card, re.S):
        ast.parse(block)
    assert 'convert("RGB")' in card
    ours = make(architecture="small_resnet")
    assert "timm.create_model" not in ours
    assert ModelCard(ours).data.library_name == "pytorch"
    assert "timm" not in ModelCard(ours).data.tags
    assert "model.onnx" not in ours


def test_many_classes_are_counted() -> None:
    card = make(class_names=[f"class {number}" for number in range(1000)])
    assert "1000; their names" in card
    assert "class 17" not in card
