"""What earlier versions saved of settings that are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advprop.config.overrides import read_config
from advprop.recipes import RECIPES

IN_ATTACK = {"resolution": 1.0, "inner_steps": 0, "until": None}
IN_METHOD = {
    "advprop": {"stale_steps": 0, "attack_every": 1},
    "advprop_lean": {
        "pairing": "decoupled",
        "auxiliary_branch": False,
        "start": "random",
        "precision": None,
        "form": "auto",
    },
}


def saved(folder: Path, method: str, model: dict[str, Any] = {}, **changes: Any) -> Path:  # noqa: B006
    """A `config.json` as earlier versions wrote it, `changes` by the place of a removed setting."""
    tree = RECIPES["digits"].build().with_method(method).model_dump(mode="json")
    settings = tree["method"]
    removed = {f"attack.{name}": value for name, value in IN_ATTACK.items()}
    removed = {} if method == "advprop_lean" else removed  # its attack never had them
    removed |= IN_METHOD.get(method, {})
    for path, value in {**removed, **changes}.items():
        place = settings["attack"] if path.startswith("attack.") else settings
        place[path.removeprefix("attack.")] = value
    tree["model"] |= {"adapter_rank": 4, **model}
    path = folder / "config.json"
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize(
    "method", ["advprop", "mixed", "adversarial", "fine_grained", "advprop_lean"]
)
def test_settings_that_did_nothing_are_dropped(method: str, tmp_path: Path) -> None:
    now = RECIPES["digits"].build().with_method(method)
    assert read_config(saved(tmp_path, method)) == now


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("attack.resolution", 0.5),
        ("attack.inner_steps", 2),
        ("attack.until", "model.stem"),
        ("stale_steps", 1),
        ("attack_every", 2),
    ],
    ids=lambda part: str(part),
)
def test_settings_that_did_something_are_refused(
    setting: str, value: object, tmp_path: Path
) -> None:
    name = setting.removeprefix("attack.")
    with pytest.raises(ValueError, match=rf"{name} {value!r}: .*removed.*commit 5ebac19"):
        read_config(saved(tmp_path, "advprop", **{setting: value}))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("pairing", "paired"),
        ("auxiliary_branch", True),
        ("start", "zero"),
        ("precision", "float16"),
        ("form", "joint"),
    ],
    ids=lambda part: str(part),
)
def test_other_forms_of_advprop_lean_are_refused(
    setting: str, value: object, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"{setting} {value!r}: .*removed.*commit 242c495"):
        read_config(saved(tmp_path, "advprop_lean", **{setting: value}))


def test_a_method_that_is_gone_is_named_with_the_one_to_take(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'"carried": this was removed.*advprop_lean.* 242c495'):
        read_config(saved(tmp_path, "advprop_lean", kind="carried"))


@pytest.mark.parametrize("model", [{"separate": "adapter"}, {"adapter_rank": 8}], ids=str)
def test_adapters_are_refused(model: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.*adapter.* removed.*commit 5ebac19"):
        read_config(saved(tmp_path, "advprop", model))
