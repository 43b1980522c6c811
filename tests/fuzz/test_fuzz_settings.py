"""Damaged recipes and wild `--set`: one message, and no folder."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from command_line import Cli
from damage import attempt, cases
from json_damage import BYTES, TREES, VALUES, places

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides

RECIPE = b"""from advprop.recipes.builtin import digits


def small():
    return digits().with_seed(3)
"""


@pytest.mark.parametrize("change", cases(BYTES, quick=12))
def test_a_damaged_recipe_is_refused_or_another(change: str, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(BYTES[change](RECIPE))
    ended = cli("train", f"{path}:small", "--set", "training.no=1")
    assert ended.code == 2
    assert "mine.py" in ended.err or "training.no" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("change", cases(TREES, quick=20))
def test_a_damaged_configuration_is_no_recipe(
    change: str, run: Path, tmp_path: Path, cli: Cli
) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(TREES[change]((run / "config.json").read_bytes()))
    ended = cli("train", path, "--set", "training.no=1")
    assert ended.code == 2
    assert "mine.json" in ended.err or "training.no" in ended.err
    assert "Traceback" not in ended.err


def setting(generator: random.Random, paths: list[str]) -> str:
    """A path of the configuration, or nearly, with a value that it seldom has."""
    path = generator.choice([*paths, "", ".", "model..name", "training", "x.y", "model.options.z"])
    values = [json.dumps(value) for value in VALUES]
    values += ["1/0", "4/255", "nan", "inf", "1e999", "none", "[" * 10_000, "{", '"', "9" * 5000]
    values += ["vanilla", "folder", "shards", "l2", "\0", "\udcff"]
    return f"{path}={generator.choice(values)}"


@pytest.mark.parametrize("seed", cases(range(60), quick=15))
def test_settings_are_applied_or_refused(seed: int, config: RunConfig) -> None:
    generator = random.Random(seed)
    tree = config.model_dump(mode="json")
    paths = [".".join(map(str, place)) for place in places(tree)]
    for _ in range(10):
        settings = [setting(generator, paths) for _ in range(generator.randint(1, 3))]
        outcome = attempt(lambda settings=settings: apply_overrides(config, settings))
        assert outcome.message is None or len(outcome.message) > 20
        if outcome.message is None:
            written = json.dumps(outcome.result.model_dump(mode="json"), allow_nan=False)
            assert RunConfig.model_validate(json.loads(written)) == outcome.result


UNBUILDABLE = (
    "model.options.width=x",
    "model.options.width=-1",
    "model.options.width=1.5",
    "model.options.drop_rate=x",
    "model.options.drop_rate=[]",
    "model.options.stem_stride={}",
    "model.options.num_classes=3",
    "model.options.pretrained=true",
    "model.options.mean=[0]",
    "model.options.1=2",
    "model.mean=[0, 0, 0]",
    "model.std=[0]",
    "model.mean=[]",
    "model.name=",
    "model.name=..",
    "model.name=hf-hub:nobody/nothing",
    "model.name=local-dir:/",
    "model.checkpoint=/",
    "model.checkpoint=",
    'model.checkpoint="\\u0000"',
    "seed=1e30",
    "seed=1000000000000000000000000000000",
    "data.num_train=100000000000000000000000000",
    "training.optimizer_options.lr=x",
    "training.optimizer_options=[]",
    "training.optimizer=",
    "training.optimizer=[]",
    "training.milestones=[1]",
)


@pytest.mark.parametrize("override", cases(UNBUILDABLE, quick=15))
def test_settings_that_cannot_be_built_are_refused(override: str, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = cli("train", "digits", "--out", out, "--quiet", "--set", override)
    assert ended.code == 2, ended
    assert len(ended.err) > 20
    assert "Traceback" not in ended.err
    assert not out.exists()
