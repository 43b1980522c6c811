"""How all benchmarks measure: actions in turn, in one process, medians with their middle half.

A benchmark is a file with `measure(quick)`, which yields rows; `quick` asks for few repeats.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

RATIO = "x"
"""The unit of a ratio."""

Measure: TypeAlias = Callable[[bool], "Iterator[Row]"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure: the median, with the middle half of the repeats as `low` and `high`.

    `case` is what `what` was measured on. `against` names what a ratio is to, `target` what it
    should not exceed, `seconds` the time that was spent on it. A row without a value says in its
    `note` why.
    """

    what: str
    case: str = ""
    value: float | None = None
    unit: str = RATIO
    against: str = ""
    target: float | None = None
    low: float | None = None
    high: float | None = None
    repeats: int = 0
    seconds: float = 0.0
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "pass" or "miss" of the target, if there are a value and a target."""
        if self.value is None or self.target is None:
            return ""
        return "pass" if self.value <= self.target else "miss"


def row_of(what: str, values: Sequence[float], **fields: Any) -> Row:
    """The row of repeated measurements."""
    low, middle, high = values[0], values[0], values[0]
    if len(values) > 1:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Row(what=what, value=middle, low=low, high=high, repeats=len(values), **fields)


@dataclass
class Times:
    """Seconds of each action in each round, and the time on the clock that it took in all."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)

    def ratio(self, of: str, to: str, what: str | None = None, **fields: Any) -> Row:
        """`of` over `to`, round by round: what disturbs one round disturbs both."""
        pairs = zip(self.seconds[of], self.seconds[to], strict=True)
        ratios = [upper / lower for upper, lower in pairs]
        fields = {"against": to, "seconds": self.spent[of], **fields}
        return row_of(what or of, ratios, **fields)

    def absolute(
        self, of: str, what: str | None = None, *, scale: float = 1.0, **fields: Any
    ) -> Row:
        """Seconds of `of`, times `scale`."""
        fields = {"unit": "s", "seconds": self.spent[of], **fields}
        return row_of(what or of, [scale * value for value in self.seconds[of]], **fields)

    def rate(self, of: str, count: int, what: str | None = None, **fields: Any) -> Row:
        """`count` over the seconds of `of`."""
        values = [count / value for value in self.seconds[of]]
        return row_of(what or of, values, seconds=self.spent[of], **fields)


def interleaved(
    actions: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    clock: Callable[[], float] = time.process_time,
    warm: bool = False,
) -> Times:
    """Run all actions in each round, in a changing order; a first round warms up, unless `warm`.

    The default clock counts this process's time on the CPU, which other programs disturb least;
    waiting and other processes need `time.perf_counter`.
    """
    times = Times({name: [] for name in actions}, dict.fromkeys(actions, 0.0))
    shuffled = random.Random(0)
    for number in range(0 if warm else -1, repeats):
        for name in shuffled.sample(list(actions), len(actions)):
            wall, began = time.perf_counter(), clock()
            actions[name]()
            taken = clock() - began
            times.spent[name] += time.perf_counter() - wall
            if number >= 0:
                times.seconds[name].append(taken)
    return times
