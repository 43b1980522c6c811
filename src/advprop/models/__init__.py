"""Models that take images in [0, 1]: a standardisation layer, then an architecture of timm."""
