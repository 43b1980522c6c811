"""Estimates the cost of a run from its configuration: the function behind `advprop plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from advprop.config.run import RunConfig
from advprop.cost.assumptions import A100_TFLOPS, typical_utilisation
from advprop.cost.memory import memory_cost
from advprop.cost.step import empty_batch, step_cost
from advprop.data.batches.loaders import images_per_process, num_train_batches
from advprop.data.found import found_in
from advprop.data.splits import ImageData
from advprop.methods.facts import TrainingFacts
from advprop.models.standardize import Standardized
from advprop.models.trial import RUN_ERRORS
from advprop.training.engine import prepare_model
from advprop.training.micro_batches import part_size

VANILLA = "vanilla"


@dataclass(frozen=True, kw_only=True)
class DataSizes:
    """The sizes of a data set that determine cost; `image_shape` is (channels, height, width)."""

    num_images: int
    num_classes: int
    image_shape: tuple[int, int, int]


def plan(
    config: RunConfig,
    *,
    devices: int = 1,
    device_tflops: float = A100_TFLOPS,
    utilisation: float | None = None,
    num_images: int | None = None,
    num_classes: int | None = None,
    methods: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the estimated cost of a run, of vanilla training with its settings, and of `methods`.

    FLOPs count a multiplication and an addition as two; sizes are in bytes, on one of `devices`.
    `device_tflops` (10^12 FLOPs per second) and `utilisation` (a share of it; by default that of
    published runs of similar networks) are assumptions that affect only the hours. Nothing is
    trained, and no weights are downloaded; `num_images` and `num_classes` replace the sizes of the
    data, which may be missing. "unsuitable" maps methods that cannot train this model to reasons.

    Raises ValueError if an assumption is out of bounds, sizes are unknown, `devices` cannot share
    the batch, or the model cannot be built or run.
    """
    settings = config.training
    sizes, data = data_sizes(config, num_images=num_images, num_classes=num_classes)
    if utilisation is None:
        utilisation = typical_utilisation(_empty_model(config, sizes))
    _check_rates(device_tflops, utilisation)
    each = images_per_device(config, sizes.num_images, devices)
    share = each // settings.gradient_accumulation
    steps_per_epoch = num_train_batches(sizes.num_images, batch_size=settings.batch_size)
    images_per_step = each * devices
    rates = {"device_tflops": device_tflops, "utilisation": utilisation}
    costs, unsuitable = _method_costs(config, methods, sizes, share, devices)
    _add_totals(costs, steps_per_epoch * images_per_step, settings.num_epochs, rates)
    return {
        "recipe": config.recipe,
        "model": config.model.name,
        "method": config.method.kind,
        "data": asdict(sizes),
        "data_found": None if data is None else found_in(data).to_json(),
        "epochs": settings.num_epochs,
        "batch_size": images_per_step,
        "images_per_device": share,
        "steps_per_epoch": steps_per_epoch,
        "steps": steps_per_epoch * settings.num_epochs,
        "precision": settings.mixed_precision,
        "optimizer": settings.optimizer,
        "assumptions": {"devices": devices, **rates},
        "methods": costs,
        "unsuitable": unsuitable,
    }


def images_per_device(config: RunConfig, num_images: int, devices: int) -> int:
    """Return the images of a step on each of `devices`, for a set of `num_images`.

    Raises ValueError if the devices, or the parts in which gradients accumulate, cannot share the
    batch equally.
    """
    settings = config.training
    if devices < 1:
        raise ValueError(f"devices={devices}: must be at least 1")
    parts = devices * settings.gradient_accumulation
    if settings.batch_size % parts:
        accumulated = (
            f" with gradient_accumulation {settings.gradient_accumulation}"
            if settings.gradient_accumulation > 1
            else ""
        )
        reason = "is smaller than" if settings.batch_size < parts else "cannot be divided by"
        raise ValueError(
            f"batch_size={settings.batch_size} {reason} {devices} devices{accumulated}: it counts "
            f"the images of all of them, take a multiple of {parts} (training.batch_size)"
        )
    each = images_per_process(
        num_images, settings.batch_size, devices, config.data.sampling, config.data.mixing
    )
    part_size(each, settings.gradient_accumulation)
    return each


def _check_rates(device_tflops: float, utilisation: float) -> None:
    if not 0 < device_tflops < float("inf"):
        raise ValueError(f"device_tflops {device_tflops}: give a number above 0")
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation {utilisation}: give a share above 0, at most 1")


def _add_totals(
    methods: dict[str, Any], images: int, num_epochs: int, rates: Mapping[str, float]
) -> None:
    """Add to each method's costs those of an epoch of `images` and of the whole run."""
    for cost in methods.values():
        epoch = cost["flops"]["per_image"] * images
        cost["flops"] |= {"per_epoch": epoch, "total": epoch * num_epochs}
        cost["times_vanilla"] = cost["flops"]["per_image"] / methods[VANILLA]["flops"]["per_image"]
        speed = rates["device_tflops"] * 1e12 * rates["utilisation"]
        cost["device_hours"] = cost["flops"]["total"] / speed / 3600


def data_sizes(
    config: RunConfig, *, num_images: int | None = None, num_classes: int | None = None
) -> tuple[DataSizes, ImageData | None]:
    """Return the sizes of a run's data, and the data if they had to be loaded, else None.

    Each size is the given or configured one; else, if the images are missing, that of
    `data.expected_sizes`; else that of the loaded data. Raises ValueError if the data cannot be
    loaded.
    """
    _check_given(num_images, num_classes)
    data = config.data
    shape, num_images = data.image_shape, num_images or data.num_train
    if data.expected_sizes is not None and not data.is_here:
        images, classes = data.expected_sizes
        num_images, num_classes = num_images or images, num_classes or classes
    loaded = None
    if shape is None or num_images is None or num_classes is None:
        try:
            loaded = data.load(config.seed)
        except (ValueError, OSError, ImportError) as error:
            raise ValueError(f"{error}; or give their sizes: --images N --classes N") from None
        data.task(loaded, config.training.label_smoothing)  # raises if settings do not fit the data
        shape = loaded.image_shape
        num_images = num_images or len(loaded.train)
        num_classes = num_classes or loaded.num_classes
    sizes = DataSizes(num_images=num_images, num_classes=num_classes, image_shape=shape)
    return sizes, loaded


def _check_given(num_images: int | None, num_classes: int | None) -> None:
    for name, value in (("images", num_images), ("classes", num_classes)):
        if value is not None and value < 1:
            raise ValueError(f"{name} {value}: give a number of at least 1")


def _method_costs(
    config: RunConfig, methods: Sequence[str], sizes: DataSizes, share: int, devices: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the costs of vanilla, the run's method and `methods`, and why any method has none."""
    own = {VANILLA, config.method.kind}
    costs, unsuitable = dict[str, Any](), dict[str, str]()
    for name in dict.fromkeys((VANILLA, *methods, config.method.kind)):
        try:
            costs[name] = _method_cost(config.with_method(name), sizes, share, devices)
        except ValueError as error:
            if name in own:
                raise
            unsuitable[name] = str(error)
    return costs, unsuitable


def _method_cost(config: RunConfig, sizes: DataSizes, images: int, devices: int) -> dict[str, Any]:
    """Return the costs of one method that do not depend on the speed of devices."""
    settings, method = config.training, config.method.build()
    empty = _empty_model(config, sizes)
    plain = _num_parameters(empty)
    if method.auxiliary:
        config.model.add_branches(empty, method.auxiliary)
    method = method.on_devices(empty, devices)
    model = prepare_model(empty, settings, torch.device("meta"))
    half = settings.mixed_precision != "no"
    try:
        batch = empty_batch(images, sizes.image_shape)
        step = step_cost(model, method, batch, float_bytes=2 if half else None)
    except RUN_ERRORS as error:
        raise ValueError(
            f"{config.model.name} cannot be run on {images} images of shape {sizes.image_shape} "
            f"({type(error).__name__}: {error}): change data.image_size or model.name"
        ) from error
    return {
        "passes_per_image": method.passes_per_image,
        "training_passes": step.training_passes,
        "attack_passes": step.attack_passes,
        "flops": step.flops,
        "parameters": {"plain": plain, "with_branches": _num_parameters(model)},
        "memory": memory_cost(model, settings, activations=step.activation_bytes, devices=devices),
        "bytes_on_disk": method.bytes_on_disk(
            TrainingFacts(num_images=sizes.num_images, image_shape=sizes.image_shape)
        ),
    }


def _empty_model(config: RunConfig, sizes: DataSizes) -> Standardized:
    """Return the run's model on the meta device, without branches or pretrained weights."""
    with torch.device("meta"):
        return config.model.without_weights().build(
            num_classes=sizes.num_classes, image_shape=sizes.image_shape
        )


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
