"""What only a GPU shows: images a second by precision, layout and compiler, and hidden waits.

    python benchmarks/gpu.py [--quick]

Without CUDA one row says so. A step that waits for the device (`.item()`, a boolean of a tensor)
leaves it idle; torch raises an error at each such place while one step of every method runs.
Throughput is that of AdvProp with one attack step, ResNet-50, 64 images of 224 pixels; seconds are
the clock's, with the device done. The first steps, which compile, are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from measuring import Row, interleaved
from showing import show
from subjects import LAYOUTS, Subject, method_of
from torch import Tensor

from advprop.config.methods import METHODS
from advprop.methods.base import Context, Method
from advprop.randomness import ImageStreams
from advprop.training.engine import compile_model

RESNET50 = Subject(architecture="resnet50", image_size=224, batch_size=64)
SMALL = Subject(architecture="resnet18", image_size=64, batch_size=8)
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SCALE = 2.0**12
"""Of the loss in fp16, as a gradient scaler would have it."""


def device_step(
    subject: Subject,
    method: Method,
    device: torch.device,
    *,
    precision: str = "fp32",
    compiled: bool = False,
) -> Callable[[], object]:
    """One step on `device`, with images that are there already."""
    model = subject.model(method.auxiliary).to(device)
    batch = subject.batch(method).to(device, memory_format=LAYOUTS[subject.layout])
    indices, dtype = batch.indices, PRECISIONS[precision]
    if compiled:
        compile_model(model)

    def backward(loss: Tensor) -> None:
        (loss * SCALE if precision == "fp16" else loss).backward()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        streams = ImageStreams.for_batch(0, 0, indices)
        context = Context(progress=0.25, generator=streams, backward=backward)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            method.forward_backward(model, batch, context)

    return step


def waits(device: torch.device, name: str) -> Row:
    """Does a step of the method called `name` wait for the device?"""
    fields: dict[str, Any] = {"case": f"{SMALL}, hidden waits", "what": name}
    try:
        step = device_step(SMALL, method_of(name, 1), device)
        step()  # the first one may choose algorithms and load libraries
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        step()
    except (ValueError, TypeError, KeyError) as error:
        return Row(**fields, note=f"not run: {error}")
    except RuntimeError as error:
        return Row(**fields, value=1.0, unit="or more", target=0.0, note=str(error)[:120])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Row(**fields, value=0.0, unit="", target=0.0)


def when_done() -> float:
    """The clock, once the device has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def throughput(device: torch.device, quick: bool) -> Iterator[Row]:
    """AdvProp in each precision and layout, eager and compiled, against fp32 in channels_last."""
    method, repeats = method_of("advprop", 1), 5 if quick else 30
    plain, case = "fp32, channels_last", f"{RESNET50.architecture}, {RESNET50.batch_size} images"
    cases = {
        f"{precision}, {layout}": device_step(
            replace(RESNET50, layout=layout), method, device, precision=precision
        )
        for precision in PRECISIONS
        for layout in LAYOUTS
    }
    if not quick:
        for precision in PRECISIONS:
            cases[f"{precision}, channels_last, compiled"] = device_step(
                RESNET50, method, device, precision=precision, compiled=True
            )
    cases[vanilla := "vanilla, fp32, channels_last"] = device_step(
        RESNET50, method_of("vanilla"), device
    )
    times = interleaved(cases, repeats=repeats, clock=when_done)
    for name in cases:
        yield times.rate(name, RESNET50.batch_size, case=case, unit="images/s")
        if name not in (plain, vanilla):
            yield times.ratio(name, plain, f"{name}: seconds", case=case)
    target = 1.03 * (2 + 2 / 3)
    yield times.ratio(plain, vanilla, "advprop, K = 1", case=case, target=target)


def measure(quick: bool) -> Iterator[Row]:
    if not torch.cuda.is_available():
        yield Row(what="throughput and hidden waits", note="not run here: no GPU")
        return
    device = torch.device("cuda")
    yield from (waits(device, name) for name in METHODS)
    yield from throughput(device, quick)


if __name__ == "__main__":
    show(measure)
