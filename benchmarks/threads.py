"""No-op tasks on the two light runners, beside a bare loop and the standard pool of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from figures import THREADS, Figure
from riverrun import TaskFuture, flow, task
from timing import each, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Sizes


def nothing() -> None:
    """Do nothing: what is left is the cost of the run."""


def step(before: int) -> int:
    """Take what the one before gave."""
    return before


def cell(left: int, upper: int) -> int:
    """Take what two neighbours gave."""
    return left or upper


nothing_task = task(nothing)
step_task = task(step)
cell_task = task(cell)


@flow(task_runner="sequential")
def one_after_the_other(count: int) -> None:
    """Call the no-op task so many times."""
    for _ in range(count):
        nothing_task()


@flow(task_runner="concurrent")
def all_then_results(count: int) -> None:
    """Submit all, then ask each for its result."""
    for future in [nothing_task() for _ in range(count)]:
        future.result()


@flow(task_runner="concurrent")
def one_by_one(count: int) -> None:
    """Submit one, wait for it, submit the next."""
    for _ in range(count):
        nothing_task().result()


@flow(task_runner="concurrent")
def chained(count: int) -> int:
    """Make each task depend on the one before."""
    future = step_task(0)
    for _ in range(count - 1):
        future = step_task(future)
    return future.result()


@flow(task_runner="concurrent")
def gridded(side: int) -> int:
    """Make each cell depend on its left and its upper neighbour."""
    row: list[Any] = [0] * side
    for _ in range(side):
        left: TaskFuture[int] | int = 0
        for column, upper in enumerate(row):
            left = row[column] = cell_task(left, upper)
    last: TaskFuture[int] = row[-1]
    return last.result()


def pool_all(count: int, function: Callable[..., object], *args: object) -> None:
    """Submit all to the standard pool, then ask each for its result."""
    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(function, *args) for _ in range(count)]:
            future.result()


def pool_one_by_one(count: int, function: Callable[..., object], *args: object) -> None:
    """Submit one to the standard pool, wait for it, submit the next."""
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(count):
            pool.submit(function, *args).result()


def bare_loop(count: int) -> None:
    """Call the function itself."""
    for _ in range(count):
        nothing()


def sequential(sizes: Sizes) -> list[Figure]:
    """No-op task, sequential runner; beside the bare function in a loop."""
    count = sizes.sequential
    times = in_turn({"ours": lambda: one_after_the_other(count), "raw": lambda: bare_loop(count)}, sizes.rounds)
    what = f"no-op task, sequential runner, {count:,} of them, each"
    return [Figure("sequential", what, "us", each(times["ours"], count), each(times["raw"], count), "value", 4.0)]


def concurrent(sizes: Sizes) -> list[Figure]:
    """No-op task, concurrent runner, all submitted, then all results; beside the standard pool."""
    count = sizes.concurrent
    times = in_turn({"ours": lambda: all_then_results(count), "raw": lambda: pool_all(count, nothing)}, sizes.rounds)
    what = f"no-op task, concurrent runner, {count:,} submitted, then all results, each"
    return [Figure("concurrent", what, "us", each(times["ours"], count), each(times["raw"], count), "ratio", 0.5)]


def waiting(sizes: Sizes) -> list[Figure]:
    """No-op task, concurrent runner, submit one and wait for it; beside the standard pool."""
    count = sizes.concurrent
    times = in_turn({"ours": lambda: one_by_one(count), "raw": lambda: pool_one_by_one(count, nothing)}, sizes.rounds)
    what = f"submit one, wait for it, {count:,} times, concurrent, each"
    return [Figure("waiting", what, "us", each(times["ours"], count), each(times["raw"], count), "ratio", 1.0)]


def chain(sizes: Sizes) -> list[Figure]:
    """A chain of dependent no-ops, concurrent runner; beside as many independent ones on the standard pool."""
    count = sizes.chain
    what = f"chain of {count:,} dependent no-ops, concurrent, each"
    return _dependent("chain", what, count, ours=lambda: chained(count), raw=(step, 0), sizes=sizes)


def grid(sizes: Sizes) -> list[Figure]:
    """A square grid, each cell after its left and upper neighbour; beside as many independent no-ops."""
    side = sizes.grid_side
    what = f"grid {side} x {side} of dependent no-ops, concurrent, each"
    return _dependent("grid", what, side * side, ours=lambda: gridded(side), raw=(cell, 0, 0), sizes=sizes)


def _dependent(
    name: str, what: str, count: int, *, ours: Callable[[], object], raw: tuple[Any, ...], sizes: Sizes
) -> list[Figure]:
    times = in_turn(
        {"ours": ours, "all": lambda: pool_all(count, *raw), "one by one": lambda: pool_one_by_one(count, *raw)},
        sizes.rounds,
    )
    samples = {contender: each(time, count) for contender, time in times.items()}
    one_by_one_raw = "  the same, beside submit one, wait for it"
    return [
        Figure(name, what, "us", samples["ours"], samples["all"], "ratio", 1.0),
        Figure(f"{name}-one-by-one", one_by_one_raw, "us", samples["ours"], samples["one by one"], "ratio"),
    ]
