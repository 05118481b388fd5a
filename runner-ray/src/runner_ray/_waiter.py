"""The one thread that waits for outcomes.

Few calls at a time: Ray tells of each when it has ended. Many: they are asked for together, for what Ray tells is told
on the thread which also sends calls to workers, and that must not wait for Python while a flow submits thousands.
"""

from __future__ import annotations

import threading
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner_ray._open import OpenCalls
    from runner_ray._sending import Sending

FEW: Final = 50
"""So many calls may be open at a time for Ray to tell of each."""
WINDOW: Final = 200
"""So many calls are looked at together."""
BATCH: Final = 100
"""So many outcomes are waited for together; Ray's time for one look grows with both numbers."""
SOON: Final = 0.02
"""Seconds after which what has ended is taken, though it be fewer; where nothing ends, the next look takes longer."""
LATE: Final = 0.1

_ASK: Final = object()
"""In place of an outcome: ask for it."""


class Waiter:
    """Waits for the outcomes of calls.

    Args:
        arrived: called with a call, and its outcome or the exception that came instead.
        sendings: the calls that have not ended.
    """

    def __init__(self, arrived: Callable[[Sending, Any], object], sendings: OpenCalls) -> None:
        self._arrived = arrived
        self._open = sendings
        self._queue: SimpleQueue[tuple[Sending, Any] | None] = SimpleQueue()
        self._many: dict[Any, Sending] = {}
        """The calls that are asked for together, by Ray's reference to the outcome."""
        self._stopped = False
        self._pause = SOON
        self._thread = threading.Thread(target=self._run, name="riverrun-ray-waiter", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def stop(self) -> None:
        """Wait for nothing more."""
        self._stopped = True
        self._queue.put(None)

    def join(self) -> None:
        """Wait until the thread has ended; not for long."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(5)

    def take(self, sending: Sending) -> None:
        """Wait for the outcome of a call, too."""
        if len(self._open) <= FEW:
            put = self._queue.put
            # `future()`, the public way, makes a future more for each call.
            sending.value.outcome._on_completed(lambda result: put((sending, result)))  # noqa: SLF001
        else:
            self._queue.put((sending, _ASK))

    def _run(self) -> None:
        while not self._stopped:
            self._take_told()
            if self._many and not self._stopped:
                self._ask()

    def _take_told(self) -> None:
        """Take what is in the queue; wait for something if nothing else is to be waited for."""
        try:
            told = self._queue.get(block=not self._many)
            while told is not None:
                sending, result = told
                if result is not _ASK:
                    self._arrived(sending, result)
                elif (outcome := sending.value.outcome) is not None:
                    self._many[outcome] = sending
                    self._pause = SOON
                told = self._queue.get_nowait()
        except Empty:
            return

    def _ask(self) -> None:
        """Take what has ended of the calls that are asked for together."""
        import ray

        window = list(islice(self._many, WINDOW))
        try:
            ready, rest = ray.wait(window, num_returns=min(BATCH, len(window)), timeout=self._pause, fetch_local=False)
        except Exception:  # noqa: BLE001 - the session is shut down; `_watch` tells
            self._many.clear()
            return
        self._pause = SOON if ready else min(2 * self._pause, LATE)
        if len(self._many) > len(window):  # those behind them have their turn, too
            for reference in rest:
                self._many[reference] = self._many.pop(reference)
        for reference, result in zip(ready, _results(ready), strict=True):
            self._arrived(self._many.pop(reference), result)


def _results(references: list[Any]) -> list[Any]:
    """Give outcomes, or the exceptions in their places."""
    import ray

    try:
        return list(ray.get(references))
    except Exception:  # noqa: BLE001 - of one of them
        return [_result(reference) for reference in references]


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except Exception as error:  # noqa: BLE001 - it is taken as what came in place of the outcome
        return error
