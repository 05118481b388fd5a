"""Taking calls back from the cluster, which may be about to run them: only who has one can say whether it has begun.

::

    scheduler: no worker has it       -> it drops it, with what was sent to take its value
    scheduler: a worker has it        -> the worker bars it, if it has not begun -> the scheduler drops it
    scheduler: it has not arrived yet -> it is dropped when it arrives
    scheduler: lost with its worker   -> the worker's journal tells (`Losses.never_began`)
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from runner_dask._by_value import ByValue
from runner_dask._watch import DROPPED, LOST, PLACED

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 5.0
"""Seconds that the scheduler, and each worker, may take to answer; after them a call counts as begun."""
ROUNDS = 4
"""How often the scheduler is asked at most: a call may be moved from worker to worker meanwhile."""


def withdraw(client: Any, keys: list[str], never_began: Callable[[dict[str, str]], set[str]]) -> set[str]:
    """Take calls back, all of them with a few questions to the scheduler and one to each worker.

    Args:
        client: the flow run's.
        keys: those of the calls.
        never_began: told the workers of calls that were lost with them, it gives those that certainly have not begun.

    Returns:
        The keys of those of which it is certain that they have not begun, and will not.
    """
    if not keys:
        return set()
    withdrawn: set[str] = set()
    lost: dict[str, str] = {}
    with contextlib.suppress(Exception):  # the cluster does not answer: what is certain by now, stays so
        client.sync(_withdraw, client, keys, withdrawn, lost, asynchronous=False, callback_timeout=3 * LIMIT)
    return {*withdrawn, *never_began(dict(lost))}


async def _withdraw(client: Any, keys: list[str], withdrawn: set[str], lost: dict[str, str]) -> None:
    barred: dict[str, str] = {}
    silent: set[str] = set()
    for _ in range(ROUNDS):
        found = await asyncio.wait_for(client.run_on_scheduler(Drop(client.id, keys, barred)), LIMIT)
        withdrawn.update(key for key, (state, _) in found.items() if state == DROPPED)
        for key, (state, worker) in found.items():
            if state == LOST and barred.get(key) == worker:
                withdrawn.add(key)  # it has said that it will not begin it
            elif state == LOST:
                lost[key] = worker
        placed = {key: worker for key, (state, worker) in found.items() if state == PLACED and worker not in silent}
        if not placed:
            return
        asked: dict[str, list[str]] = {}
        for key, worker in placed.items():
            asked.setdefault(worker, []).append(key)
        answers = await ask_workers(client, asked)
        barred |= {key: placed[key] for answer in answers.values() for key in answer}
        silent |= {*placed.values()} - {*answers}
        # Of a worker that has not answered, the scheduler may know by now that it is gone.
        keys = [key for key, worker in placed.items() if worker in silent or barred.get(key) == worker]


async def ask_workers(client: Any, asked: dict[str, list[str]]) -> dict[str, list[str]]:
    """Ask workers to begin some calls no more.

    Args:
        client: the flow run's.
        asked: the keys of the calls, by the workers' addresses.

    Returns:
        For each worker that has answered, the keys of those that have not begun there, and will not.
    """
    answers = await asyncio.gather(*(_ask_worker(client, worker, keys) for worker, keys in asked.items()))
    return {worker: answer for worker, answer in zip(asked, answers, strict=True) if answer is not None}


async def _ask_worker(client: Any, worker: str, keys: list[str]) -> list[str] | None:
    try:  # each on its own: one that hangs takes no answer with it
        answers = await asyncio.wait_for(client.run(_barred, keys, workers=[worker], on_error="ignore"), LIMIT)
    except Exception:  # noqa: BLE001 - it is gone, or hangs
        return None
    answer: list[str] | None = answers.get(worker)
    return answer


def _barred(keys: list[str]) -> list[str]:
    from runner_dask import _running

    return [key for key in keys if _running.withdraw(key)]


class Drop(ByValue):
    """Run on the scheduler: drops those of some tasks that no worker can begin.

    Args:
        client: the client's id.
        keys: the tasks' keys.
        barred: of some of them, the address of the worker that has said it will not begin it.
    """

    def __init__(self, client: str, keys: list[str], barred: dict[str, str]) -> None:
        self.client = client
        self.keys = keys
        self.barred = barred

    def arguments(self) -> tuple[Any, ...]:
        """What another process needs to make it again."""
        return self.client, self.keys, self.barred

    def __call__(self, dask_scheduler: Any) -> dict[str, tuple[str, str]]:
        """Give what is known of each, with the address of a worker; nothing of those that have ended."""
        watch = dask_scheduler.plugins[f"riverrun-{self.client}"]
        found: dict[str, tuple[str, str]] = {}
        for key in self.keys:
            answer = watch.told_of(key) or self._state_of(dask_scheduler.tasks.get(key))
            if answer == (PLACED, self.barred.get(key)):
                answer = DROPPED, ""
            if answer is not None:
                found[key] = answer
        watch.drop([key for key, (state, _) in found.items() if state == DROPPED])
        dask_scheduler.stimulus_queue_slots_maybe_opened(stimulus_id="withdraw")
        return found

    def _state_of(self, task: Any) -> tuple[str, str] | None:
        if task is None:
            return DROPPED, ""  # it has not arrived yet, or it was not taken when it did
        if task.state == "processing" and task.processing_on is not None:
            return PLACED, task.processing_on.address
        if task.state == "erred" and task.exception_blame is not task:
            return DROPPED, ""  # something that it takes has no value
        return None if task.state in {"memory", "erred"} else (DROPPED, "")
