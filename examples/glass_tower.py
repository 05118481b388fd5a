"""An elevator stops at every floor of a glass tower: sync and async tasks alike run one after the other, in order."""

from __future__ import annotations

import anyio.lowlevel
from riverrun import flow, task

FLOORS = range(1, 39)


@task
def stop_at(floor: int) -> int:
    """Stop at a floor, the plain way."""
    print(f"Ding! Floor {floor:2}.")
    return floor


@task
async def glide_to(floor: int) -> int:
    """Stop at a floor, and let others go first: under the sequential runner there are none."""
    await anyio.lowlevel.checkpoint()
    print(f"Ding! Floor {floor:2}, with a view.")
    return floor


@flow(name="towering-infernflow", task_runner="sequential")
def towering_infernflow() -> None:
    """Go up."""
    stops = [glide_to(floor) if floor % 2 else stop_at(floor) for floor in FLOORS]
    print(f"{len(stops)} stops. Everybody out: floor {stops[-1].result()} is the roof.")


if __name__ == "__main__":
    towering_infernflow()
