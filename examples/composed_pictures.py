"""Pictures for detection and segmentation out of packages: MNIST digits on photographs.

Real handwritten digits, in a colour of their own, lie at random places and in random sizes on crops
of scikit-learn's two photographs. Test pictures have other digits than training pictures, and
another part of each photograph.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional as F

from advprop.data.corruptions import corrupted
from advprop.data.sets.builtin import load_builtin

DIGITS = (0, 2, 3)  # as classes 1, 2 and 3: 0 is the background
SHARES = (0.35, 0.6)  # of a digit's longer side in the picture's
CORRUPTIONS = {"noise": "gaussian_noise", "blur": "defocus_blur"}
SEVERITY = 3
TRAIN_SHARE = 0.6  # of the photographs, from the left

Boxes = list[dict[str, Tensor]]  # "boxes" [n, 4] as left, top, right, bottom in pixels; "labels"


@dataclass(frozen=True)
class Pictures:
    """Images in [0, 1], [count, 3, side, side], their boxes, and a class for each pixel."""

    images: Tensor
    boxes: Boxes
    masks: Tensor

    def subset(self, rows: Sequence[int]) -> Pictures:
        """The pictures of these numbers."""
        return Pictures(self.images[rows], [self.boxes[row] for row in rows], self.masks[rows])

    def batches(self, size: int, *, shuffled: bool = False) -> Iterator[Pictures]:
        """The pictures in batches of a size; where they are shuffled, in whole batches only."""
        count = len(self.images)
        order = (torch.randperm(count) if shuffled else torch.arange(count)).tolist()
        for start in range(0, count - size + 1 if shuffled else count, size):
            yield self.subset(order[start : start + size])

    def corrupted(self, corruption: str) -> Pictures:
        """The same pictures with one of `CORRUPTIONS`, by the extra `corruptions`."""
        how = {"corruption": CORRUPTIONS[corruption], "severity": SEVERITY}
        found = [corrupted(image, **how) for image in (self.images * 255).round().byte().numpy()]
        return replace(self, images=torch.from_numpy(np.stack(found)) / 255)


def compose(count: int, side: int, *, train: bool, seed: int = 0, most: int = 2) -> Pictures:
    """`count` pictures of `side` pixels squared, each with up to `most` digits; always the same."""
    draw = random.Random(f"{seed} {train}")
    photographs = []
    for pixels in load_sample_images().images:
        cut = int(TRAIN_SHARE * pixels.shape[1])
        part = pixels[:, :cut] if train else pixels[:, cut:]
        photographs.append(torch.from_numpy(part.copy()).permute(2, 0, 1) / 255)
    data = load_builtin("mnist5k")
    split = data.train if train else data.test
    pool = [
        (split.image(index)[0], DIGITS.index(int(label)) + 1)
        for index, label in enumerate(split.labels)
        if int(label) in DIGITS
    ]
    drawn = (
        _composed(_crop(draw.choice(photographs), side, draw), pool, draw.randint(1, most), draw)
        for _ in range(count)
    )
    images, boxes, masks = zip(*drawn, strict=True)
    return Pictures(torch.stack(images), [*boxes], torch.stack(masks))


def _composed(
    image: Tensor, pool: list[tuple[Tensor, int]], number: int, draw: random.Random
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """`image` with up to `number` digits, where they find room, their boxes and their mask."""
    side = image.shape[-1]
    mask, boxes, classes = torch.zeros(side, side, dtype=torch.int64), [], []
    for _ in range(number):
        digit, label = draw.choice(pool)
        ink = _resized(digit, round(side * draw.uniform(*SHARES)))
        height, width = ink.shape
        top, left = draw.randint(0, side - height), draw.randint(0, side - width)
        place = (slice(top, top + height), slice(left, left + width))
        if mask[place].any():
            continue  # would lie on another digit
        beneath = image[:, *place]
        colours = [torch.tensor([draw.random() for _ in range(3)]) for _ in range(4)]
        colour = max(colours, key=lambda one: float((one - beneath.mean((1, 2))).norm()))
        image[:, *place] = torch.lerp(beneath, colour[:, None, None], ink)
        mask[place][ink > 0.5] = label
        boxes.append([left, top, left + width, top + height])
        classes.append(label)
    found = {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(classes)}
    return image, found, mask


def _crop(photograph: Tensor, side: int, draw: random.Random) -> Tensor:
    """A square of 0.3 to 1 times the photograph's shorter side."""
    height, width = photograph.shape[1:]
    edge = round(min(height, width) * draw.uniform(0.3, 1))
    top, left = draw.randint(0, height - edge), draw.randint(0, width - edge)
    square = photograph[None, :, top : top + edge, left : left + edge]
    return F.interpolate(square, (side, side), mode="bilinear", antialias=True)[0].clamp(max=1)


def _resized(digit: Tensor, length: int) -> Tensor:
    """A digit's ink, bold, from 0 to 1, cut to its box, whose longer side has `length` pixels."""
    digit = F.max_pool2d(digit[None], kernel_size=3, stride=1, padding=1)[0]
    rows, columns = (digit > 0.3).nonzero().unbind(1)
    cut = digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    size = [max(1, round(length * edge / max(cut.shape))) for edge in cut.shape]
    return F.interpolate(cut[None, None], size, mode="bilinear")[0, 0]
