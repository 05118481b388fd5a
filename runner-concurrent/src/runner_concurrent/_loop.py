"""An event loop in a thread, started when the first coroutine comes."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    Job = tuple[Callable[[], Coroutine[Any, Any, object]], Context]

STOP_TIMEOUT: Final = 2.0
"""How long to wait for the loop's thread at the end, in seconds: a coroutine that blocks it cannot be stopped."""


class LoopThread:
    """Runs coroutines on a loop of its own.

    They come through a deque, and the loop is woken once for all that have come meanwhile: waking it for each of
    them would cost more than a short coroutine.
    """

    def __init__(self) -> None:
        self._inbox: deque[Job] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = False

    def start(self, job: Callable[[], Coroutine[Any, Any, object]], context: Context) -> None:
        """Start a coroutine soon."""
        self._inbox.append((job, context))
        if not self._awake:
            self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._loop is None:
                self._start_thread()
            assert self._loop is not None  # noqa: S101 - said to type checkers
            self._awake = True
            self._loop.call_soon_threadsafe(self._drain)

    def _start_thread(self) -> None:
        import asyncio

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="riverrun-loop", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        assert self._loop is not None  # noqa: S101
        self._awake = False  # before the inbox is read, so that what comes later wakes the loop again
        while self._inbox:
            job, context = self._inbox.popleft()
            # The core keeps what runs alive: asyncio itself has weak references to its tasks only.
            self._loop.create_task(job(), context=context)

    def _serve(self) -> None:
        import asyncio

        loop = self._loop
        assert loop is not None  # noqa: S101
        try:
            loop.run_forever()
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def stop(self) -> None:
        """Cancel what is left, and end the thread."""
        thread, loop = self._thread, self._loop
        if thread is None or loop is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_TIMEOUT)
        if thread.is_alive():
            logging.getLogger("riverrun.task_runners").warning(
                "An async task blocks the event loop of the concurrent task runner: its thread is left behind. Do not "
                "call blocking functions such as time.sleep() in async tasks."
            )
