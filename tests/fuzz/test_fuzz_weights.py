"""Damaged exports and local weights: refused, or whole; no code runs from them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from command_line import Cli, contents
from damage import Payload, assert_named, attempt, cases, changes, damage, pickled

from advprop.config.run import ModelConfig
from advprop.exports.export import load_export
from advprop.suites import evaluate

BYTES = changes(cuts=24, flips=30, replacements=16)
MODEL = ModelConfig(name="small_resnet", mean=(0.3,), std=(0.4,), options={"width": 8})


def state_of(model: Any) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


def same(one: Any, other: Any) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("change", cases(BYTES, quick=30))
def test_no_damage_to_an_exports_weights_goes_unseen(change: str, exported: Path) -> None:
    path = exported / "model.safetensors"
    damage(path, BYTES[change])
    before = contents(exported)
    outcome = attempt(lambda: load_export(exported))
    assert outcome.message is not None
    assert_named(outcome.message, path)
    assert contents(exported) == before


@pytest.mark.parametrize("change", ["empty", "cut 12 of 24", "bit 0", "torch file with a payload"])
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_the_command_line_refuses_damaged_exports(
    command: str, change: str, exported: Path, cli: Cli, image: Path
) -> None:
    damage(exported / "model.safetensors", BYTES[change])
    before = contents(exported.parent)
    ended = cli(command, exported, *([image] if command == "predict" else []))
    assert ended.code == 2, ended
    assert "model.safetensors" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert contents(exported.parent) == before


@pytest.fixture
def image(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "image.png"
    Image.new("L", (8, 8), 100).save(path)
    return path


def test_an_export_that_tells_nothing_of_its_run_is_not_evaluated(exported: Path) -> None:
    path = exported / "config.json"
    tree = json.loads(path.read_text())
    del tree["advprop"]["config"]
    path.write_text(json.dumps(tree))
    assert load_export(exported).class_names
    outcome = attempt(lambda: evaluate(exported, suites=("clean",)))
    assert outcome.message is not None
    assert str(exported) in outcome.message


def test_an_export_cannot_have_weights_fetched(exported: Path) -> None:
    path = exported / "config.json"
    tree = json.loads(path.read_text())
    tree["architecture"], tree["model_args"]["pretrained"] = "resnet10t", True
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"config\.json: damaged.*pretrained"):
        load_export(exported)


@pytest.fixture(scope="module")
def plain() -> Any:
    torch.manual_seed(0)
    return MODEL.build(num_classes=10, image_shape=(1, 8, 8)).model


def build(path: Path) -> Any:
    settings = MODEL.model_copy(update={"checkpoint": path})
    return settings.build(num_classes=10, image_shape=(1, 8, 8)).model


@pytest.mark.parametrize("change", cases(BYTES, quick=30))
def test_damaged_torch_weights_are_refused_or_whole(
    change: str, plain: Any, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(BYTES[change](pickled(plain.state_dict())))
    before = contents(tmp_path)
    outcome = attempt(lambda: build(path))
    assert contents(tmp_path) == before
    if outcome.message is None:
        assert same(outcome.result, plain)
    else:
        assert_named(outcome.message, path)


@pytest.mark.parametrize("change", cases(BYTES, quick=30))
def test_damaged_safetensors_are_refused_or_fit(change: str, plain: Any, tmp_path: Path) -> None:
    """The format has no checksum: other numbers in the place of weights cannot be told apart."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(BYTES[change](safetensors.torch.save(plain.state_dict())))
    outcome = attempt(lambda: build(tmp_path))
    if outcome.message is None:
        assert outcome.result.state_dict().keys() == plain.state_dict().keys()
        assert change.startswith(("bit", "bytes", "second half"))
    else:
        assert_named(outcome.message, path)


FOREIGN: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "nothing": lambda state: None,
    "a number": lambda state: 3,
    "a tensor": lambda state: torch.ones(3),
    "a list of tensors": lambda state: list(state.values()),
    "no tensors": lambda state: {},
    "text": lambda state: dict.fromkeys(state, "x"),
    "one text": lambda state: {**state, "fc.bias": "x"},
    "one missing": lambda state: {k: v for k, v in state.items() if k != "stem.0.weight"},
    "one more": lambda state: {**state, "more": torch.ones(1)},
    "numbers for names": lambda state: dict(enumerate(state.values())),
    "reshaped": lambda state: {**state, "stem.0.weight": torch.ones(2, 2)},
    "complex": lambda state: {**state, "stem.0.weight": state["stem.0.weight"] + 1j},
    "sparse": lambda state: {**state, "stem.0.weight": state["stem.0.weight"].to_sparse()},
    "without values": lambda state: {**state, "stem.0.weight": state["stem.0.weight"].to("meta")},
    "nested deeply": lambda state: {"model": {"model": {"model": state}}},
    "a payload": lambda state: {**state, "fc.bias": Payload()},
    "a payload beside": lambda state: {"state_dict": state, "optimizer": Payload()},
    "a module": lambda state: torch.nn.Linear(2, 2),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_weights_are_refused(kind: str, plain: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(FOREIGN[kind](state_of(plain)), path)
    outcome = attempt(lambda: build(path))
    assert outcome.message is not None
    assert_named(outcome.message, path)


def test_the_payload_would_tell_on_who_unpickles_it(here: Path) -> None:
    pickle.loads(pickle.dumps(Payload()))
    (here / "owned").rmdir()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_bare_pickle_runs_nothing(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(pickle.dumps({"fc.weight": Payload()}, protocol=protocol))
    outcome = attempt(lambda: build(path))
    assert outcome.message is not None
    assert_named(outcome.message, path)


def test_a_folder_and_a_link_to_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.pth").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "link.pth", "missing.pth"):
        outcome = attempt(lambda name=name: build(tmp_path / name))
        assert outcome.message is not None
        assert_named(outcome.message, tmp_path / name)
