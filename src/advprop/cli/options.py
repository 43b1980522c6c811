"""What several subcommands share: options, printing, and the check of --json FILE."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A recipe's name, a saved config.json, or file.py:function."
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN_OR_EXPORT", help="A run's folder, or an export's.")
]
TestedArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN_OR_EXPORT_OR_TIMM_NAME",
        help="A run's folder, an export's, or a model of timm's by name (needs --data).",
    ),
]


def _set_option(example: str) -> Any:
    told = f"Change a setting, as in {example}; may be repeated."
    return typer.Option("--set", metavar="PATH=VALUE", help=told)


SetOption = Annotated[list[str] | None, _set_option("training.num_epochs=10")]
EvaluationSetOption = Annotated[list[str] | None, _set_option("evaluation.batch_size=64")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="last, best (on clean validation images) or ema (their average); "
        "by default the average if the run keeps one, else the last."
    ),
]


def process_number() -> str:
    """Return the rank of this process among those that `torchrun` started; "0" if it is alone."""
    alone = os.environ.get("WORLD_SIZE", "1").strip() in ("", "1")
    return "0" if alone else os.environ.get("RANK", "0")


def comma_separated(text: str) -> list[str]:
    """Split "a,b,c" into its words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def check_json_target(path: Path | None, *keys: str) -> None:
    """Raise ValueError if the result of a command cannot or must not be written to `path`.

    An existing file must be empty or hold such a result: an object with `keys`, or a list of such
    objects. Devices, pipes and None (no target) are accepted.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path}: a folder; give --json the name of a file")
    if path.exists() and not path.is_file():
        return
    if path.is_file() and path.stat().st_size and not _holds(path, keys):
        raise ValueError(f"{path}: exists, and is not such a result; give another --json")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; make it, or give another --json")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be written to ({error.strerror}); give another --json"
        ) from None


def _holds(path: Path, keys: tuple[str, ...]) -> bool:
    from advprop.files.parsing import parse_json

    try:
        value = parse_json(path.read_bytes())
    except ValueError:
        return False
    if isinstance(value, list):
        value = value[0] if value else None
    return isinstance(value, dict) and all(key in value for key in keys)


def say(text: str, *, err: bool = False) -> None:
    """Print `text` with its control characters escaped, on standard error if `err`."""
    from advprop.files.parsing import printable  # a tenth of a second to import

    typer.echo(printable(text), err=err)
