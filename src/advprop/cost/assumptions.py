"""What hours are reckoned with; both are assumptions, which the user replaces."""

A100_TFLOPS = 312.0
"""An A100's dense matrix products in bfloat16, 10^12 FLOPs a second, by its data sheet."""

UTILISATION = 0.2
"""The share of that rate which training is taken to reach, about ResNet-50's."""

DEPTHWISE_UTILISATION = 0.02
"""The same for nets with depthwise convolutions, which wait for memory: EfficientNet-B0's."""

PUBLISHED = (
    "NVIDIA's published A100 runs come to 19 % with ResNet-50, 3 % with EfficientNet-B4, "
    "2 % with B0"
)
"""From its README of each model: images a second times our FLOPs an image, over 312 TFLOP/s."""
