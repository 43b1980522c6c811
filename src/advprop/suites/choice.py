"""Chooses the suites to run and checks that the requested options are compatible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from advprop.suites.registry import DEFAULT_SUITES, SUITES
from advprop.suites.timm_subjects import names_timm_model

SOUP_SUITES = ("clean", "noise", "corruptions", "adversarial")
"""The default suites of branch soups."""


def choose_suites(
    name: str | Path, suites: Sequence[str] | None, folders: Mapping[str, Path], *, soups: bool
) -> Sequence[str]:
    """Return `suites`, or by default all that have images; raises ValueError for unusable ones."""
    has_images = not names_timm_model(name)
    if suites is None:
        usual = SOUP_SUITES if soups else DEFAULT_SUITES
        suites = list(dict.fromkeys([*(usual if has_images else ()), *folders]))
    if not (suites or has_images):
        raise ValueError(
            f"{name}: a model of timm's comes without images to test on; name some, as in "
            "--data clean=DIR"
        )
    _check_suites(suites, folders, has_images=has_images)
    return suites


def check_attacks(suites: Sequence[str], *, all_branches: bool, source: str | Path | None) -> None:
    """Raise ValueError if no suite uses an attack's option, or a suite lacks its source."""
    if all_branches and "adversarial" not in suites:
        raise ValueError(
            f"all branches are attacked in suite adversarial, which is not among "
            f"{', '.join(suites)}: name it too, or leave --all-branches out"
        )
    needing = [name for name in suites if SUITES[name].needs_source]
    if needing and source is None:
        raise ValueError(
            f'suite "{needing[0]}" shows another model\'s adversarial images: name its run or '
            "export, --source OTHER_RUN"
        )
    if source is not None and not needing:
        takers = ", ".join(name for name, suite in SUITES.items() if suite.needs_source)
        raise ValueError(
            f"source {source} is used by suite {takers} alone: add --suite {takers}, or leave "
            "--source out"
        )


def check_labels(suites: Sequence[str], *, multi_label: bool) -> None:
    """Raise ValueError for a suite of classes if the model's images have several labels."""
    if not multi_label:
        return
    if refused := [name for name in suites if not SUITES[name].takes_labels]:
        taken = ", ".join(name for name, suite in SUITES.items() if suite.takes_labels)
        raise ValueError(
            f"suite {refused[0]} asks for the one class of an image, this model tells several "
            f"labels: choose from {taken}"
        )


def _check_suites(suites: Sequence[str], folders: Mapping[str, Path], *, has_images: bool) -> None:
    if not suites:
        raise ValueError(f"no suite named: choose from {', '.join(SUITES)}")
    for suite in (*suites, *folders):
        if suite not in SUITES:
            raise ValueError(f'suite "{suite}" unknown: choose from {", ".join(SUITES)}')
    for suite in folders:
        if suite not in suites:
            raise ValueError(f'data for suite "{suite}", which is not among {", ".join(suites)}')
    for suite in suites:
        if (SUITES[suite].needs_folder or not has_images) and suite not in folders:
            raise ValueError(f'suite "{suite}" needs its images: --data {suite}=DIR')
