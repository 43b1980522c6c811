"""Auxiliary branches: normalisation layers of their own for each kind of images."""
