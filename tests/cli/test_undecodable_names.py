"""File names in another encoding than UTF-8."""

from __future__ import annotations

from advprop.cli.predict import _line
from advprop.prediction import Prediction


def test_a_name_that_is_no_utf8_can_be_printed() -> None:
    path = b"caf\xe9 \xc3\xa9.png".decode(errors="surrogateescape")
    line = _line(Prediction(path=path, classes=(("cat", 0.5),)))
    assert line == "caf\\udce9 \u00e9.png: cat 50.0%"
    line.encode()  # as a strict standard output does
