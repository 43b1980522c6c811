"""The suites by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from advprop.suites import attacks, standard
from advprop.suites.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Suite:
    """`run` tests and returns plain data, `NAME_accuracy` and `images` among it.

    `needs_folder` tells a suite whose images the caller must name, since no run has them;
    `needs_source` one that takes adversarial images from another model.
    """

    run: Callable[[Trial], dict[str, Any]]
    needs_folder: bool = False
    needs_source: bool = False


SUITES: dict[str, Suite] = {
    "clean": Suite(run=standard.clean),
    "noise": Suite(run=standard.noise),
    "adversarial": Suite(run=attacks.adversarial),
    "autoattack": Suite(run=attacks.autoattack),
    "transfer": Suite(run=attacks.transfer, needs_source=True),
}

DEFAULT_SUITES = ("clean", "noise", "adversarial")
