"""AlexNet's errors on ImageNet-C, by which the mean corruption error is normalised.

Top-1 errors averaged over the five severities, as published with ImageNet-C: Hendrycks and
Dietterich, ICLR 2019, and https://github.com/hendrycks/robustness.
"""

from __future__ import annotations

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
NUM_CLASSES = 1000
"""The number of classes of ImageNet-C, to which alone these errors apply."""
