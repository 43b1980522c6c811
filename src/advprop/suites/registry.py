"""The suites by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from advprop.suites import standard
from advprop.suites.corruptions import check_corruptions, corruptions
from advprop.suites.trial import Trial


def _read_images(trial: Trial) -> object:
    return trial.images


@dataclass(frozen=True, kw_only=True)
class Suite:
    """`run` tests and returns plain data, `NAME_accuracy` and `images` among it.

    `check` raises what is wrong with the trial's images, before anything is tested. `needs_folder`
    tells a suite whose images the caller must name, since no run has them.
    """

    run: Callable[[Trial], dict[str, Any]]
    check: Callable[[Trial], object] = _read_images
    needs_folder: bool = False


SUITES: dict[str, Suite] = {
    "clean": Suite(run=standard.clean),
    "noise": Suite(run=standard.noise),
    "adversarial": Suite(run=standard.adversarial),
    "corruptions": Suite(run=corruptions, check=check_corruptions),
}

DEFAULT_SUITES = ("clean", "noise", "adversarial")
