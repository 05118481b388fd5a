"""Who hears SIGTERM: this process's handler, and not Ray's."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_EVERY = 0.002
"""Seconds; for so long a SIGTERM may find Ray's handler, or none, while a session is opened or shut down.

Where Ray opens one, it keeps other threads from running in the middle of it: there it is longer, up to a second.
"""


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Let Ray open or shut down a session in the block, and keep the handler of SIGTERM, on whatever thread this is.

    Ray puts a handler of its own before it when a session opens, in C: that prints a stack trace, lets the handler
    that was there before run, and aborts the process 3 seconds later, wherever it is by then on its way out. As a
    session is shut down, no handler is left at all, and the shutdown goes on for a second or two.
    """
    if os.name != "posix":
        yield
        return
    handler = _Handler()
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(LOOK_EVERY):
            handler.put_back()

    keeper = threading.Thread(target=keep, name="riverrun-ray-sigterm", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        handler.put_back()


class _Handler:
    """The handler of SIGTERM, as Python knows it, and as the system does.

    Python sets one on the main thread only; what it calls for that can be called on any.
    """

    def __init__(self) -> None:
        import ctypes

        self._python = python = ctypes.pythonapi
        python.PyOS_getsig.restype = ctypes.c_void_p
        python.PyOS_setsig.argtypes = [ctypes.c_int, ctypes.c_void_p]
        python.PyOS_setsig.restype = ctypes.c_void_p
        self._before = signal.getsignal(signal.SIGTERM)
        self._system = self._of_the_system(signal.SIGTERM)
        self._in_python: int | None = None
        """The function in C that Python has for all handlers in Python, as far as one is known."""
        if callable(self._before):
            self._in_python = self._system
        elif callable(signal.getsignal(signal.SIGINT)):
            self._in_python = self._of_the_system(signal.SIGINT)

    def put_back(self) -> None:
        """Put back what Python knows now: a flow on the main thread may have set its own, or taken it away."""
        system = self._wanted(signal.getsignal(signal.SIGTERM))
        if system != self._of_the_system(signal.SIGTERM):
            self._python.PyOS_setsig(signal.SIGTERM, system)

    def _wanted(self, now: Any) -> int:
        if now is self._before:
            return self._system
        if now in {signal.SIG_DFL, signal.SIG_IGN}:
            return int(now)
        if self._in_python is None:
            # Where Ctrl-C is ignored, as in the background of a shell. Python has just put it there, and Ray hardly
            # in the same moment.
            self._in_python = self._of_the_system(signal.SIGTERM)
        return self._in_python

    def _of_the_system(self, number: int) -> int:
        return self._python.PyOS_getsig(number) or 0
