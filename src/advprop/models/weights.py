"""Load weights from a local file without running code from it."""

from __future__ import annotations

import argparse
import math
import pickle
import re
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from timm.models import adapt_input_conv
from torch import Tensor, nn

from advprop.models.loading import differences, load_exactly, read_torch_file
from advprop.models.standardize import Standardized, for_channels

_NESTED = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema"),
    *("state_dict", "model_state_dict", "model", "net", "params"),
)
_BRANCHES = ".branches."
_COUNTER = "num_batches_tracked"


def load_local_weights(model: nn.Module, path: str | Path, *, new_classifier: bool = True) -> None:
    """Load a model's weights from `path`: a safetensors or torch file, or a folder with either.

    Checkpoints of timm and others are unpacked, preferably their averaged weights. Prefixes and
    other parts of wrappers are dropped; of advprop's branches only the clean one is kept. Weights
    for another image size, or with an architecture's original names, are converted as in timm, and
    so are weights for other input channels, with a warning. A classifier of another size starts at
    zero, with a warning; without `new_classifier`, as for a model to be tested, it is an error like
    any other tensor of another shape. Warns if the file has another mean or std than a
    `Standardized` model. Raises ValueError if the file is damaged or does not fit, and
    FileNotFoundError if it is missing.
    """
    path = weights_file(Path(path))
    plain = model.model if isinstance(model, Standardized) else model
    found = _clean_branch(_unpacked(_read(path), path))
    weights = _converted(_part_of(found, plain, path), plain)
    weights |= _input_weights(weights, plain, path)
    own = plain.state_dict()
    head = classifier_keys(plain) if new_classifier else []
    fresh = [key for key in head if key not in weights or own[key].shape != weights[key].shape]
    # missing counters of batches are allowed, as in torch
    kept = [*fresh, *(key for key in own if key.endswith(_COUNTER) and key not in weights)]
    load_exactly(
        plain,
        weights | {key: own[key] for key in kept},
        source=str(path),
        remedy="name the model that they were trained in, with its options",
    )
    if fresh:
        zero_classifier(plain)
        warnings.warn(
            f"{path}: the classifier has other classes there; {', '.join(fresh)} start at zero",
            stacklevel=2,
        )
    if isinstance(model, Standardized):
        _compare_statistics(found, model, path)


def weights_file(path: Path) -> Path:
    """Return `path`, or the file of weights in it; raises FileNotFoundError if there is none."""
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
        # training scripts of timm and torchvision store their arguments beside the weights
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


def _part_of(weights: Mapping[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the weights of `model`: those with the prefix that matches most of the model's names.

    Wrappers put prefixes before names ("module.", "_orig_mod.", "backbone."), and add parts of
    their own (a normaliser, a loss, a copy for an attacker). Raises ValueError if several models
    match equally.
    """
    own = model.state_dict().keys()
    counts: Counter[str] = Counter()
    for key in weights:
        words = key.split(".")
        for cut in range(len(words)):
            if ".".join(words[cut:]) in own:
                counts["".join(f"{word}." for word in words[:cut])] += 1
    most = max(counts.values(), default=0)
    prefixes = sorted((prefix for prefix in counts if counts[prefix] == most), key=len) or [""]
    first, *others = (
        {key.removeprefix(prefix): weights[key] for key in weights if key.startswith(prefix)}
        for prefix in prefixes
    )
    if most > len(own) / 2 and any(
        other.keys() != first.keys()
        or not all(torch.equal(first[key], other[key]) for key in first)
        for other in others
    ):
        raise ValueError(
            f"{path}: holds several models, {' and '.join(map(repr, prefixes))} before the names: "
            "save the state_dict of one alone"
        )
    return first


def _converted(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return `weights`, converted by the architecture's function in timm if that fits better."""

    def misfits(state: Mapping[str, Tensor]) -> int:
        return sum(map(len, differences(model, state).values()))

    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    if not misfits(weights) or not name or not timm.is_model(name):
        return weights
    module = sys.modules[timm.model_entrypoint(name).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    try:
        with warnings.catch_warnings():  # torch warns about the way timm resizes
            warnings.simplefilter("ignore")
            converted = dict(convert(dict(weights), model)) if convert else weights
    except Exception:  # the function does not expect weights of another model
        return weights
    tensors = all(isinstance(value, Tensor) for value in converted.values())
    return converted if tensors and misfits(converted) < misfits(weights) else weights


def _input_weights(
    weights: Mapping[str, Tensor], model: nn.Module, path: Path
) -> dict[str, Tensor]:
    """Return the first layers' weights, adapted as in timm if made for other input channels."""
    settings = getattr(model, "pretrained_cfg", None) or {}
    names, adapted = settings.get("first_conv") or "stem.0", {}
    modules = dict(model.named_modules())
    for name in (names,) if isinstance(names, str) else names:
        layer, found = modules.get(name), weights.get(f"{name}.weight")
        if not isinstance(layer, nn.Conv2d) or found is None or found.ndim != 4:
            continue
        planes, wanted = found.shape[1], int(getattr(model, "in_chans", layer.in_channels))
        # a stem that moves pixels into channels has several channels for each of the image
        given = planes * wanted * layer.groups // layer.in_channels
        if given == wanted or given not in (1, 3):
            continue
        if planes != given and (wanted != 1 or planes % given):
            continue  # timm adapts such a stem only to grey; load_exactly reports the shape
        adapted[f"{name}.weight"] = adapt_input_conv(wanted, found, base_chans=given)
        warnings.warn(
            f"{path}: {name} takes {given} channels there and {wanted} here; its weights are "
            "adapted as timm adapts its own",
            stacklevel=3,
        )
    return adapted


def _compare_statistics(found: Mapping[str, Tensor], model: Standardized, path: Path) -> None:
    """Warn if the weights were trained with another mean or std."""
    for name, mean in found.items():
        std = found.get(re.sub(r"mean$", "std", name))
        if not re.search(r"(^|[._])mean$", name) or std is None or name.endswith("running_mean"):
            continue
        theirs = [mean.flatten().tolist(), std.flatten().tolist()]
        ours = [model.mean.flatten().tolist(), model.std.flatten().tolist()]
        if all(theirs) and not all(
            math.isclose(there, here, abs_tol=1e-3)
            for values, own in zip(theirs, ours, strict=True)
            for there, here in zip(for_channels(values, len(own)), own, strict=True)
        ):
            numbers = [[round(number, 4) for number in values] for values in theirs]
            warnings.warn(
                f"{path}: trained behind mean {numbers[0]} and std {numbers[1]}, which are not the "
                f"model's: set model.mean and model.std",
                stacklevel=3,
            )
            return


def _clean_branch(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the clean branch's weights from a run with branches; other weights unchanged."""
    clean = {}
    for key, value in weights.items():
        owner, branches, rest = key.partition(_BRANCHES)
        if branches:
            if rest == "clean.token":  # branches store the token as one dimension
                clean[owner] = value.view(1, 1, -1)
            elif rest.startswith("clean."):
                clean[f"{owner}.{rest.removeprefix('clean.')}"] = value
        else:
            clean[key] = value
    return clean


def zero_classifier(model: nn.Module) -> None:
    """Set a new classifier on pretrained layers to zero, so that no class is preferred at first.

    The initial logits of EfficientNets with few classes are so large that short trainings suffer.
    """
    state = model.state_dict()
    for key in classifier_keys(model):
        state[key].zero_()


def classifier_keys(model: nn.Module) -> list[str]:
    """Return the names of the last layer's tensors in the state dict."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or "fc"
    names = (names,) if isinstance(names, str) else tuple(names)
    return [key for key in model.state_dict() if any(key.startswith(f"{name}.") for name in names)]
