"""The end of a flow run on a cluster that goes on: nothing of it stays there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from runner_dask._by_value import ByValue


class Erase(ByValue):
    """Run on the scheduler: takes a flow run's plugin and topics off it.

    Args:
        client: the client's id.
    """

    def __init__(self, client: str) -> None:
        self.client = client

    def arguments(self) -> tuple[Any, ...]:
        """What another process needs to make it again."""
        return (self.client,)

    def __call__(self, dask_scheduler: Any) -> None:
        topic = f"riverrun-{self.client}"
        plugin = dask_scheduler.plugins.get(topic)
        if plugin is not None:
            plugin.erase()
        else:  # the start failed before there was one, and after the client had asked for what it would tell
            with contextlib.suppress(Exception):
                dask_scheduler._broker._topics.pop(topic, None)  # noqa: SLF001 - topics have no public end


def forget(client: Any, timeout: float = 5.0, *, workers: bool = True) -> None:
    """Take off the cluster what `Watch` and `Presence` left there; quietly, also if the cluster is gone.

    To be called before a temporary cluster is closed, too: without their plugin its workers do not wait for what
    runs. Not from the client's own event-loop thread.

    Args:
        client: the flow run's client.
        timeout: seconds to wait for the cluster, at most.
        workers: whether there are workers. Where they were just killed, the scheduler may not know that yet, and would
            try to connect to them.
    """
    if client.status != "running":
        return
    with contextlib.suppress(Exception):
        client.sync(_forget, client, timeout, workers=workers, asynchronous=False, callback_timeout=timeout + 1)


async def _forget(client: Any, limit: float, *, workers: bool) -> None:
    steps = [client.run_on_scheduler(Erase(client.id))]
    if workers:
        steps.append(client.scheduler.unregister_worker_plugin(name=f"riverrun-{client.id}"))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*steps, return_exceptions=True), limit)
