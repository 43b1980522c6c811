"""Build models by name: a small residual network, and all architectures of timm."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import timm
from timm.models import build_model_with_cfg, get_pretrained_cfg, split_model_name_tag
from torch import nn

from advprop.files.parsing import first_line
from advprop.models.small_resnet import SmallResNet
from advprop.models.standardize import Standardized, standardized
from advprop.models.weights import zero_classifier

SMALL_RESNET = "small_resnet"
NO_OPTIONS = {
    name
    for function in (timm.create_model, build_model_with_cfg)
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD
} | {"image_size", "mean", "std"}
"""Arguments that are not options of architectures; timm would open or fetch files for some."""
# the errors of architectures for an unsuitable value of an option
_BUILD_ERRORS = (TypeError, ValueError, AssertionError, LookupError, AttributeError, RuntimeError)


def build_model(
    name: str,
    *,
    num_classes: int,
    in_chans: int,
    image_size: tuple[int, int] | None = None,
    pretrained: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **options: Any,
) -> Standardized:
    """Return a model, with standardisation, for images in [0, 1] of shape [batch, in_chans, H, W].

    `name` is "small_resnet" or a model of timm, and `options` are passed to the architecture.
    `image_size`, (height, width), is only passed to architectures built for a fixed size. `mean`
    and `std` default to those of timm's `pretrained_cfg`; "small_resnet" requires them. Raises
    ValueError for an unknown name or option, unsuitable values, or if pretrained weights do not
    exist or cannot be fetched.
    """
    for count, value in (("num_classes", num_classes), ("in_chans", in_chans)):
        if value < 1:
            raise ValueError(f"{count}={value}: must be at least 1")
    known = {"num_classes": num_classes, "in_chans": in_chans, **options}
    model: nn.Module
    if name == SMALL_RESNET:
        model = _small_resnet(known, pretrained=pretrained)
    else:
        model = _timm_model(name, known, image_size=image_size, pretrained=pretrained)
    return standardized(model, mean=mean, std=std)


def check_options(options: Iterable[str]) -> None:
    """Raise ValueError for arguments of timm that are no options of an architecture."""
    for name in options:
        if name in NO_OPTIONS:
            raise ValueError(
                f"options has {name}, which is no option of an architecture: leave it out "
                "(weights come by model.pretrained or model.checkpoint)"
            )


def is_timm(name: str) -> bool:
    """Return whether `timm.create_model` knows the architecture `name`."""
    return bool(timm.is_model(name))


def construction(model: nn.Module) -> tuple[str, dict[str, Any]]:
    """Return the name and options with which `build_model` rebuilds a plain `model` untrained.

    Raises ValueError if neither timm nor `build_model` made it.
    """
    if isinstance(model, SmallResNet):
        return SMALL_RESNET, model.options
    settings: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    name = settings.get("architecture")
    if not name or not is_timm(name):
        raise ValueError(
            f"{type(model).__name__} is no architecture of timm's and not small_resnet, so it "
            "could not be built again from a name: make it with timm.create_model or build_model"
        )
    recorded = getattr(model, "_model_args", {})
    # dropout rates only matter in training
    options = {key: value for key, value in recorded.items() if not key.endswith("_rate")}
    # the classifier may have been reset to another size
    num_classes = getattr(model, "num_classes", None)
    return name, options if num_classes is None else {**options, "num_classes": num_classes}


def _small_resnet(options: Mapping[str, Any], *, pretrained: bool) -> SmallResNet:
    if pretrained:
        raise ValueError(f"{SMALL_RESNET} has no pretrained weights: pretrained=false takes none")
    try:
        return SmallResNet(**options)
    except (TypeError, RuntimeError) as error:  # wrong types, or not enough memory
        raise ValueError(f"{SMALL_RESNET}: {_build_problem(error, options)}") from error


def _timm_model(
    name: str,
    options: dict[str, Any],
    *,
    image_size: tuple[int, int] | None,
    pretrained: bool,
) -> nn.Module:
    settings = timm_settings(name)
    if image_size is not None and settings.fixed_input_size:
        options = {"img_size": image_size, **options}
    if pretrained and not settings.has_weights:
        raise ValueError(
            f"{name}: timm has no pretrained weights of it; pretrained=false takes none"
        )
    model: nn.Module
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    except (OSError, *_BUILD_ERRORS) as error:
        raise ValueError(f"{name}: {_build_problem(error, options)}") from error
    if pretrained and options["num_classes"] != settings.num_classes:
        zero_classifier(model)  # timm does not load the weights for another number of classes
    return model


def _build_problem(error: Exception, options: Mapping[str, Any]) -> str:
    reason = first_line(error)
    unknown = re.search(r"unexpected keyword argument '(\w+)'", reason)
    if unknown and unknown[1] in options:
        return f"the architecture takes no option {unknown[1]!r}; leave it out"
    if isinstance(error, OSError):
        # hub libraries raise OSErrors for a missing connection, file or permission
        return f"no pretrained weights fetched ({reason}); check the connection, or do without"
    return f"cannot be built with {dict(options)} ({type(error).__name__}: {reason})"


def timm_settings(name: str) -> Any:
    """Return timm's `PretrainedCfg` of a model; raises ValueError if the name is unknown."""
    architecture, tag = split_model_name_tag(name)
    if not is_timm(architecture):
        near = difflib.get_close_matches(architecture, [SMALL_RESNET, *timm.list_models()])
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise ValueError(f"model {name!r} is unknown to timm and not {SMALL_RESNET}: {hint}")
    tags = [split_model_name_tag(full)[1] for full in timm.list_pretrained(architecture)]
    if tag and tag not in tags:
        raise ValueError(
            f"model {name!r}: {architecture} has no pretrained weights {tag!r}, "
            f"it has {', '.join(tags) or 'none'}"
        )
    return get_pretrained_cfg(name)
