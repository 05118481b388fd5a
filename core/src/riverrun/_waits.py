"""Waiting in the main thread without missing a signal.

A signal wakes a thread that waits. One that comes in the moment between Python's last look for signals and the wait
does not, nor one that another thread receives: a Ctrl-C would be seen when the wait is over, which may be never. (On
Windows that is so for each.) So the main thread waits in slices, and Python looks between them.

What a signal raises is lost if it comes while the main thread is in a destructor, or in what somebody calls after each
garbage collection, as Dask does: Python ignores exceptions there. Such an interrupt is kept, and raised by the wait.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from riverrun import _world

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable


class Countdown:
    """Counts things that happen on any thread.

    Args:
        count: how many are to happen.
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()

    def is_over(self) -> bool:
        """Count one; say whether it was the last."""
        with self._lock:
            self._left -= 1
            return self._left == 0


LOOK_EVERY = 0.1
"""Seconds."""

ignored: list[BaseException] = []
"""The interrupts that Python has ignored, to be raised again in the main thread."""


def acquire(lock: LockType, timeout: float = -1) -> bool:
    """Acquire a lock.

    Args:
        lock: the lock.
        timeout: seconds to wait at most; -1 for as long as it takes.

    Returns:
        Whether it was acquired.
    """
    return _in_slices(lambda seconds: lock.acquire(timeout=seconds), timeout)


def wait(event: threading.Event, timeout: float = -1) -> bool:
    """Wait for an event.

    Args:
        event: the event.
        timeout: seconds to wait at most; -1 for as long as it takes.

    Returns:
        Whether it has come.
    """
    return _in_slices(lambda seconds: event.wait(None if seconds < 0 else seconds), timeout)


def _in_slices(attempt: Callable[[float], bool], timeout: float) -> bool:
    if _world.world is not None:
        return _world.world.wait(attempt, timeout)
    if threading.current_thread() is not threading.main_thread():
        return attempt(timeout)
    end = time.monotonic() + timeout
    while True:
        raise_ignored()
        left = LOOK_EVERY if timeout < 0 else max(min(LOOK_EVERY, end - time.monotonic()), 0)
        if attempt(left):
            return True
        if timeout >= 0 and end <= time.monotonic():
            return False


def raise_ignored() -> None:
    """Raise an interrupt that was ignored, if there is one; called in the main thread."""
    if ignored:
        error = ignored[0]
        ignored.clear()  # several are one, as several signals are
        raise error
