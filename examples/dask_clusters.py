"""The same flow on three clusters: a temporary one, one that grows and shrinks, and one that is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = 50_000


@task
def count_primes(start: int, stop: int) -> int:
    """Count the primes of one block: plain Python that computes, so threads would be of no use."""
    return sum(all(number % divisor for divisor in divisors(number)) for number in range(max(start, 2), stop))


def divisors(number: int) -> Iterable[int]:
    """Give what a number has to be tried with."""
    return range(2, int(number**0.5) + 1)


# Two processes with a thread each, started for this flow run and closed at its end.
@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1}))
def primes(below: int = 400_000) -> None:
    """Count the primes below a number, block by block."""
    starts = range(0, below, BLOCK)
    counts = count_primes.map(starts, [min(start + BLOCK, below) for start in starts])
    print(f"{sum(counts.result()):,} primes below {below:,}, in {len(starts)} tasks.")


# No worker at first; the cluster starts up to two as the tasks come, and lets them go when nothing is left to do.
adaptive = primes.with_options(
    task_runner=DaskTaskRunner(
        cluster_kwargs={"n_workers": 0, "threads_per_worker": 1}, adapt_kwargs={"minimum": 0, "maximum": 2}
    )
)


def main() -> None:
    """Run it on each."""
    from distributed import LocalCluster

    primes()
    adaptive()
    # This one stands for a cluster that somebody else keeps: it goes on afterwards, and is left as it was found.
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        existing = primes.with_options(task_runner=DaskTaskRunner(address=cluster.scheduler_address))
        existing()
        existing(below=100_000)


if __name__ == "__main__":
    main()
