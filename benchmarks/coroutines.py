"""Async tasks that sleep, beside `asyncio.gather` of the same coroutines."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from figures import Figure
from riverrun import flow, gather, task
from timing import in_turn

if TYPE_CHECKING:
    from figures import Sizes

NAP = 0.010


async def nap() -> None:
    """Sleep as long as a short request takes."""
    await asyncio.sleep(NAP)


nap_task = task(nap)


@flow(task_runner="concurrent")
def naps(count: int) -> None:
    """Submit all from a sync flow: they run on the loop thread of the runner."""
    for future in [nap_task() for _ in range(count)]:
        future.result()


@flow(task_runner="concurrent")
async def naps_async(count: int) -> None:
    """Submit all from an async flow: they run on the flow's own loop."""
    await gather([nap_task() for _ in range(count)])


async def raw_naps(count: int) -> None:
    """Leave Riverrun out."""
    await asyncio.gather(*[nap() for _ in range(count)])


def sleeping(sizes: Sizes) -> list[Figure]:
    """Async tasks that sleep 10 ms, in a sync and in an async flow; beside `asyncio.gather`."""
    count = sizes.coroutines
    times = in_turn(
        {
            "sync": lambda: naps(count),
            "async": lambda: asyncio.run(naps_async(count)),
            "raw": lambda: asyncio.run(raw_naps(count)),
        },
        sizes.rounds,
    )
    samples = {contender: [time * 1e3 for time in taken] for contender, taken in times.items()}
    what = f"{count:,} async tasks that sleep 10 ms, in"
    return [
        Figure("sleeping-sync", f"{what} a sync flow", "ms", samples["sync"], samples["raw"], "ratio", 1.3),
        Figure("sleeping-async", f"{what} an async flow", "ms", samples["async"], samples["raw"], "ratio", 1.3),
    ]
