"""Taking a call back from the cluster, which may be about to run it: only who has it can say whether it has begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner_dask._by_value import ByValue

if TYPE_CHECKING:
    from runner_dask._sending import Value

LIMIT = 5.0
"""Seconds that the scheduler, and then the worker, may take to answer; after them the call counts as begun."""


def withdraw(client: Any, value: Value) -> bool:
    """Take a call back.

    Args:
        client: the flow run's.
        value: the handle of the value that the call was to make.

    Returns:
        Whether it is certain that the call has not begun, and will not.
    """
    try:
        found = client.sync(_withdraw, client, value.key, asynchronous=False, callback_timeout=2 * LIMIT)
    except Exception:  # noqa: BLE001 - the cluster does not answer: then nothing is certain
        return False
    return bool(found)


async def _withdraw(client: Any, key: str) -> bool:
    import asyncio

    worker = await asyncio.wait_for(client.run_on_scheduler(Drop(client.id, key)), LIMIT)
    if worker is None or not worker:
        return worker is not None
    answers = await asyncio.wait_for(client.run(_withdrawn, key, workers=[worker], on_error="ignore"), LIMIT)
    return answers.get(worker) is True


def _withdrawn(key: str) -> bool:
    from runner_dask import _running

    return _running.withdraw(key)


class Drop(ByValue):
    """Run on the scheduler: drops a task that no worker has.

    Args:
        client: the client's id.
        key: the task's key.
    """

    def __init__(self, client: str, key: str) -> None:
        self.client = client
        self.key = key

    def arguments(self) -> tuple[Any, ...]:
        """What another process needs to make it again."""
        return self.client, self.key

    def __call__(self, dask_scheduler: Any) -> str | None:
        """Give the address of the worker that has it; an empty text if it was dropped; None if it is not known."""
        task = dask_scheduler.tasks.get(self.key)
        if task is None or task.state in {"memory", "erred", "forgotten"}:
            return None
        if task.processing_on is not None:
            address: str = task.processing_on.address
            return address
        dask_scheduler.client_releases_keys(keys=[self.key], client=self.client, stimulus_id=f"withdraw-{self.key}")
        return ""
