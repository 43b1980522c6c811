"""`advprop plan`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from advprop.cli.options import RecipeArgument, SetOption, check_json_target
from advprop.cost.assumptions import A100_TFLOPS, PUBLISHED

ImagesOption = Annotated[
    int | None, typer.Option(help="Number of training images; by default that of the data.", min=1)
]
ClassesOption = Annotated[
    int | None, typer.Option(help="Number of classes; by default that of the data.", min=1)
]
Row = tuple[str, Callable[[dict[str, Any]], str]]

_ELSEWHERE = "--devices N plans for other machines."


def main(
    recipe: RecipeArgument,
    method: Annotated[
        str | None, typer.Option(help="Another method than the recipe's.", show_default=False)
    ] = None,
    devices: Annotated[
        int | None,
        typer.Option(help="Plan for this many other devices, which share each batch."),
    ] = None,
    device_tflops: Annotated[
        float | None,
        typer.Option(
            help=f"Assumed rate of a device, 10^12 FLOPs per second (by default {A100_TFLOPS:g})."
        ),
    ] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(help="Assumed share of that rate; by default that of similar networks."),
    ] = None,
    images: ImagesOption = None,
    classes: ClassesOption = None,
    settings: SetOption = None,
    json: Annotated[Path | None, typer.Option(help="Write the plan to this file.")] = None,
) -> None:
    """Estimate the cost of every method on this machine, or of one method on other devices."""
    from advprop.config.methods import METHODS
    from advprop.cost.planning import plan
    from advprop.cost.timing import minutes_here
    from advprop.files.json_files import write_json
    from advprop.recipes.resolve import resolve_run

    check_json_target(json, "assumptions", "methods")
    config = resolve_run(recipe, method=method, overrides=settings or [])
    here = devices is None and device_tflops is None and utilisation is None
    result = plan(
        config,
        devices=1 if devices is None else devices,
        device_tflops=A100_TFLOPS if device_tflops is None else device_tflops,
        utilisation=utilisation,
        num_images=images,
        num_classes=classes,
        methods=tuple(METHODS) if here and method is None else (),
    )
    if here:
        result |= minutes_here(config, result)
    _print_plan(result, config.start_lines(result["data_found"]))
    if json is not None:
        write_json(json, result)


def _print_plan(plan: dict[str, Any], start: list[str]) -> None:
    from rich.console import Console

    from advprop.files.parsing import printable

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(printable("\n".join(start) + "\n"))
    data, rates = plan["data"], plan["assumptions"]
    channels, height, width = data["image_shape"]
    console.print(
        f"{printable(plan['recipe'])}: {printable(plan['model'])}, "
        f"{channels} x {height} x {width}, "
        f"{data['num_classes']:,} classes\n"
        f"{plan['epochs']:,} epochs of {plan['steps_per_epoch']:,} steps, {plan['steps']:,} steps "
        f"in total; {plan['batch_size']:,} of {data['num_images']:,} images per step\n"
    )
    if "timed_here" in plan:
        console.print(_here_table(plan))
        console.print(_here_note(plan))
        return
    console.print(_table(plan))
    console.print(
        f"\nHours are not measured. They assume {rates['device_tflops']:g} TFLOP/s per device "
        f"(--device-tflops) at a utilisation of {rates['utilisation']:.3g} (--utilisation). "
        f"{A100_TFLOPS:g} is the value for bf16 in the data sheet of an A100; {PUBLISHED}. "
        "Validation, reading images and waiting are not included."
    )


def _empty_table(first: str, headings: Sequence[str]) -> Any:
    """Return a table with a column of names, whose heading is `first`, and columns of numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _here_table(plan: dict[str, Any]) -> Any:
    minutes = plan["minutes_here"] or {}
    kept = _kept(plan)
    headings = ["passes\nper image", "FLOPs vs\nvanilla", "time here", "memory"]
    table = _empty_table("method", [*headings, *["on disk"] * len(kept)])
    for name, cost in plan["methods"].items():
        table.add_row(
            name,
            f"{cost['passes_per_image']:.4g}",
            f"{cost['times_vanilla']:.2f}",
            _duration(minutes.get(name)),
            _scaled(cost["memory"]["total"], "B"),
            *(cell(cost) for _, cell in kept),
        )
    return table


def _here_note(plan: dict[str, Any]) -> str:
    left_out = "".join(f"\n{name} left out: {why}" for name, why in plan["unsuitable"].items())
    timed = plan["timed_here"]
    if timed is None:
        return (
            f"{left_out}\nNot timed here, because a step of this model takes too long. {_ELSEWHERE}"
        )
    threads = f", threads: {timed['threads']}" if timed["device"] == "CPU" else ""
    return (
        f"{left_out}\nTime here is a rough estimate: vanilla was timed just now on this machine, "
        f"with its present load ({timed['device']}{threads}; steps: {timed['steps']}, images per "
        f"step: {timed['images']}), and other methods are computed from their FLOPs. Reading "
        f"images and validation are not included. {_ELSEWHERE}"
    )


def _duration(minutes: float | None) -> str:
    if minutes is None:
        return "-"
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"


def _table(plan: dict[str, Any]) -> Any:
    table = _empty_table("", list(plan["methods"]))
    for title, cell in _rows(plan):
        table.add_row(title, *(cell(cost) for cost in plan["methods"].values()))
    return table


def _rows(plan: dict[str, Any]) -> list[Row]:
    half = " (16 bit)" if plan["precision"] != "no" else ""
    each = f"{plan['images_per_device']:,} images"
    passes: list[Row] = [
        ("passes per image", lambda cost: f"{cost['passes_per_image']:.4g}"),
        ("  of which attack steps", lambda cost: f"{cost['attack_passes']:.4g}"),
        ("parameters trained", lambda cost: f"{cost['parameters']['with_branches']:,}"),
        ("  exported", lambda cost: f"{cost['parameters']['plain']:,}"),
    ]
    flops = {
        "forward": "FLOPs of a forward pass",
        "training_pass": "  of a training pass",
        "attack_step": "  of an attack step",
        "per_image": "  of all passes of an image",
        "per_epoch": "  of an epoch",
        "total": "  in total",
    }
    memory = {
        "weights": "memory per device: weights",
        "gradients": "  gradients",
        "optimizer": f"  state of {plan['optimizer']}",
        "average": "  average of the weights",
        "half_weights": "  weights in 16 bit",
        "buckets": "  exchange of gradients",
        "activations": f"  activations, {each}{half}",
        "total": "  in total",
    }
    return [
        *passes,
        *((title, _cell("flops", key)) for key, title in flops.items()),
        ("  relative to vanilla", lambda cost: f"{cost['times_vanilla']:.2f}"),
        *((title, _cell("memory", key)) for key, title in memory.items()),
        *_kept(plan),
        ("device-hours", lambda cost: _rounded(cost["device_hours"])),
    ]


def _kept(plan: dict[str, Any]) -> list[Row]:
    """Return a row for the bytes on disk in training, if any method stores some."""
    if not any(cost["bytes_on_disk"] for cost in plan["methods"].values()):
        return []
    return [("kept on disk in training", lambda cost: _scaled(cost["bytes_on_disk"], "B"))]


def _cell(group: str, key: str) -> Callable[[dict[str, Any]], str]:
    unit = "B" if group == "memory" else ""
    return lambda cost: _scaled(cost[group][key], unit)


def _scaled(value: float, unit: str) -> str:
    """Return a number with a decimal prefix, as in "1.23 G"."""
    prefixes = ["", "k", "M", "G", "T", "P", "E", "Z"]
    while value >= 999.5 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    return f"{value:.3g} {prefixes[0]}{unit}".rstrip()


def _rounded(value: float) -> str:
    """Return a number with three significant digits, from 99.95 on as a whole number."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"
