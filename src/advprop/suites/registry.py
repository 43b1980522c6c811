"""The suites by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from advprop.suites import standard
from advprop.suites.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Suite:
    """`run` tests and returns plain data, `NAME_accuracy` and `images` among it.

    `needs_folder` tells a suite whose images the caller must name, since no run has them.
    """

    run: Callable[[Trial], dict[str, Any]]
    needs_folder: bool = False


SUITES: dict[str, Suite] = {
    "clean": Suite(run=standard.clean),
    "noise": Suite(run=standard.noise),
    "adversarial": Suite(run=standard.adversarial),
}

DEFAULT_SUITES = ("clean", "noise", "adversarial")
