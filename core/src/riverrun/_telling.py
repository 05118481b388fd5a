"""Threads on which what users gave is called: hooks, callbacks, log handlers, key functions, conditions.

What happens to runs comes on threads that must not wait: an executor's that brings the news, a worker's that holds a
slot. What users gave may call tasks and wait for them, so it is called here, after the transition that it is about.
"""

from __future__ import annotations

import threading
from _queue import Empty, SimpleQueue  # noqa: PLC2701 - `queue` itself imports more
from typing import TYPE_CHECKING, Final

from riverrun import _logging, _world
from riverrun._context import this_thread

if TYPE_CHECKING:
    from collections.abc import Callable

LINGER_SECONDS: Final = 1.0
"""How long a thread with nothing to do waits for more, before it ends."""


class CallbackThread:
    """Calls functions one after the other, in the order in which they came, on a thread that comes and goes.

    Args:
        name: what the thread is called.
        nested: whether a function that comes from a function which is being called here is called at once: one that
            waits for what comes from it would wait for ever else.
    """

    def __init__(self, name: str, *, nested: bool = False) -> None:
        self._name = name
        self._nested = nested
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._serving = False
        self._ident: int | None = None
        self._ended: threading.Event | None = None

    def run(self, function: Callable[[], object]) -> None:
        """Call a function (it never raises) soon."""
        if self._nested and threading.get_ident() == self._ident:
            function()
            return
        self._queue.put(function)
        if not self._serving:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._serving:
                return
            self._serving = True
            self._ended = threading.Event()
        _world.start_thread(self._serve, self._name)

    def _serve(self) -> None:
        self._ident = threading.get_ident()
        ended = self._ended
        while True:
            function = self._next()
            if function is None:
                with self._lock:
                    self._serving = False
                    self._ident = None  # the next thread may have the same number, and be another's
                if ended is not None:
                    ended.set()
                if not self._queue.empty():  # it came in between
                    self._start()
                return
            call_guarded(function)

    def _next(self) -> Callable[[], object] | None:
        try:
            return self._queue.get(timeout=LINGER_SECONDS) if _world.world is None else self._queue.get_nowait()
        except Empty:
            return None

    def stop(self) -> None:
        """End the thread; what is being called is not waited for longer than `LINGER_SECONDS`."""
        if self._serving:
            self._queue.put(None)
            if self._ended is not None and threading.get_ident() != self._ident:
                self._ended.wait(LINGER_SECONDS)


class Here:
    """Calls functions in the thread that brings them, which may wait: the flow's own."""

    def run(self, function: Callable[[], object]) -> None:
        """Call a function."""
        function()

    def stop(self) -> None:
        """Do nothing: there is no thread."""


HERE: Final = Here()


def call_guarded(function: Callable[[], object]) -> None:
    """Call a function between two steps of the engine: an exception is told on stderr, and changes nothing."""
    before, this_thread.cascading = this_thread.cascading, False
    try:
        function()
    except Exception:  # noqa: BLE001 - told
        _logging.tell_error()
    finally:
        this_thread.cascading = before
