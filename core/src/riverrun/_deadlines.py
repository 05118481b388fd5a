"""Interrupt code that runs in the main thread, at a deadline.

Python can do that in the main thread only, with a signal. Elsewhere, and where the application uses `SIGALRM` on its
own, the code runs on: the run has its `TimedOut` state at the deadline all the same, and what the code brings later
is dropped.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Interrupted(BaseException):
    """Unwinds the code; it never leaves `interrupted_after`."""

    is_termination = True  # a task in which it is raised lets it go on, to where it belongs


class Deadline:
    """Whether the deadline was what ended the block."""

    passed = False
    armed = True


@contextmanager
def interrupted_after(seconds: float) -> Iterator[Deadline]:
    """Run the block, and leave it after so many seconds; then `passed` is true."""
    import signal

    deadline = Deadline()
    if (
        threading.current_thread() is not threading.main_thread()
        or not hasattr(signal, "SIGALRM")
        or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL
    ):
        yield deadline
        return

    def interrupt(*_: Any) -> None:
        if deadline.armed:
            deadline.passed = True
            raise _Interrupted

    signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield deadline
        finally:
            deadline.armed = False  # the signal may come up to this line, so this has a `try` of its own around it
    except _Interrupted:
        deadline.armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
