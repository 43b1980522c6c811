"""File and class names that are no UTF-8, or would steer a terminal."""

from __future__ import annotations

from advprop.cli.predict import _line
from advprop.exports.prediction import Prediction


def test_a_name_that_is_no_utf8_can_be_printed() -> None:
    path = b"caf\xe9 \xc3\xa9.png".decode(errors="surrogateescape")
    line = _line(Prediction(path=path, classes=(("cat", 0.5),)))
    assert line == "caf\\udce9 \u00e9.png: cat 50.0%"
    line.encode()  # as a strict standard output does


def test_a_name_cannot_steer_the_terminal() -> None:
    line = _line(Prediction(path="a\x1b[31m\nb.png", classes=(("\x1b]0;cat\x07", 0.5),)))
    assert line == "a\\x1b[31m\\nb.png: \\x1b]0;cat\\x07 50.0%"
