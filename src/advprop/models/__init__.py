"""Models that take images in [0, 1]: standardisation in front, timm's architectures behind."""
