"""What earlier versions saved of settings that are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advprop.config.overrides import read_config
from advprop.recipes import RECIPES

IN_ATTACK = {"resolution": 1.0, "inner_steps": 0, "until": None}
IN_ADVPROP = {"stale_steps": 0, "attack_every": 1}


def saved(folder: Path, method: str, model: dict[str, Any] = {}, **changes: Any) -> Path:  # noqa: B006
    """A `config.json` as commit 5ebac19 wrote it, `changes` by the place of a removed setting."""
    tree = RECIPES["digits"].build().with_method(method).model_dump(mode="json")
    settings = tree["method"]
    removed = {f"attack.{name}": value for name, value in IN_ATTACK.items()}
    removed |= IN_ADVPROP if method == "advprop" else {}
    for path, value in {**removed, **changes}.items():
        place = settings["attack"] if path.startswith("attack.") else settings
        place[path.removeprefix("attack.")] = value
    tree["model"] |= {"adapter_rank": 4, **model}
    path = folder / "config.json"
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize("method", ["advprop", "mixed", "adversarial", "fine_grained"])
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


@pytest.mark.parametrize("model", [{"separate": "adapter"}, {"adapter_rank": 8}], ids=str)
def test_adapters_are_refused(model: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.*adapter.* removed.*commit 5ebac19"):
        read_config(saved(tmp_path, "advprop", model))
