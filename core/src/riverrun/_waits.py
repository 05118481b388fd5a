"""Waiting in the main thread without missing a signal."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _thread import LockType

LOOK_EVERY = 0.1
"""Seconds."""


def acquire(lock: LockType, timeout: float = -1) -> bool:
    """Acquire a lock; in the main thread Python is given the chance to handle signals, every tenth of a second.

    A signal wakes a thread that waits. One that comes in the moment between Python's last look for signals and the
    wait does not, nor one that another thread receives: a Ctrl-C would be seen when the lock is released, which may be
    never. (On Windows that is so for each.)

    Args:
        lock: the lock.
        timeout: seconds to wait at most; -1 for as long as it takes.

    Returns:
        Whether it was acquired.
    """
    if threading.current_thread() is not threading.main_thread():
        return lock.acquire(timeout=timeout)
    end = time.monotonic() + timeout
    while True:
        left = LOOK_EVERY if timeout < 0 else max(min(LOOK_EVERY, end - time.monotonic()), 0)
        if lock.acquire(timeout=left):
            return True
        if timeout >= 0 and end <= time.monotonic():
            return False


def wait(event: threading.Event) -> None:
    """Wait for an event, in the same way.

    Args:
        event: the event.
    """
    while not event.wait(LOOK_EVERY):
        pass
