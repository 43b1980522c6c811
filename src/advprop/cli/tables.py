"""Results as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_ACCURACIES = {
    "clean_accuracy": "clean",
    "noise_accuracy": "noise",
    "adversarial_accuracy": "adversarial",
}


def print_results(results: Mapping[str, Any]) -> None:
    """Print the summary of a comparison: accuracies in percent with 95 % intervals, and cost."""
    versus = "vanilla_equal_cost"
    table = Table(title=f"{results['recipe']}: test accuracy in %, 95 % intervals")
    table.add_column("method", no_wrap=True)
    for name in (*_ACCURACIES.values(), f"clean - {versus}", "passes", "seconds"):
        table.add_column(name, justify="right")
    for entry in results["summary"]:
        table.add_row(
            entry["method"],
            *(_interval(entry.get(accuracy)) for accuracy in _ACCURACIES),
            _difference(entry["versus"].get(versus)),
            f"{entry['total_passes']:g}",
            f"{entry['train_seconds']:.0f}",
        )
    Console().print(table)


def _interval(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "-"
    if value["ci95"] is None:
        return f"{100 * value['mean']:.1f}"
    return f"{100 * value['mean']:.1f} ± {50 * (value['ci95'][1] - value['ci95'][0]):.1f}"


def _difference(value: Mapping[str, Any] | None) -> str:
    if value is None or value["difference"] is None:
        return "-"
    p_value = "" if value["p_value"] is None else f" (p {value['p_value']:.2f})"
    return f"{100 * value['difference']:+.1f}{p_value}"
