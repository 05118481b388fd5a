"""A time limit that fails a test, whatever hangs in it."""

from __future__ import annotations

import sys
import threading
import traceback
from contextvars import copy_context
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_left_behind: Final[list[threading.Thread]] = []


class Overdue(AssertionError):
    """The time is over."""

    riverrun_limit = "hung"
    """For the plugin, which looks at the class of an exception and imports nothing for it."""


def still_running() -> bool:
    """Say whether something that hung has not ended to this day: it may start what nobody expects any more."""
    return any(thread.is_alive() for thread in _left_behind)


def within(seconds: float, function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, and fail if it has not ended in time.

    Args:
        seconds: the time limit, in seconds.
        function: what to call; if it hangs, its thread is left behind.

    Returns:
        What the function returns.

    Raises:
        AssertionError: the time is over; the text says where the function was.
        BaseException: what the function raised.

    Example:
        >>> from riverrun.testing import within
        >>> within(5, lambda: 1 + 1)
        2
    """
    __tracebackhide__ = True
    result: list[T] = []
    raised: list[BaseException] = []
    context = copy_context()

    def body() -> None:
        try:
            result.append(context.run(function))
        except BaseException as error:  # noqa: BLE001 - also what pytest raises for a skip or a failure
            raised.append(error)

    thread = threading.Thread(target=body, name="riverrun-test", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _left_behind.append(thread)
        msg = f"It hangs: it had not ended after {seconds:g} seconds. It was here:\n{_stack_of(thread)}{_happened()}"
        raise Overdue(msg)
    if raised:
        raise raised[0]
    return result[0]


def _stack_of(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - documented, despite its name
    return "".join(traceback.format_stack(frame)) if frame is not None else "(it has ended meanwhile)"


def _happened() -> str:
    """Return what happened last to the task runs of the flow runs that are under way."""
    event_log = sys.modules.get("riverrun._event_log")
    told = event_log.told() if event_log is not None else ""
    return f"\n{told}" if told else ""
