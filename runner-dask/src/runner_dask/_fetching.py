"""Values on their way from the cluster to the flow's process."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK: Final = 0.5
"""Seconds between two looks whether the value is lost."""


def fetched(future: Any, is_lost: Callable[[], bool]) -> Any:
    """Bring a value here, and stop waiting for it when it is lost.

    Where a worker dies just then, Dask may try for 30 s to connect to it, and never ask whether it is still there.

    Args:
        future: the Dask future; None if its task was never sent, for it was lost before.
        is_lost: says whether the value is known to be lost.

    Returns:
        The value.

    Raises:
        CancelledError: it is lost.
        Exception: whatever Dask raises where a value cannot be fetched.
    """
    if future is None:
        raise CancelledError
    client = future.client
    answer = asyncio.run_coroutine_threadsafe(_gathered(client, future), client.loop.asyncio_loop)
    while True:
        try:
            return answer.result(LOOK)
        except TimeoutError:
            if answer.done():  # with a TimeoutError of its own
                raise
        if is_lost():
            # It is left to end by itself: Dask fetches several values at once, and this may be for others, too.
            raise CancelledError


async def _gathered(client: Any, future: Any) -> Any:
    return await client.gather(future, asynchronous=True)
