"""A small residual network for small images, fast enough for one CPU thread."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from advprop.shapes import Logits

Features = Float[Tensor, "batch channels height width"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to the (projected) input."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, features: Features) -> Features:
        """Return [batch, out_channels, H / stride, W / stride] of [batch, in_channels, H, W]."""
        residual = F.relu(self.bn1(self.conv1(features)))
        return F.relu(self.bn2(self.conv2(residual)) + self.shortcut(features))


class SmallResNet(nn.Module):
    """A residual network of three stages with `width`, 2 and 4 times `width` channels.

    It takes [batch, in_chans, H, W] with H and W of about 8 to 64 pixels. `stem_stride` is the
    stride of the first convolution: 2 divides the cost by four, 1 suits images below 16 pixels; the
    second stage has stride 2. `drop_rate` is the dropout probability before the classifier.
    `options` holds the other arguments; the attributes `num_classes`, `in_chans`, `num_features`
    and the methods `forward_features`, `forward_head` are as in timm. Raises ValueError for sizes
    out of bounds.
    """

    def __init__(
        self,
        num_classes: int,
        in_chans: int = 1,
        width: int = 16,
        drop_rate: float = 0.0,
        stem_stride: int = 2,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "width": width,
            "stem_stride": stem_stride,
        }
        for name, size in self.options.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name}={size!r}: must be a whole number of at least 1")
        if not 0 <= drop_rate < 1:
            raise ValueError(f"drop_rate={drop_rate}: must be in [0, 1)")
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, 4 * width
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, width, 3, stem_stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.stages = nn.Sequential(
            ResidualBlock(width, width, stride=1),
            ResidualBlock(width, 2 * width, stride=2),
            # stride 2 would reduce 28 pixels to 4x4: faster, but about 3 points less accurate
            ResidualBlock(2 * width, 4 * width, stride=1),
        )
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(self.num_features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, images: Features) -> Features:
        """Return the last stage's features, [batch, num_features, h, w]."""
        features: Features = self.stages(self.stem(images))
        return features

    def forward_head(self, features: Features) -> Logits:
        """Return logits from the last stage's features."""
        logits: Logits = self.fc(self.drop(features.mean(dim=(2, 3))))
        return logits

    def forward(self, images: Features) -> Logits:
        """Return logits, [batch, num_classes], of standardised images."""
        return self.forward_head(self.forward_features(images))
