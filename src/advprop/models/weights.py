"""Weights from a local file, read without running code from it."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from advprop.models.torch_files import read_torch_file

_NESTED = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")
_BRANCHES = ".branches."
_PREFIXES = ("module.", "_orig_mod.", "model.")
# of a Standardized model, and the counter of torch's AveragedModel
_NO_WEIGHTS = ("mean", "std", "n_averaged")


def load_local_weights(model: nn.Module, path: str | Path, *, new_classifier: bool = True) -> None:
    """Load a plain model's weights from `path`: safetensors, a torch file, or a folder of either.

    Checkpoints of timm and others are unpacked (the average of weights first), prefixes of
    wrappers dropped, branches of advprop's own reduced to the clean one. A classifier of another
    size is left out, named in a warning, and starts at zero; without `new_classifier`, as a model
    to be tested needs it, it is an error like any other tensor that does not fit. Raises ValueError
    for a file that is damaged or does not fit, FileNotFoundError for one that is not there.
    """
    path = weights_file(Path(path))
    weights = _plain_keys(_unpacked(_read(path), path), model)
    own = model.state_dict()
    reshaped = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    head = classifier_keys(model) if new_classifier else []
    problems = [
        f"{key} is {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in reshaped
        if key not in head
    ]
    missing = [key for key in own if key not in weights and key not in head]
    problems += [f"{key} is missing" for key in missing]
    problems += [f"{key} is unknown" for key in weights if key not in own]
    if problems:
        raise ValueError(
            f"{path}: {len(problems)} of {len(own)} tensors do not fit the architecture, as "
            f"{'; '.join(problems[:3])}: name the model that they were trained in"
        )
    fresh = [key for key in head if key in reshaped or key not in weights]
    if fresh:
        warnings.warn(
            f"{path}: the classifier has other classes there; {', '.join(fresh)} start at zero",
            stacklevel=2,
        )
    model.load_state_dict(weights | {key: own[key] for key in fresh})
    if fresh:
        zero_classifier(model)


def weights_file(path: Path) -> Path:
    """The file of weights in a folder, or that `path` is. FileNotFoundError: none there."""
    if path.is_dir():
        for name in ("model.safetensors", "pytorch_model.bin"):
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"{path}: no model.safetensors in this folder; name a file")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint; check the path")
    return path


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # plain data that training scripts of timm and torchvision put beside the weights
        with torch.serialization.safe_globals([argparse.Namespace]):
            return read_torch_file(path)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is None:
            raise ValueError(f"{path}: damaged, or no file of weights") from None
        raise ValueError(
            f"{path}: holds {foreign[1]} beside weights, which would run code when loaded: save "
            "the state_dict alone"
        ) from None
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged, or no file of weights ({error})") from None


def _unpacked(state: Any, path: Path) -> dict[str, Tensor]:
    for name in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
            break
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{path}: holds no weights (no mapping from names to tensors)")
    if not all(isinstance(value, Tensor) for value in state.values()):
        names = [name for name, value in state.items() if not isinstance(value, Tensor)]
        raise ValueError(f"{path}: {names[0]} is no tensor; save the state_dict alone")
    for name, value in state.items():
        if value.is_complex() or value.layout != torch.strided or value.is_meta:
            raise ValueError(f"{path}: {name} is complex, sparse or without values; save it dense")
    return {str(name): value for name, value in state.items()}


def _plain_keys(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    own = model.state_dict().keys()
    plain = {}
    for key, value in _clean_branch(weights).items():
        while key not in own and key.startswith(_PREFIXES):
            key = key.partition(".")[2]
        plain[key] = value
    return {key: value for key, value in plain.items() if key in own or key not in _NO_WEIGHTS}


def _clean_branch(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The plain model's weights from a run of advprop with branches; others as they are."""
    clean = {}
    for key, value in weights.items():
        owner, branches, rest = key.partition(_BRANCHES)
        if branches:
            if rest == "clean.token":  # lies flat there
                clean[owner] = value.view(1, 1, -1)
            elif rest.startswith("clean."):
                clean[f"{owner}.{rest.removeprefix('clean.')}"] = value
        else:
            clean[key] = value
    return clean


def zero_classifier(model: nn.Module) -> None:
    """Let a classifier that starts anew on pretrained layers start at zero: no class is preferred.

    EfficientNets' own start for few classes has logits so large that short trainings suffer.
    """
    state = model.state_dict()
    for key in classifier_keys(model):
        state[key].zero_()


def classifier_keys(model: nn.Module) -> list[str]:
    """The names of the last layer's tensors in the model's state."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or "fc"
    names = (names,) if isinstance(names, str) else tuple(names)
    return [key for key in model.state_dict() if any(key.startswith(f"{name}.") for name in names)]
