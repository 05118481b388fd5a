"""The text of the error for a cluster that is connected to and does not answer: of which worker nothing is heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from riverrun.workers import Call, Overdue

from runner_dask._by_value import ByValue

if TYPE_CHECKING:
    from collections.abc import Collection

    from riverrun.workers import Deadline

ANSWER_WITHIN: Final = 3.0
"""Seconds that the scheduler may take to say of which workers it has heard nothing."""
SHOWN: Final = 3
"""How many workers the text names."""


class Unheard(ByValue):
    """Run on the scheduler: gives the seconds since it has heard of each worker, by address."""

    def arguments(self) -> tuple[Any, ...]:
        """What another process needs to make it again."""
        return ()

    def __call__(self, dask_scheduler: Any) -> dict[str, float]:
        """Give the seconds."""
        from time import time

        return {worker.address: time() - worker.last_seen for worker in dask_scheduler.workers.values()}


def no_answer(client: Any, introduced: Collection[str], deadline: Deadline) -> str:
    """Say that the workers of a cluster did not answer in time, and which.

    Args:
        client: the flow run's client.
        introduced: the addresses of the workers that did.
        deadline: of the start.

    Returns:
        The text of an error.
    """
    head = f"The Dask cluster at {client.scheduler.address} did not answer within {deadline.seconds:g} s"
    tail = "or allow more time with start_timeout=SECONDS."
    try:
        found = Call(lambda: client.run_on_scheduler(Unheard()), name="dask-unheard").result(ANSWER_WITHIN)
    except (Overdue, Exception):  # noqa: BLE001 - whatever the scheduler answers, this is the text for an error
        return f"{head}, and its scheduler does not say why. See to the scheduler, {tail}"
    silent = sorted((address for address in found if address not in introduced), key=found.get, reverse=True)
    if not silent:
        return f"{head}, though each of its workers has. Try again, {tail}"
    # Where the first question to all got no answer, all are silent: those are to blame that say nothing else either.
    silent = [address for address in silent if found[address] >= found[silent[0]] / 2]
    shown = [f"{address} (last heard of {found[address]:.0f} s ago)" for address in silent[:SHOWN]]
    more = f" and {len(silent) - SHOWN} more" if len(silent) > SHOWN else ""
    of = f"of its {len(found)} workers, these have not: {', '.join(shown)}{more}"
    return f"{head}: {of}. End those that hang, or take them off the cluster (`client.retire_workers`), {tail}"
