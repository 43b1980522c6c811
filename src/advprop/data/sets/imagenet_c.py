"""ImageNet-C as published: DIR/CORRUPTION/SEVERITY/CLASS/images, which are not resized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from advprop.data.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS
from advprop.data.listing.classes import list_classes, same_name, shortened
from advprop.data.listing.walking import child_folders
from advprop.data.reading import image_size
from advprop.data.sets.stored import StoredSplit

_LAYOUT = "CORRUPTION/SEVERITY/CLASS/images, as in gaussian_noise/1/n01440764/"


@dataclass(frozen=True, kw_only=True)
class ImageNetC:
    """A folder of corrupted images with a checked layout; `split` lists the images."""

    root: Path
    class_names: tuple[str, ...]
    channels: int

    def split(self, corruption: str, severity: int) -> StoredSplit:
        """Return the images of one corruption and severity; raises ValueError if there are none."""
        folder = self.root / corruption / str(severity)
        classes = list_classes(folder)
        label_of = {same_name(name): label for label, name in enumerate(self.class_names)}
        paths = tuple(chain.from_iterable(classes.values()))
        width, height = image_size(folder / paths[0])
        return StoredSplit(
            root=folder,
            paths=paths,
            labels=torch.tensor(
                [label_of[same_name(name)] for name in classes for _ in classes[name]]
            ),
            image_shape=(self.channels, height, width),
        )


def is_imagenet_c(root: Path, class_names: Sequence[str]) -> bool:
    """Return whether `root` holds folders of corruptions rather than of classes.

    A class may have a corruption's name, as "fog". Raises OSError if `root` is no folder.
    """
    known = {*CORRUPTIONS, *EXTRA_CORRUPTIONS}
    return any(
        folder.name in known
        and (folder.name not in class_names or any(f.name.isdigit() for f in child_folders(folder)))
        for folder in child_folders(root)
    )


def check_imagenet_c(
    root: Path,
    *,
    class_names: Sequence[str],
    channels: int,
    corruptions: Sequence[str],
    severities: Sequence[int],
) -> ImageNetC:
    """Return the set in `root` after checking the folders of all `corruptions` and `severities`.

    Raises OSError if `root` is no folder, and ValueError if a corruption, severity or class is
    missing, or a class is unknown to the model.
    """
    if missing := [name for name in corruptions if not (root / name).is_dir()]:
        raise ValueError(
            f"{root} lacks {len(missing)} of {len(corruptions)} corruptions ({shortened(missing)}):"
            f" add them (the layout is {_LAYOUT}), or name those to test in evaluation.corruptions"
        )
    wanted = [root / name / str(severity) for name in corruptions for severity in severities]
    if absent := [str(f.relative_to(root)) for f in wanted if not f.is_dir()]:
        raise ValueError(
            f"{root} lacks {len(absent)} of {len(wanted)} severities ({shortened(absent)}): add "
            f"them (the layout is {_LAYOUT}), or name those to test in "
            "evaluation.corruption_severities"
        )
    for folder in wanted:
        _check_classes(folder, class_names)
    return ImageNetC(root=root, class_names=tuple(class_names), channels=channels)


def _check_classes(folder: Path, class_names: Sequence[str]) -> None:
    found = {same_name(path.name) for path in child_folders(folder)}
    class_names = [same_name(name) for name in class_names]
    if not found:
        raise ValueError(f"{folder} holds no folders of classes: the layout is {_LAYOUT}")
    if unknown := sorted(found - set(class_names)):
        raise ValueError(
            f"{folder} has {len(unknown)} classes that the model does not know "
            f"({shortened(unknown)}); it knows {shortened(class_names)}"
        )
    if missing := sorted(set(class_names) - found):
        raise ValueError(
            f"{folder} lacks {len(missing)} of the model's {len(class_names)} classes "
            f"({shortened(missing)}): unpack the set anew, errors on a part of the classes cannot "
            "be compared"
        )
