"""AdvProp beside vanilla at equal cost on composed pictures, for any task, and their table."""

from __future__ import annotations

import argparse
from typing import Any, Protocol

import torch
from composed_pictures import CORRUPTIONS, Pictures, compose
from torch import nn

import advprop
from advprop.results.significance import mean_interval, paired_difference

Scores = dict[str, dict[str, list[float]]]  # by arm and kind of test pictures, one a seed
TEST_SEED = 1  # 0 served to choose the settings
EQUAL_COST = "vanilla at equal cost"


class Example(Protocol):
    """A task, labels for it, an untrained net, and the score of a trained one, from 0 to 1.

    `extra_passes` is what the task's attack costs a picture beside one pass for each step.
    """

    task: advprop.Task
    score_name: str
    extra_passes: float

    def build(self, side: int) -> nn.Module: ...

    def labels(self, pictures: Pictures) -> Any: ...

    def score(self, model: nn.Module, pictures: Pictures) -> float: ...


def parser(description: str, *, epochs: int, batch: int) -> argparse.ArgumentParser:
    """The options of every example."""
    found = argparse.ArgumentParser(description=description.splitlines()[0])
    found.add_argument("--seeds", type=int, default=3)
    found.add_argument("--epochs", type=int, default=epochs, help="of AdvProp")
    found.add_argument("--batch", type=int, default=batch, help="pictures in a step")
    found.add_argument("--rate", type=float, default=0.05, help="the highest learning rate")
    found.add_argument("--train", type=int, default=320, help="pictures to train on")
    found.add_argument("--test", type=int, default=200, help="pictures to test on")
    found.add_argument("--most", type=int, default=2, help="digits in a picture")
    found.add_argument("--side", type=int, default=64, help="of a picture, in pixels")
    found.add_argument("--epsilon", type=float, default=4, help="of the attack, out of 255")
    return found


def train(
    example: Example,
    method: advprop.Method,
    pictures: Pictures,
    epochs: int,
    options: argparse.Namespace,
) -> nn.Module:
    """A net trained for so many epochs, with its branches."""
    model = example.build(pictures.images.shape[-1]).to(memory_format=torch.channels_last).train()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):  # torchvision's values are for long training
            norm.momentum, norm.eps = 0.1, 1e-5
    if method.auxiliary:
        advprop.add_auxiliary_norms(model)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=options.rate, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    steps = epochs * (len(pictures.images) // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=steps + 1)
    for _ in range(epochs):
        for some in pictures.batches(options.batch, shuffled=True):
            optimizer.zero_grad()
            context = advprop.Context(task=example.task)
            method.forward_backward(model, some.images, example.labels(some), context)
            optimizer.step()
            schedule.step()
    return model


def attacking(epsilon: float) -> advprop.AdvProp:
    """AdvProp with one attack step, away from the labels."""
    bound, away = advprop.Linf(epsilon), advprop.untargeted
    attack = advprop.PGD(threat_model=bound, step_size=epsilon, num_steps=1, targets=away)
    return advprop.AdvProp(attack=attack)


def compare(example: Example, options: argparse.Namespace) -> Scores:
    """Train and test both with every seed, printing each, and print the table."""
    torch.set_num_threads(1)  # the same numbers on any number of cores
    size = {"side": options.side, "most": options.most}
    clean = compose(options.test, train=False, seed=TEST_SEED, **size)
    tests = {"clean": clean, **{name: clean.corrupted(name) for name in CORRUPTIONS}}
    method = attacking(options.epsilon / 255)
    longer = round(options.epochs * (method.passes_per_image + example.extra_passes))
    arms = {"AdvProp": (method, options.epochs), EQUAL_COST: (advprop.Vanilla(), longer)}
    scores: Scores = {arm: {name: [] for name in tests} for arm in arms}
    for seed in range(options.seeds):
        pictures = compose(options.train, train=True, seed=seed, **size)
        for arm, (how, epochs) in arms.items():
            torch.manual_seed(seed)
            model = train(example, how, pictures, epochs, options)
            plain = advprop.remove_auxiliary_norms(model) if how.auxiliary else model
            for name, test in tests.items():
                scores[arm][name].append(example.score(plain.eval(), test))
            last = (f"{name} {values[-1]:.3f}" for name, values in scores[arm].items())
            print(f"seed {seed}, {arm}, {epochs} epochs:", *last, flush=True)
    print(table(scores, example.score_name))
    return scores


def table(scores: Scores, score_name: str) -> str:
    """Means over seeds with 95 % intervals of Student's t, in percent, and paired differences."""
    ours, theirs = scores["AdvProp"], scores[EQUAL_COST]
    rows = [[f"{score_name}, %", *ours], ["---"] * (1 + len(ours))]
    for arm, by_test in scores.items():
        rows.append([arm, *(_cell(*mean_interval(values)) for values in by_test.values())])
    pairs = (paired_difference(ours[name], theirs[name]) for name in ours)
    cells = (_cell(found["difference"], found["ci95"], "+") for found in pairs)
    rows.append(["AdvProp minus vanilla", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(mean: float, interval: list[float] | None, sign: str = "") -> str:
    ends = "" if interval is None else " [{:.1f}, {:.1f}]".format(*(100 * end for end in interval))
    return f"{100 * mean:{sign}.1f}{ends}"
