"""Giving a worker's place to other tasks while one waits for them, also where it waits in a thread of its own."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Place:
    """The thread of a worker's pool that runs a call, and that the threads of the call wait behind."""

    def __init__(self) -> None:
        from distributed.threadpoolexecutor import thread_state
        from distributed.worker import get_worker

        self.thread = threading.current_thread()
        self.executor: Any = getattr(thread_state, "executor", None)
        self.worker = get_worker()
        self.key = self.worker.get_current_task()
        self.since = time.time()
        self._token: Token[Place | None] | None = None

    def leave(self) -> None:
        """The call has ended."""
        if self._token is not None:
            _place.reset(self._token)


_place: ContextVar[Place | None] = ContextVar("riverrun_dask_place", default=None)


def here() -> Place:
    """Note where a call begins, for the threads that it starts."""
    place = Place()
    place._token = _place.set(place)  # noqa: SLF001 - of this module
    return place


@contextmanager
def given_up() -> Iterator[None]:
    """Give the place of the present call to others.

    `distributed.secede()` does that for a thread of the pool. Here it is for one that such a thread waits for: the
    pool gets one more, and the worker is told as `worker_client()` tells it.
    """
    place = _place.get()
    if place is None or place.executor is None:
        yield
        return
    from distributed.threadpoolexecutor import threads_lock
    from distributed.worker_state_machine import SecedeEvent

    executor = place.executor
    with threads_lock:
        executor._threads.discard(place.thread)  # noqa: SLF001 - there is no public way for another thread
        executor._adjust_thread_count()  # noqa: SLF001
    event = SecedeEvent(
        key=place.key, compute_duration=time.time() - place.since, stimulus_id=f"riverrun-secede-{time.time()}"
    )
    place.worker.loop.add_callback(place.worker.handle_stimulus, event)
    try:
        yield
    finally:
        with threads_lock:
            executor._threads.add(place.thread)  # noqa: SLF001
