"""Taking a call back from the cluster, which may be about to run it: only who has it can say whether it has begun."""

from __future__ import annotations

from typing import Any

from runner_dask._by_value import ByValue

LIMIT = 5.0
"""Seconds that the scheduler, and then the worker, may take to answer; after them the call counts as begun."""


def withdraw(client: Any, keys: list[str]) -> list[str]:
    """Take calls back, all of them with one question to the scheduler and one to each worker.

    Args:
        client: the flow run's.
        keys: those of the calls.

    Returns:
        The keys of those of which it is certain that they have not begun, and will not.
    """
    try:
        found = client.sync(_withdraw, client, keys, asynchronous=False, callback_timeout=2 * LIMIT) if keys else []
    except Exception:  # noqa: BLE001 - the cluster does not answer: then nothing is certain
        return []
    return list(found)


async def _withdraw(client: Any, keys: list[str]) -> list[str]:
    import asyncio

    places = await asyncio.wait_for(client.run_on_scheduler(Drop(client.id, keys)), LIMIT)
    withdrawn = [key for key, worker in places.items() if worker == ""]
    workers = sorted({worker for worker in places.values() if worker})
    if workers:
        waiting = [key for key, worker in places.items() if worker]
        asked = client.run(_withdrawn, waiting, places, workers=workers, on_error="ignore")
        for answer in (await asyncio.wait_for(asked, LIMIT)).values():
            withdrawn += answer
    return withdrawn


def _withdrawn(keys: list[str], places: dict[str, str], dask_worker: Any) -> list[str]:
    from runner_dask import _running

    return [key for key in keys if places[key] == dask_worker.address and _running.withdraw(key)]


class Drop(ByValue):
    """Run on the scheduler: drops those of some tasks that no worker has.

    Args:
        client: the client's id.
        keys: the tasks' keys.
    """

    def __init__(self, client: str, keys: list[str]) -> None:
        self.client = client
        self.keys = keys

    def arguments(self) -> tuple[Any, ...]:
        """What another process needs to make it again."""
        return self.client, self.keys

    def __call__(self, dask_scheduler: Any) -> dict[str, str]:
        """Give the addresses of the workers that have them; an empty text for one that was dropped; no other keys."""
        places: dict[str, str] = {}
        for key in self.keys:
            task = dask_scheduler.tasks.get(key)
            if task is None or task.state in {"memory", "erred", "forgotten"}:
                continue
            if task.processing_on is not None:
                places[key] = task.processing_on.address
                continue
            dask_scheduler.client_releases_keys(keys=[key], client=self.client, stimulus_id=f"withdraw-{key}")
            places[key] = ""
        return places
