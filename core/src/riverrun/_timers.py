"""Time: the clock that delays, time limits and the cache go by, and functions that are called later.

There is one thread for all delays and time limits of a flow run, started when the first one is set.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Timers:
    """A queue of functions to call at their times, in the order of these."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function (which never raises) after a delay in seconds, on the timers' thread."""
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), function))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="riverrun-timers", daemon=True)
                self._thread.start()
            elif self._heap[0][2] is function:
                self._changed.notify()

    def call_after_delay(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function after a delay that somebody asked for, as `call_later` does after one that limits a run."""
        self.call_later(seconds, function)

    def stop(self) -> None:
        """Forget what has not been called, and end the thread."""
        if sys.is_finalizing():
            # What a signal has kept from its end is closed as Python exits: the thread is gone by then, and not ended.
            return
        with self._changed:
            self._stopped = True
            self._heap.clear()
            self._changed.notify()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._heap or self._heap[0][0] > time.monotonic()):
                    self._changed.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                if self._stopped:
                    return
                function = heapq.heappop(self._heap)[2]
            try:
                function()
            except BaseException:
                logging.getLogger("riverrun").exception("A timer's function raised, which none of them should.")


class Clock:
    """Real time."""

    def time(self) -> float:
        """Give the seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait before a retry, in this thread."""
        time.sleep(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Wait before a retry, in this coroutine."""
        import anyio

        await anyio.sleep(seconds)

    def timers(self) -> Timers:
        """Make the timers of a flow run."""
        return Timers()


clock = Clock()
"""The present clock: look it up here at each use, a test may have put another in its place."""


@contextmanager
def replaced(by: Clock) -> Iterator[None]:
    """Let another clock be the present one, in all threads."""
    global clock  # noqa: PLW0603 - one process has one clock
    before, clock = clock, by
    try:
        yield
    finally:
        clock = before
