"""A flow on a temporary Ray instance; and, if its address is given, on a cluster that is there already."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from riverrun import flow, task
from riverrun.task_runners import RayTaskRunner

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


# An instance with two CPUs, started for this flow run and shut down at its end.
@flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 2}))
def primes(below: int = 400_000) -> None:
    """Count the primes below a number, block by block."""
    starts = range(0, below, BLOCK)
    counts = count_primes.map(starts, [min(start + BLOCK, below) for start in starts])
    print(f"{sum(counts.result()):,} primes below {below:,}, in {len(starts)} tasks.")


def main(addresses: list[str]) -> None:
    """Run it on a temporary instance, or on the clusters at some addresses, such as auto or ray://10.0.0.5:10001."""
    for address in addresses:
        primes.with_options(task_runner=RayTaskRunner(address=address))()
    if not addresses:
        primes()


if __name__ == "__main__":
    main(sys.argv[1:])
