"""Turn the recipe, method and overrides of the command line into a configuration."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides, differences, read_config
from advprop.recipes import RECIPES
from advprop.runs.folder import CONFIG, DATA


def resolve_recipe(recipe: str) -> RunConfig:
    """Return the configuration of a recipe's name, a saved `config.json`, or `file.py:function`.

    The function takes no arguments and returns a `RunConfig`. Raises ValueError or OSError if the
    recipe or file is missing or invalid.
    """
    if recipe in RECIPES:
        return RECIPES[recipe].build()
    file, colon, function = recipe.rpartition(":")
    if colon and file.endswith(".py"):
        return _from_file(Path(file), function)
    if recipe.endswith(".json"):
        return read_config(Path(recipe))
    near = difflib.get_close_matches(recipe, RECIPES, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(
        f'recipe "{recipe}" unknown: {hint}there are {", ".join(RECIPES)}; '
        "a saved config.json or file.py:function will do too"
    )


def own_folder(recipe: str, config: RunConfig) -> Path | None:
    """Return the folder of the run whose `config.json` is `recipe`, or None.

    It is None too if settings other than the number of epochs differ from `config`.
    """
    path = Path(recipe)
    if path.name != CONFIG or not path.is_file() or not (path.parent / DATA).is_file():
        return None
    changed = differences(read_config(path), config).keys() - {"training.num_epochs"}
    return None if changed else path.parent


def resolve_run(
    recipe: str, *, method: str | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """Return the configuration of `recipe` with `method` and "PATH=VALUE" overrides.

    Raises ValueError or OSError as `resolve_recipe`, and ValueError for an unknown method or an
    invalid override.
    """
    config = resolve_recipe(recipe)
    if method is not None:
        config = config.with_method(method)
    return apply_overrides(config, overrides)


def _from_file(path: Path, function: str) -> RunConfig:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        build: Any = getattr(module, function)
        config = build()
    except Exception as error:
        raise ValueError(f"{path}:{function}: {type(error).__name__}: {error}") from error
    if not isinstance(config, RunConfig):
        raise ValueError(
            f"{path}:{function}: returned {type(config).__name__}, a recipe returns a RunConfig"
        )
    return config
