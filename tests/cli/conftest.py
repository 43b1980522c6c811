"""The command line in this process: the same code from the arguments to the exit code."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
from command_line import Cli, Ended
from PIL import Image

from advprop.cli.main import run


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["advprop", *map(str, arguments)])
        capfd.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                run()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            else:
                code = 0
        captured = capfd.readouterr()
        return Ended(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty small colour pictures in two classes: mostly red, mostly blue."""
    root = tmp_path / "photos"
    for name, colour in (("blue", (20, 30, 200)), ("red", (200, 30, 20))):
        (root / name).mkdir(parents=True)
        for number in range(20):
            shade = tuple(min(255, channel + 2 * number) for channel in colour)
            Image.new("RGB", (40, 30), shade).save(root / name / f"{number:02}.png")
    return root
