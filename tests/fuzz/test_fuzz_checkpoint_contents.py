"""Whole checkpoints with wrong contents: refused by name, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import contents
from damage import assert_named, attempt, cases

from advprop.config import RunConfig
from advprop.runs import train
from advprop.runs.folder import load_run

Tree = dict[str, Any]


def first_state(state: Tree) -> Tree:
    """What the optimiser keeps for a convolution."""
    found = (s for s in state["optimizer"]["state"].values() if s["momentum_buffer"].dim() == 4)
    return next(found)


def set_weight(state: Tree, value: object) -> None:
    state["model"][next(iter(state["model"]))] = value


def swap(value: object, *path: str) -> Callable[[Tree], object]:
    """Another value at `path`."""

    def change(state: Tree) -> None:
        *parents, last = path
        for name in parents:
            state = state[name]
        state[last] = value

    return change


def drop(*path: str) -> Callable[[Tree], object]:
    """Nothing at `path`."""

    def change(state: Tree) -> None:
        *parents, last = path
        for name in parents:
            state = state[name]
        del state[last]

    return change


POSITION = ("epoch", "batch", "step", "seconds", "best_validation_accuracy", "rollbacks")
VALUES: dict[str, object] = {
    "text": "x",
    "nothing": None,
    "a list": [1],
    "negative": -2,
    "a tensor": torch.ones(2),
    "not a number": float("nan"),
    "far too much": 10**12,
}
CONTENTS: dict[str, Callable[[Tree], object]] = {
    **{
        f"position.{name} {what}": swap(value, "position", name)
        for name in POSITION
        for what, value in VALUES.items()
        if what != "far too much" or name not in ("seconds", "rollbacks")
    },
    **{f"position without {name}": drop("position", name) for name in POSITION},
    "position.step another": swap(3, "position", "step"),
    "position.epoch a fraction": swap(0.5, "position", "epoch"),
    "position with more": swap(1, "position", "more"),
    **{
        f"{part} {what}": swap(value, part)
        for part in ("model", "position", "optimizer", "totals", "method", "threads")
        for what, value in VALUES.items()
        if (part, what) != ("threads", "far too much")  # a warning
    },
    **{
        f"without {part}": drop(part)
        for part in ("model", "position", "optimizer", "totals", "method", "threads", "format")
    },
    "ema unwanted": swap({"x": "y"}, "ema"),
    "scaler unwanted": swap({"scale": "y"}, "scaler"),
    "format text": swap("one", "format"),
    "format later": swap(2, "format"),
    "format a tensor": swap(torch.ones(3), "format"),
    "totals.sums text": swap("x", "totals", "sums"),
    "totals.sums a list": swap([torch.ones(1)], "totals", "sums"),
    "totals.sums of text": swap({"clean.loss": "x", "clean.loss#": "y"}, "totals", "sums"),
    "totals.sums without counts": swap({"clean.loss": torch.ones(())}, "totals", "sums"),
    "totals.sums with numbers for names": swap({1: torch.ones(())}, "totals", "sums"),
    "totals.sums reshaped": swap(
        {"clean.loss": torch.ones(3), "clean.loss#": torch.ones(())}, "totals", "sums"
    ),
    "totals.steps text": swap("x", "totals", "steps"),
    "totals.steps negative": swap(-1, "totals", "steps"),
    "totals with more": swap(1, "totals", "more"),
    "optimizer.state a list": swap([], "optimizer", "state"),
    "optimizer.state of text": swap({0: "x"}, "optimizer", "state"),
    "optimizer.state named": swap({"x": {}}, "optimizer", "state"),
    "optimizer.state of text deep": lambda s: first_state(s).update(momentum_buffer="x"),
    "optimizer.state reshaped": lambda s: first_state(s).update(
        momentum_buffer=torch.ones(7, 7, 7, 7)
    ),
    "optimizer.state transposed": lambda s: first_state(s).update(
        momentum_buffer=first_state(s)["momentum_buffer"].transpose(0, 1)
    ),
    "optimizer.param_groups text": swap("x", "optimizer", "param_groups"),
    "optimizer.param_groups none": swap([], "optimizer", "param_groups"),
    "optimizer.param_groups of text": swap(["x", "y"], "optimizer", "param_groups"),
    "optimizer group without rate": lambda s: s["optimizer"]["param_groups"][0].pop("lr"),
    "optimizer group with text for a rate": lambda s: s["optimizer"]["param_groups"][0].update(
        lr="x"
    ),
    "optimizer group with text for momentum": lambda s: s["optimizer"]["param_groups"][0].update(
        momentum="x"
    ),
    "optimizer group without parameters": lambda s: s["optimizer"]["param_groups"][0].update(
        params=[]
    ),
    "optimizer group with text for parameters": lambda s: s["optimizer"]["param_groups"][0].update(
        params="x"
    ),
    "weights missing": lambda s: s["model"].popitem(),
    "weights foreign": lambda s: s["model"].update(more=torch.ones(1)),
    "weights with numbers for names": lambda s: s["model"].update({1: torch.ones(1)}),
    "weights reshaped": lambda s: set_weight(s, torch.ones(3, 3, 3)),
    "weights empty": lambda s: set_weight(s, torch.empty(0)),
    "weights text": lambda s: set_weight(s, "x"),
    "weights a list": lambda s: set_weight(s, [1.0]),
    "weights whole numbers": lambda s: set_weight(s, first_weight(s).to(torch.int32)),
    "weights complex": lambda s: set_weight(s, first_weight(s).to(torch.complex64)),
    "weights sparse": lambda s: set_weight(s, first_weight(s).to_sparse()),
    "weights without numbers": lambda s: set_weight(s, first_weight(s).to("meta")),
    "weights of no model": swap({}, "model"),
    "of another architecture": swap(torch.nn.Linear(2, 2).state_dict(), "model"),
}


def first_weight(state: Tree) -> torch.Tensor:
    return next(iter(state["model"].values()))


@pytest.mark.parametrize("change", cases(CONTENTS, quick=70))
def test_a_whole_file_with_wrong_contents_is_refused(
    change: str, run: Path, config: RunConfig
) -> None:
    (run / "result.json").unlink()
    newest = run / "checkpoints" / "step-000000004.pt"
    (run / "checkpoints" / "step-000000002.pt").unlink()
    state = torch.load(newest, weights_only=True)
    CONTENTS[change](state)
    torch.save(state, newest)
    before = contents(run)
    outcome = attempt(lambda: train(config, run, resume=True, quiet=True))
    if change in {"ema unwanted", "scaler unwanted"}:  # neither is read where none is kept
        assert outcome.result["epochs"] == 2
        return
    assert outcome.message is not None
    assert_named(outcome.message, newest)
    assert contents(run) == before


WEIGHTS = [name for name in CONTENTS if {"weights", "model", "architecture"} & set(name.split())]


@pytest.mark.parametrize("change", WEIGHTS)
def test_wrong_weights_are_not_loaded(change: str, run: Path) -> None:
    best = run / "checkpoints" / "best.pt"
    state = torch.load(run / "checkpoints" / "step-000000004.pt", weights_only=True)
    CONTENTS[change](state)
    torch.save({key: state[key] for key in ("format", "model") if key in state}, best)
    before = contents(run)
    outcome = attempt(lambda: load_run(run, weights="best"))
    assert outcome.message is not None
    assert_named(outcome.message, best)
    assert contents(run) == before
