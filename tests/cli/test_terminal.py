"""Names that anybody may have chosen do nothing to a terminal."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import advprop
from advprop.cli.options import say
from advprop.cli.predict import _line
from advprop.cli.tables import print_results
from advprop.exports.prediction import Prediction
from advprop.files.parsing import printable
from advprop.results.summary import summarise
from advprop.training.progress import TrainingProgress

EVIL = "\x1b]0;owned\x07[red]:smile:\u202egnp\x9b2J\r"
SHOWN = r"\x1b]0;owned\x07[red]:smile:\u202egnp\x9b2J\r"


@pytest.mark.parametrize(
    "text",
    ["K\u00e4tzchen", "\u72ac", "\U0001f469\u200d\U0001f52c", "\u0939\u093f", "\u05d0", "a\tb\nc"],
)
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == text


def test_what_a_terminal_obeys_is_escaped() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("a\nb", lines=False) == r"a\nb"
    assert printable(EVIL + "\udce9").isprintable()


def test_names_are_escaped_wherever_they_are_printed(capfd: pytest.CaptureFixture[str]) -> None:
    row = {"seed": 0, "clean_accuracy": 0.5, "total_passes": 1.0, "train_seconds": 1.0}
    runs = [{**row, "method": method} for method in ("vanilla", EVIL)]
    print_results({"recipe": EVIL, "runs": runs, "summary": summarise(runs)})
    say(EVIL)
    say(EVIL, err=True)
    say(_line(Prediction(path=f"{EVIL}\n.png", classes=((EVIL, 0.5),))))
    progress = TrainingProgress(
        total_steps=1, num_epochs=1, done=0, batch_size=1, passes_per_image=1.0, quiet=False
    )
    with progress:
        kind = {"loss": 1.0, "accuracy": 0.5}
        entry = {"step": 1, "epoch": 1, "train": {EVIL: kind}, "perturbation": None}
        progress.epoch({**entry, "validation_accuracy": None, "images_per_second": 1.0})
    printed = capfd.readouterr()
    for text in (printed.out, printed.err):
        assert text.replace("\n", "").isprintable()
        assert "[red]:smile:" in text
    assert r"\r\n.png: " in printed.out


def test_commands_print_by_one_function_alone() -> None:
    """Tables are printed by rich, with their names escaped."""
    for path in (Path(advprop.__file__).parent / "cli").glob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        names = {ast.unparse(node.func) for node in tree if isinstance(node, ast.Call)}
        assert "typer.echo" not in names or path.name == "options.py"
        assert "print" not in names
