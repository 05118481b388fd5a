"""A flow that is sent signals: its tasks compute, sleep, fail, are tried again, overrun their limits, and map."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import under_watch
from riverrun import flow, task
from riverrun.exceptions import RunTimeout

KINDS = ("compute", "sleep", "sleep_async", "fail", "overrun", "map", "chain")


class Planned(Exception):
    pass


@task
def compute(number: int) -> int:
    for _ in range(100_000):
        number += 1
    return number - 100_000


@task
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task
async def sleep_async(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@task(retries=1, retry_delay_seconds=0.05)
def fail(_: object) -> None:
    raise Planned("planned")


@task(timeout_seconds=0.1)
async def overrun(seconds: float) -> None:
    await asyncio.sleep(600 + seconds)


def submitted(kind: str, number: int) -> list:
    seconds = number / 100
    if kind == "map":
        return list(compute.map(range(number)))
    if kind == "chain":
        futures = [compute(number)]
        for _ in range(3):
            futures.append(compute(futures[-1]))
        return futures
    argument = number if kind == "compute" else seconds
    return [{"compute": compute, "sleep": sleep, "sleep_async": sleep_async, "fail": fail, "overrun": overrun}[kind](
        argument
    )]  # fmt: skip


def drawn_plan() -> dict[str, Any]:
    """Draw what the flow does, and how it is called."""
    rng = under_watch.lots()
    steps = [(rng.choice(KINDS), rng.randint(1, 12)) for _ in range(rng.randint(3, 15))]
    is_async, in_subflow, is_awaited = (rng.random() < 0.5 for _ in range(3))
    status = int(any(kind in {"fail", "overrun"} for kind, _ in steps))
    return {"steps": steps, "is_async": is_async, "in_subflow": in_subflow, "is_awaited": is_awaited, "status": status}


def flows(plan: dict[str, Any]) -> tuple[Any, Any]:
    """Make the flow, sync and async."""

    @flow(task_runner=under_watch.made_runner())
    def worked() -> None:
        under_watch.mark("body")
        futures = [future for step in plan["steps"] for future in submitted(*step)]
        if plan["is_awaited"]:
            for future in futures:
                future.wait()
        under_watch.mark("body-over")

    @flow(task_runner=under_watch.made_runner())
    async def worked_async() -> None:
        under_watch.mark("body")
        futures = [future for step in plan["steps"] for future in submitted(*step)]
        if plan["is_awaited"]:
            for future in futures:
                await future.finished()
        under_watch.mark("body-over")

    return worked, worked_async


def call(plan: dict[str, Any]) -> None:
    """Call the flow, perhaps as a subflow."""
    worked, worked_async = flows(plan)

    @flow(task_runner="sequential")
    def around() -> None:
        compute(1)
        worked()

    @flow(task_runner="sequential")
    async def around_async() -> None:
        compute(1)
        await worked_async()

    if plan["is_async"]:
        asyncio.run(around_async() if plan["in_subflow"] else worked_async())
    elif plan["in_subflow"]:
        around()
    else:
        worked()


def main() -> int:
    plan = drawn_plan()
    under_watch.write("plan", plan)
    under_watch.mark("calling")
    try:
        call(plan)
    except (Planned, RunTimeout):
        assert plan["status"] == 1
        return 1
    finally:
        under_watch.mark("returned")
    assert plan["status"] == 0
    return 0


if __name__ == "__main__":
    ended = main()
    under_watch.mark("ended")
    sys.exit(ended)
