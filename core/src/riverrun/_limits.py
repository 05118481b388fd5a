"""Calls that are given up after a time: nothing that a back-end does may hold a flow for ever."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from riverrun._waits import wait

if TYPE_CHECKING:
    from collections.abc import Callable


class Overdue(Exception):
    """A call did not come back in time; its thread goes on by itself."""


class Deadline:
    """A moment until which something has to be done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """The seconds that are left, 0 or more."""
        return max(0.0, self._at - time.monotonic())


class Call:
    """A call in a thread of its own, for which its caller waits as long as he likes."""

    def __init__(self, call: Callable[[], Any], *, name: str, unwanted: Callable[[Any], object] | None = None) -> None:
        """Begin the call.

        Args:
            call: what to call.
            name: what the thread is called.
            unwanted: called with the value in case that nobody waits for it any more.
        """
        self._call = call
        self._unwanted = unwanted
        self._lock = threading.Lock()
        self._given_up = False
        self._ended = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"riverrun-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._error = error
        with self._lock:
            self._ended.set()
            given_up = self._given_up
        if given_up and self._error is None and self._unwanted is not None:
            self._unwanted(self._value)

    def wait(self, seconds: float) -> bool:
        """Wait until the call has ended, in a way that a signal interrupts; say whether it has."""
        return wait(self._ended, max(seconds, 0))

    def result(self, seconds: float) -> Any:
        """Give the value of the call, or raise its exception.

        Args:
            seconds: how long to wait for it.

        Raises:
            Overdue: it has not ended by then. Its value, if it comes, is handed to `unwanted`.
        """
        try:
            ended = self.wait(seconds)
        except BaseException:  # an interrupt
            self.give_up()
            raise
        if not ended and self.give_up():
            raise Overdue
        if self._error is not None:
            raise self._error
        return self._value

    def give_up(self) -> bool:
        """Hand the value to `unwanted` when it comes, or now; say whether the call is still running."""
        with self._lock:
            self._given_up = True
            return not self._ended.is_set()
