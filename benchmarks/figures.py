"""What a measurement becomes, and how many of everything a run of the benchmarks takes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

THREADS = min(32, (os.cpu_count() or 1) + 4)
"""The workers of the concurrent runner by default; the standard pool gets as many."""


@dataclass(frozen=True)
class Sizes:
    """How many of everything, and how often."""

    quick: bool
    rounds: int
    process_rounds: int
    distributions: int
    sequential: int
    concurrent: int
    chain: int
    grid_side: int
    coroutines: int
    kept: int
    values: int
    dask_tasks: int
    dask_chains: tuple[int, int]
    dask_kept: int
    dask_flow_runs: tuple[int, int]
    ray_tasks: int
    ray_chains: tuple[int, int]
    ray_kept: int

    @property
    def few_rounds(self) -> int:
        """How often what takes long is measured: half as often, yet twice if anything is."""
        return min(self.rounds, max(2, self.rounds // 2))

    @property
    def few_process_rounds(self) -> int:
        """How often a process that takes long is started: a third as often, yet twice if anything is."""
        return min(self.process_rounds, max(2, self.process_rounds // 3))

    def with_rounds(self, rounds: int) -> Sizes:
        """Give the same counts, each taken so many times."""
        return replace(self, rounds=rounds, process_rounds=rounds)


FULL = Sizes(
    quick=False,
    rounds=5,
    process_rounds=21,
    distributions=300,
    sequential=100_000,
    concurrent=20_000,
    chain=10_000,
    grid_side=100,
    coroutines=10_000,
    kept=1_000_000,
    values=1_000,
    dask_tasks=5_000,
    dask_chains=(20, 100),
    dask_kept=100_000,
    dask_flow_runs=(50, 1_000),
    ray_tasks=5_000,
    ray_chains=(20, 100),
    ray_kept=100_000,
)
QUICK = Sizes(
    quick=True,
    rounds=2,
    process_rounds=3,
    distributions=20,
    sequential=2_000,
    concurrent=1_000,
    chain=500,
    grid_side=20,
    coroutines=500,
    kept=20_000,
    values=20,
    dask_tasks=200,
    dask_chains=(2, 20),
    dask_kept=1_000,
    dask_flow_runs=(2, 100),
    ray_tasks=200,
    ray_chains=(2, 20),
    ray_kept=1_000,
)


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: what it is called in the JSON.
        what: what was measured, in the reader's words.
        unit: of the samples.
        ours: one sample for each round.
        baseline: one sample for each round, taken between ours; empty where there is none.
        compares: what `limit` is held against: the median itself, its ratio to the baseline's, or the difference.
        limit: what is to be reached, at most; None for a line that is there for information.
        strictly: true where the limit itself is too much already.
    """

    name: str
    what: str
    unit: str
    ours: list[float]
    baseline: list[float]
    compares: Literal["value", "ratio", "difference"]
    limit: float | None = None
    strictly: bool = False

    @property
    def our_median(self) -> float:
        """The median of our samples."""
        return median(self.ours)

    @property
    def baseline_median(self) -> float | None:
        """The median of the baseline's samples."""
        return median(self.baseline) if self.baseline else None

    @property
    def ratio(self) -> float | None:
        """Our median over the baseline's."""
        base = self.baseline_median
        return None if not base else self.our_median / base

    @property
    def difference(self) -> float | None:
        """Our median less the baseline's."""
        base = self.baseline_median
        return None if base is None else self.our_median - base

    @property
    def compared(self) -> float | None:
        """What is held against the limit."""
        return {"value": self.our_median, "ratio": self.ratio, "difference": self.difference}[self.compares]

    @property
    def reached(self) -> bool | None:
        """Whether the limit is kept; None where there is none."""
        if self.limit is None or self.compared is None:
            return None
        return self.compared < self.limit if self.strictly else self.compared <= self.limit
