"""Runs: training into a folder, resuming there, and reading the folder back."""

from advprop.runs.training import train as train
