"""What all tests share: one thread, shape checks at run time, repeatable hypothesis."""

from __future__ import annotations

import sys
from pathlib import Path

import hypothesis
import torch
from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent))  # for `from tiny import ...` in every folder

# bit-equality holds at one thread count
torch.set_num_threads(1)

hypothesis.settings.register_profile(
    "advprop", deadline=None, derandomize=True, database=None, max_examples=25
)
hypothesis.settings.load_profile("advprop")

CHECKED = ["advprop.attacks", "advprop.methods", "advprop.threat_models", "advprop.shapes"]
install_import_hook(CHECKED, "shape_checks.checked")
